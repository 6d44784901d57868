"""Weakly supervised semantic segmentation: weak labels in, pixel masks out, with honest scores.

Every stage is one function that takes one options model::

    from pseudolabel.options import TrainCamOptions
    from pseudolabel.stages.train_cam import train_cam

    train_cam(TrainCamOptions(dataset="voc", root="VOCdevkit/VOC2012", out="work/cam.h5"))

Importing this package imports neither torch nor any stage.
"""

__version__ = "0.1.0"
