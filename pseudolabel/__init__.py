"""Weakly supervised semantic segmentation: weak labels in, pixel masks out, with honest scores.

Every stage is one function that takes one options model::

    from pseudolabel.options import TrainCamOptions
    from pseudolabel.stages.train_cam import train_cam

    train_cam(TrainCamOptions(dataset="voc", root="VOCdevkit/VOC2012", out="work/cam.h5"))

A trained segmenter gives masks of photographs::

    from pseudolabel import Predictor

    mask = Predictor("work/seg.h5")("photograph.jpg")

Importing this package imports neither torch nor any stage; ``Predictor`` is imported when it is asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pseudolabel.export.predictor import Predictor

__all__ = ["Predictor", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """``Predictor``, whose import takes torch."""
    if name == "Predictor":
        from pseudolabel.export.predictor import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
