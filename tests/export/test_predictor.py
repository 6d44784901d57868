"""A segmenter as an object: the numbers of predict-masks, from files, arrays and pictures, one or several."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pseudolabel import Predictor
from pseudolabel.artefacts import MapsReader, open_artefact
from pseudolabel.errors import ArtefactError, InputError
from pseudolabel.options import PredictMasksOptions, TrainCamOptions
from pseudolabel.stages.predict_masks import predict_masks
from pseudolabel.stages.train_cam import train_cam
from tests.helpers.segmenters import CLASSES, RESNET_FPN, photograph, write_segmenter

QUICK: dict[str, Any] = {"device": "cpu", "precision": "float32"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_segmenter(tmp_path_factory.mktemp("net") / "seg.h5")


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photographs")
    sizes = {"a.png": (40, 64), "b.png": (40, 64), "c.jpg": (72, 40)}
    return [photograph(folder / name, size, seed) for seed, (name, size) in enumerate(sizes.items())]


@pytest.mark.parametrize("network", [{}, RESNET_FPN])
@pytest.mark.parametrize("settings", [{}, {"size": 96, "tile": 64, "scales": (1.0, 0.5), "flip": False}])
def test_the_numbers_of_predict_masks(
    paths: list[Path], tmp_path: Path, network: dict[str, Any], settings: dict[str, Any]
) -> None:
    checkpoint, out = write_segmenter(tmp_path / "seg.h5", **network), tmp_path / "out"
    given = {"images": paths, "out": out, "workers": 0, "batch_size": 1}
    predict_masks(PredictMasksOptions(checkpoint=checkpoint, **given, **QUICK, **settings))
    predictor = Predictor(checkpoint, **QUICK, **settings)
    with open_artefact(out / "masks.h5") as first, open_artefact(out / "soft.h5") as second:
        masks, soft = MapsReader(first), MapsReader(second)
        for index, path in enumerate(paths):
            assert np.array_equal(predictor(path), masks.labels(index))
            labels, maps = soft.full_size(index)
            found = predictor.probabilities(path)
            assert found.shape == (4, *masks.size(index))
            assert np.array_equal(found[labels], maps)
            assert not np.delete(found, labels, axis=0).any()
    assert len(list(tmp_path.iterdir())) == 2  # no files


def test_what_a_photograph_may_be(checkpoint: Path, paths: list[Path]) -> None:
    predictor = Predictor(str(checkpoint), **QUICK)
    assert predictor.classes == CLASSES
    mask = predictor(paths[0])
    assert (mask.dtype, mask.shape) == (np.uint8, (40, 64))
    picture = Image.open(paths[0])
    for same in (str(paths[0]), picture, np.asarray(picture)):
        assert np.array_equal(predictor(same), mask)
    grey = np.asarray(picture.convert("L"))
    assert np.array_equal(predictor(grey), predictor(np.stack([grey] * 3, axis=2)))


def test_several_are_a_list_in_their_order(checkpoint: Path, paths: list[Path]) -> None:
    predictor = Predictor(checkpoint, **QUICK, batch_size=2)
    predictor._most = 2  # as an accelerator
    order = [paths[2], paths[0], np.asarray(Image.open(paths[1])), paths[0]]
    for found, path in zip(predictor(order), order, strict=True):
        assert (found != predictor(path)).mean() < 0.01  # other batches, other rounding
    assert [found.shape for found in predictor.probabilities(tuple(order))] == [(4, 72, 40)] + [(4, 40, 64)] * 3
    assert predictor([]) == []


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.zeros((4, 4, 3), np.float32), "float32 and shape (4, 4, 3)"),
        (np.zeros((3, 4, 4), np.uint8), "uint8 and shape (3, 4, 4)"),
        (np.zeros((0, 4, 3), np.uint8), "uint8 and shape (0, 4, 3)"),
    ],
)
def test_what_is_no_photograph(checkpoint: Path, array: np.ndarray, found: str) -> None:
    with pytest.raises(InputError) as error:
        Predictor(checkpoint, **QUICK)(array)
    assert str(error.value) == (
        f"Predictor: found an array of {found}; wanted a photograph as uint8 (H, W, 3) in RGB or (H, W) in grey, "
        "a picture of Pillow, a path, or a list of these"
    )


def test_a_folder_is_none(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        Predictor(checkpoint, **QUICK)(tmp_path)
    assert str(error.value) == (f"{tmp_path} is a folder; pass its files, or run 'pseudolabel predict-masks --images'")


def test_a_wrong_setting(checkpoint: Path) -> None:
    with pytest.raises(InputError) as error:
        Predictor(checkpoint, size=3)
    assert str(error.value) == "Predictor: --size: should be greater than or equal to 16, found 3"


def test_a_checkpoint_of_train_cam(synthetic_root: Path, tmp_path: Path) -> None:
    cam = tmp_path / "cam.h5"
    given = {"dataset": "voc", "root": synthetic_root, "backbone": "test_vit", "crop": 32, "epochs": 1, "workers": 0}
    train_cam(TrainCamOptions(out=cam, pretrained=False, device="cpu", **given))
    with pytest.raises(ArtefactError) as error:
        Predictor(cam)
    assert str(error.value) == (
        f"{cam} holds a cam network (made by train-cam); wanted a checkpoint of train-segmenter, train-scribble, "
        "train-semi or train-cosa; make-cams takes it"
    )


def test_the_package_alone_imports_no_torch() -> None:
    words = "import sys, pseudolabel; assert 'torch' not in sys.modules; assert not hasattr(pseudolabel, 'Predicator')"
    assert subprocess.run([sys.executable, "-c", words], check=False).returncode == 0
