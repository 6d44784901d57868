"""Settings of small CAM trainings and of make-cams on what they give."""

from pseudolabel.artefacts import MapsReader, open_artefact
from pseudolabel.options import MakeCamsOptions, TrainCamOptions


def cam_options(root, out, **values):
    settings = {
        "backbone": "test_vit",
        "auxiliary_block": -2,
        "pretrained": False,
        "crop": 32,
        "epochs": 2,
        "batch_size": 4,
        "precision": "float32",
        "device": "cpu",
        "workers": 0,
        "holdout": 0.25,
        **values,
    }
    return TrainCamOptions(dataset="voc", root=root, out=out, **settings)


def make_options(checkpoint, out, **values):
    """Of plain CAMs: propagated along the even attention of so short a training, they would be the same everywhere."""
    looks = {"size": 64, "scales": (1, 0.5), "propagate": 0}
    settings = {"precision": "float32", "device": "cpu", "workers": 0, **looks, **values}
    return MakeCamsOptions(checkpoint=checkpoint, out=out, **settings)


def read_all(path):
    with open_artefact(path, "cams") as artefact:
        reader = MapsReader(artefact)
        return {name: reader.maps(index) for index, name in enumerate(reader.images.ids)}
