"""Trainings that begin with the weights of a checkpoint use its backbone as it was trained, and say what they used."""

import numpy as np
import pytest
import torch

from pseudolabel.artefacts import open_artefact, read_header
from pseudolabel.errors import InputError
from pseudolabel.models.checkpoint import load_network
from pseudolabel.models.segmenter import timm_model
from pseudolabel.models.timm_models import IMAGENET, FixedPositions
from pseudolabel.options import (
    ExportMasksOptions,
    MakeCamsOptions,
    PredictMasksOptions,
    SearchThresholdOptions,
    TrainCamOptions,
    TrainCosaOptions,
    TrainSegmenterOptions,
)
from pseudolabel.runtime.devices import normalise
from pseudolabel.stages.export_masks import export_masks
from pseudolabel.stages.make_cams import make_cams
from pseudolabel.stages.predict_masks import predict_masks
from pseudolabel.stages.search_threshold import search_threshold
from pseudolabel.stages.train_cam import train_cam
from pseudolabel.stages.train_cosa import train_cosa
from pseudolabel.stages.train_scribble import train_scribble
from pseudolabel.stages.train_segmenter import train_segmenter

PLACES = {"device": "cpu", "workers": 0, "precision": "float32"}
SHORT = {**PLACES, "crop": 32, "epochs": 1, "batch_size": 4, "pretrained": False}


def train(root, out, **values):
    settings = {"backbone": "test_vit", "auxiliary_block": -2, "holdout": 0, **SHORT, **values}
    train_cam(TrainCamOptions(dataset="voc", root=root, out=out, **settings))
    return out


@pytest.fixture(scope="module")
def released(synthetic_root, tmp_path_factory):
    """A CAM network with ImageNet's normalisation and a frozen position embedding."""
    path = tmp_path_factory.mktemp("released") / "cam.h5"
    return train(synthetic_root, path, normalisation="imagenet", position_embedding="frozen")


@pytest.fixture(scope="module")
def masks(released):
    """Masks cut from its maps."""
    cams, folder = released.with_name("cams.h5"), released.with_name("masks")
    make_cams(MakeCamsOptions(checkpoint=released, split="train", out=cams, size=64, scales=(1,), **PLACES))
    found = released.with_name("threshold.h5")
    search_threshold(SearchThresholdOptions(cams=cams, out=found, method="mixture", workers=0))
    export_masks(ExportMasksOptions(labels=cams, threshold=found, out=folder, workers=0))
    return folder / "masks.h5"


def features(path, kind):
    """What the backbone of a checkpoint makes of one image of 64 pixels, which is larger than its own 32 or so."""
    network, _ = load_network(path, kind)
    network.eval()
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8))
    encoder = network.backbone
    with torch.no_grad():
        return encoder(normalise(pixels, encoder.mean, encoder.std))[0]


def require_as_trained(out, released, kind):
    """The network of ``out``, whose backbone is frozen, sees what ``released`` sees."""
    torch.testing.assert_close(features(out, kind), features(released, "cam"), rtol=0, atol=0)
    header = read_header(out)
    assert tuple(header.network["mean"]) == IMAGENET[0]
    assert header.network["weights"] == str(released.resolve())
    assert header.network["pretrained"] is False
    assert header.facts["architecture"]["normalisation"] == "imagenet"
    assert header.facts["architecture"]["position_embedding"] == "frozen"


def test_of_train_segmenter(released, masks, tmp_path):
    train_segmenter(TrainSegmenterOptions(masks=masks, out=tmp_path / "out.h5", weights=released, freeze=1.0, **SHORT))
    require_as_trained(tmp_path / "out.h5", released, "segmenter")


def test_of_train_scribble(released, scribble_options):
    options = scribble_options(
        "out.h5", **{**SHORT, "backbone": "test_vit", "weights": released, "freeze": 1.0, "crop": 64}
    )
    train_scribble(options)
    require_as_trained(options.out, released, "segmenter")


def test_of_train_cam(released, synthetic_root, tmp_path):
    out = train(synthetic_root, tmp_path / "out.h5", weights=released, freeze=1.0)
    require_as_trained(out, released, "cam")


def test_of_train_cosa(released, synthetic_root, tmp_path):
    settings = {"backbone": "test_vit", "auxiliary_block": -2, "holdout": 0, **SHORT, "picture_every": None}
    train_cosa(
        TrainCosaOptions(
            dataset="voc", root=synthetic_root, out=tmp_path / "out.h5", weights=released, freeze=1.0, **settings
        )
    )
    require_as_trained(tmp_path / "out.h5", released, "cam")


def test_a_decoder_of_the_library_reads_images_so_too(released, masks, tmp_path):
    options = TrainSegmenterOptions(
        masks=masks, out=tmp_path / "out.h5", weights=released, decoder="dpt", **{**SHORT, "crop": 64}
    )
    train_segmenter(options)
    network, _ = load_network(options.out, "segmenter")
    assert (network.mean, network.std) == IMAGENET
    assert isinstance(timm_model(network), FixedPositions)


def test_weights_that_are_no_checkpoint_are_used_as_timm_uses_them(masks, tmp_path):
    train_segmenter(TrainSegmenterOptions(masks=masks, out=tmp_path / "out.h5", **SHORT))
    header = read_header(tmp_path / "out.h5")
    assert header.network["mean"] == [0.5, 0.5, 0.5]
    assert header.network["weights"] is None
    assert header.facts["architecture"].keys().isdisjoint({"normalisation", "position_embedding"})


def test_a_second_segmenter_starts_where_the_first_did(released, masks, synthetic_root, tmp_path):
    """Of its weights, not of those behind the masks that the first learnt from."""
    first, folder, second = tmp_path / "first.h5", tmp_path / "masks", tmp_path / "second.h5"
    train_segmenter(
        TrainSegmenterOptions(masks=masks, out=first, backbone="test_vit2", **{**SHORT, "crop": 64, "epochs": 2})
    )
    predict_masks(PredictMasksOptions(checkpoint=first, split="train", out=folder, size=64, scales=(1,), **PLACES))
    start = tmp_path / "start.h5"
    train(synthetic_root, start, backbone="test_vit2", crop=64)
    for out, values in ((second, {"weights": start}), (tmp_path / "third.h5", {})):
        source = folder if values else tmp_path / "again"
        train_segmenter(TrainSegmenterOptions(masks=source, out=out, freeze=1.0, **{**SHORT, "crop": 64, **values}))
        if values:
            predict_masks(
                PredictMasksOptions(
                    checkpoint=out, split="train", out=tmp_path / "again", size=64, scales=(1,), **PLACES
                )
            )
    assert read_header(second).network == read_header(tmp_path / "third.h5").network
    assert read_header(second).network["weights"] == str(start)
    with open_artefact(start) as one, open_artefact(tmp_path / "third.h5") as other:
        for name, dataset in one.file["weights"].items():
            if name.startswith("backbone."):
                np.testing.assert_array_equal(dataset[()], other.file["weights"][name][()])


def test_a_checkpoint_that_does_not_exist_is_one_line(synthetic_root, tmp_path):
    with pytest.raises(InputError, match=r"^weights file .*gone.h5 does not exist; pass --weights FILE.safetensors"):
        train(synthetic_root, tmp_path / "out.h5", weights=tmp_path / "gone.h5")
