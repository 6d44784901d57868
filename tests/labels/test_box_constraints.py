"""``--tags boxes``: predictions, CAMs and what a CRF makes of them are nowhere outside of their classes' boxes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pseudolabel.artefacts import open_artefact, read_header, write_artefact
from pseudolabel.artefacts.header import CostMeter
from pseudolabel.artefacts.maps import at_size
from pseudolabel.cli.app import main
from pseudolabel.data import Dataset, Record, load_dataset, open_dataset
from pseudolabel.data.shapes import Box
from pseudolabel.data.simulate.labels import simulate_boxes
from pseudolabel.errors import DatasetError, InputError
from pseudolabel.labels.box_constraints import allowed, constrain_cams, constrain_probabilities
from pseudolabel.options import (
    MakeCamsOptions,
    PredictMasksOptions,
    RefineCrfOptions,
    SimulateBoxesOptions,
    TrainCamOptions,
    TrainScribbleOptions,
    build_options,
)
from pseudolabel.runs.pipeline import Step
from pseudolabel.runs.runner import Freshness
from pseudolabel.stages.make_cams import make_cams
from pseudolabel.stages.predict_masks import predict_masks
from pseudolabel.stages.refine_crf import refine_crf
from pseudolabel.stages.train_cam import train_cam
from pseudolabel.stages.train_scribble import train_scribble
from tests.helpers.artefacts import blurred_truth, read_maps, synthetic, write_maps

SMALL: dict[str, Any] = {
    "backbone": "test_vit",
    "pretrained": False,
    "crop": 32,
    "steps": 2,
    "batch_size": 4,
    "precision": "float32",
    "device": "cpu",
    "workers": 0,
}
QUICK: dict[str, Any] = {"split": "train", "precision": "float32", "device": "cpu", "workers": 0}


def box(label: int, left: float, top: float, right: float, bottom: float) -> Box:
    return Box(label, left, top, right, bottom, f"box of {label}")


def record(*boxes: Box, tags: tuple[int, ...] = (1, 2)) -> Record:
    return Record("a", Path("a.png"), tags, boxes=boxes)


# By hand


def test_a_class_may_be_in_any_of_its_boxes_and_a_cell_that_a_box_touches_is_inside() -> None:
    two = record(box(1, 0, 0, 2, 1), box(1, 3, 2, 4, 4), box(2, 0.5, 1, 1, 4))
    found = allowed(two, (4, 4))
    assert found[1].astype(int).tolist() == [[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1]]
    assert found[2].astype(int).tolist() == [[0, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]]
    assert allowed(two, (4, 4), (2, 2))[2].astype(int).tolist() == [[1, 0], [1, 0]]
    assert allowed(record(), (4, 4)) == {}


def test_shares_are_kept_in_proportion_and_background_fills_what_is_left() -> None:
    labels = np.array([0, 1, 2])
    shares = np.array([[[0.1, 0.0, 0.2]], [[0.6, 1.0, 0.3]], [[0.3, 0.0, 0.5]]], np.float32)
    held = constrain_probabilities(labels, shares, record(box(1, 2, 0, 3, 1)))
    # Class 1 only in the last pixel: 0.1 and 0.3 become shares of 0.4; nothing is left of the second; the third stays.
    np.testing.assert_allclose(held[:, 0, 0], [0.25, 0, 0.75], rtol=1e-6)
    assert held[:, 0, 1].tolist() == [1, 0, 0]
    np.testing.assert_allclose(held[:, 0, 2], shares[:, 0, 2], rtol=1e-6)
    np.testing.assert_allclose(constrain_probabilities(labels, shares, record()), shares, rtol=1e-6)
    assert shares[1, 0, 1] == 1  # what was given is not changed


def test_cams_are_zero_outside_and_scaled_to_their_largest_value_inside() -> None:
    maps = {1: np.array([[1.0, 0.5], [0.2, 0.1]]), 2: np.array([[0.0, 1.0], [0.0, 0.0]]), 3: np.ones((2, 2))}
    held = constrain_cams(maps, record(box(1, 0, 6, 8, 8), box(2, 0, 4, 4, 8)), (8, 8))
    assert held[1].tolist() == [[0, 0], [1, 0.5]]
    assert held[2].tolist() == [[0, 0], [0, 0]]  # the box shows nothing
    assert held[3].tolist() == [[1, 1], [1, 1]]  # has no box
    assert maps[1][0, 0] == 1


def test_a_box_at_fault_is_an_error_that_names_it() -> None:
    with pytest.raises(DatasetError) as error:
        allowed(record(box(1, 2, 0, 2, 1)), (4, 4))
    assert str(error.value) == "box of 1: box from (2, 0) to (2, 1), counted from 0, has no extent"


# On the synthetic set


@pytest.fixture(scope="module")
def boxes(synthetic_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Boxes of all training images but the first, tight around their objects."""
    folder = tmp_path_factory.mktemp("boxes") / "boxes"
    simulate_boxes(
        SimulateBoxesOptions(dataset="voc", root=synthetic_root, split="train", from_="masks", out=folder, workers=0)
    )
    (folder / f"{synthetic(synthetic_root).records[0].id}.xml").unlink()
    return folder


@pytest.fixture(scope="module")
def checkpoint(synthetic_root: Path, boxes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A segmenter that knows of the boxes, has hardly learnt a thing, and sees objects everywhere."""
    path = tmp_path_factory.mktemp("net") / "net.h5"
    train_scribble(TrainScribbleOptions(dataset="voc", root=synthetic_root, out=path, boxes=boxes, **SMALL))
    with open_artefact(path) as artefact:
        header = artefact.header
        arrays = {f"weights/{name}": array[()] for name, array in artefact.file["weights"].items()}
    arrays["weights/head.classifier.weight"][0] -= 0.05  # of background: features are not negative
    write_artefact(path, header, arrays, CostMeter())
    return path


def outside(dataset: Dataset, folder: Path) -> int:
    """How many pixels of the PNGs in a folder are of a class outside of all of its boxes, or of no tag."""
    count = 0
    for item in dataset.records:
        labels = np.asarray(Image.open(folder / f"{item.id}.png"))
        where = allowed(item, labels.shape)
        for label in np.unique(labels[labels > 0]).tolist():
            inside = where.get(label, np.full(labels.shape, label in (item.tags or ())))
            count += int(((labels == label) & ~inside).sum())
    return count


@pytest.mark.parametrize("crf", [False, True])
def test_no_pixel_of_a_prediction_lies_outside_of_its_boxes(checkpoint: Path, tmp_path: Path, crf: bool) -> None:
    given = {"checkpoint": checkpoint, "crf": crf, "preset": "psa", **QUICK}
    predict_masks(PredictMasksOptions(out=tmp_path / "held", tags="boxes", **given))
    predict_masks(PredictMasksOptions(out=tmp_path / "free", tags="dataset", **given))
    header = read_header(tmp_path / "held/masks.h5")
    dataset = load_dataset(header.dataset)
    assert sum(bool(item.boxes) for item in dataset.records) == 7
    assert outside(dataset, tmp_path / "held") == 0 < outside(dataset, tmp_path / "free")
    assert (header.protocol["tag_filter"], header.protocol["held_to"]) == ("image tags", "boxes of 7 images")
    assert "boxes simulated from pixel masks" in header.oracle
    assert "held_to" not in read_header(tmp_path / "free/masks.h5").protocol
    first = f"{dataset.records[0].id}.png"  # has no boxes
    assert (tmp_path / "held" / first).read_bytes() == (tmp_path / "free" / first).read_bytes()


def test_held_shares_are_the_restricted_ones_without_what_is_outside(checkpoint: Path, tmp_path: Path) -> None:
    for tags in ("boxes", "dataset"):
        predict_masks(PredictMasksOptions(checkpoint=checkpoint, out=tmp_path / tags, tags=tags, **QUICK))  # type: ignore[arg-type]
    dataset = load_dataset(read_header(tmp_path / "boxes/soft.h5").dataset)
    found = read_maps(tmp_path / "boxes/soft.h5")
    for item, held, free in zip(dataset.records, found, read_maps(tmp_path / "dataset/soft.h5"), strict=True):
        size = next(iter(held.values())).shape
        labels, shares = at_size(free, size)
        for label, where in allowed(item, size).items():
            shares[labels == label] *= where
        shares /= shares.sum(axis=0)
        for label, array in held.items():
            np.testing.assert_allclose(array, shares[labels == label][0], atol=2e-3)  # two roundings to float16


def test_a_crf_of_its_own_keeps_to_the_boxes_too(checkpoint: Path, tmp_path: Path) -> None:
    """refine-crf and export-masks on the command line, after predict-masks."""
    words = ["--tags", "boxes", "--split", "train", "--device", "cpu", "--workers", "0", "--quiet"]
    assert main(["predict-masks", str(checkpoint), *words, "--out", str(tmp_path / "pseudo")]) == 0
    soft = ["refine-crf", str(tmp_path / "pseudo/soft.h5"), "--preset", "psa", "--out", str(tmp_path / "soft.h5")]
    assert main([*soft, "--workers", "1", "--quiet"]) == 0
    assert main(["export-masks", str(tmp_path / "soft.h5"), "--out", str(tmp_path / "masks"), "--workers", "0"]) == 0
    header = read_header(tmp_path / "masks/masks.h5")
    assert header.protocol["held_to"] == "boxes of 7 images"
    assert outside(load_dataset(header.dataset), tmp_path / "masks") == 0


def test_cams_are_held_on_their_grid_by_boxes_that_the_network_never_saw(
    synthetic_root: Path, boxes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cam = tmp_path / "cam.h5"
    train_cam(TrainCamOptions(dataset="voc", root=synthetic_root, out=cam, holdout=0, **SMALL))
    given = ["--split", "train", "--device", "cpu", "--workers", "0", "--precision", "float32", "--json"]
    for name, words in {"free": [], "held": ["--tags", "boxes", "--boxes", str(boxes)]}.items():
        assert main(["make-cams", str(cam), *words, *given, "--out", str(tmp_path / f"{name}.h5")]) == 0
    header = read_header(tmp_path / "held.h5")
    assert (header.protocol["tag_filter"], header.protocol["held_to"]) == ("image tags", "boxes of 7 images")
    assert header.oracle == ("boxes simulated from pixel masks",)
    assert read_header(tmp_path / "free.h5").oracle == ()
    dataset = load_dataset(header.dataset)
    for item, held, free in zip(
        dataset.records, read_maps(tmp_path / "held.h5"), read_maps(tmp_path / "free.h5"), strict=True
    ):
        assert held.keys() == free.keys() == set(item.tags or ())
        size = Image.open(item.image).size[::-1]
        for label, array in held.items():
            where = allowed(item, size, array.shape).get(label, np.ones(array.shape, bool))
            assert not array[~where].any()
            inside = free[label].astype(np.float32) * where
            np.testing.assert_allclose(array, inside / (inside.max() or 1), atol=2e-3)
    # What a CRF makes of them ends where the boxes end, to the pixel.
    assert main(["search-threshold", str(tmp_path / "held.h5"), "--method", "fixed", "--value", "0.2", "--out",
                 str(tmp_path / "threshold.h5"), "--quiet"]) == 0  # fmt: skip
    refine_crf(
        RefineCrfOptions(
            cams=tmp_path / "held.h5", threshold=tmp_path / "threshold.h5", out=tmp_path / "soft.h5", workers=1
        )
    )
    assert main(["export-masks", str(tmp_path / "soft.h5"), "--out", str(tmp_path / "masks"), "--workers", "0"]) == 0
    assert outside(dataset, tmp_path / "masks") == 0
    capsys.readouterr()
    assert main(["evaluate-masks", str(tmp_path / "masks"), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["protocol"]["held_to"] == "boxes of 7 images"
    assert scores["unfiltered"] is None


def test_a_pipeline_makes_maps_again_when_a_box_or_the_folder_has_changed(
    checkpoint: Path, boxes: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "boxes"
    copy.mkdir()
    for path in boxes.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    options = PredictMasksOptions(checkpoint=checkpoint, out=tmp_path / "out", tags="boxes", boxes=copy, **QUICK)
    predict_masks(options)
    assert Freshness().reason_to_run(Step("p", "predict-masks", options, ())) is None
    named = options.model_copy(update={"boxes": boxes})  # the same boxes in another place
    assert Freshness().reason_to_run(Step("p", "predict-masks", named, ())) is None
    unnamed = options.model_copy(update={"boxes": None})  # the checkpoint's own, whatever these are
    assert Freshness().reason_to_run(Step("p", "predict-masks", unnamed, ())) == f"was made with --boxes {copy}"
    path = next(path for path in sorted(copy.glob("*.xml")))
    path.write_text(path.read_text().replace("<xmin>", "<xmin>1"))
    assert Freshness().reason_to_run(Step("p", "predict-masks", named, ())) is None
    assert Freshness().reason_to_run(Step("p", "predict-masks", options, ())) is not None


def test_a_pipeline_trains_again_when_other_labels_are_named(checkpoint: Path, boxes: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for path in sorted(boxes.glob("*.xml"))[1:]:
        (other / path.name).write_bytes(path.read_bytes())
    options = build_options("train-scribble", read_header(checkpoint).options)
    assert Freshness().reason_to_run(Step("n", "train-scribble", options, ())) is None
    moved = options.model_copy(update={"boxes": other})
    assert Freshness().reason_to_run(Step("n", "train-scribble", moved, ())) == "its data set has changed"


# What cannot be


def test_without_boxes_there_is_nothing_to_hold_to(
    checkpoint: Path, synthetic_root: Path, boxes: Path, tmp_path: Path
) -> None:
    cam = tmp_path / "cam.h5"
    train_cam(TrainCamOptions(dataset="voc", root=synthetic_root, out=cam, holdout=0, **SMALL))
    message = (
        f"--tags boxes: no image of split {{}} of {synthetic_root} has a box; pass --boxes with the folder of VOC "
        "annotations or COCO's JSON that has them, or --tags dataset"
    )
    with pytest.raises(InputError) as error:
        make_cams(MakeCamsOptions(checkpoint=cam, out=tmp_path / "cams.h5", tags="boxes", **QUICK))
    assert str(error.value) == message.format("train")
    given = QUICK | {"split": "val"}
    with pytest.raises(InputError) as error:
        predict_masks(PredictMasksOptions(checkpoint=checkpoint, out=tmp_path / "val", tags="boxes", **given))
    assert str(error.value) == message.format("val")
    assert not (tmp_path / "val").exists() or not any((tmp_path / "val").iterdir())
    for stage, tags in (("make-cams", "predicted"), ("predict-masks", "none")):
        with pytest.raises(InputError) as error:
            build_options(stage, {"checkpoint": cam, "out": tmp_path / "x", "boxes": boxes, "tags": tags})
        assert str(error.value) == f"{stage}: --boxes is for --tags boxes; add that, or leave it out"


def test_a_box_that_its_image_cannot_hold_stops_the_stage(checkpoint: Path, boxes: Path, tmp_path: Path) -> None:
    copy = tmp_path / "boxes"
    copy.mkdir()
    for path in boxes.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    path = next(path for path in sorted(copy.glob("*.xml")))
    start, end = (path.read_text().index(word) for word in ("<xmax>", "</xmax>"))
    path.write_text(path.read_text()[:start] + "<xmax>999" + path.read_text()[end:])
    with pytest.raises(DatasetError) as error:
        predict_masks(
            PredictMasksOptions(checkpoint=checkpoint, out=tmp_path / "out", tags="boxes", boxes=copy, **QUICK)
        )
    assert str(error.value).startswith(f"{path}: object 1: box from ")
    assert str(error.value).endswith("goes beyond the border of its image, which is 64 x 48 pixels")
    assert not (tmp_path / "out/masks.h5").exists()


def test_boxes_that_are_gone_hold_nothing(checkpoint: Path, boxes: Path, tmp_path: Path) -> None:
    copy = tmp_path / "boxes"
    shutil.copytree(boxes, copy)
    given = {"checkpoint": checkpoint, "tags": "boxes", **QUICK}
    predict_masks(PredictMasksOptions(out=tmp_path / "held", boxes=copy, **given))
    shutil.rmtree(copy)
    with pytest.raises(DatasetError, match=r"^--boxes .*/boxes does not exist; pass the folder or file"):
        predict_masks(PredictMasksOptions(out=tmp_path / "again", boxes=copy, **given))
    soft = tmp_path / "held/soft.h5"
    with pytest.raises(InputError) as error:
        refine_crf(RefineCrfOptions(cams=soft, out=tmp_path / "soft.h5", workers=0))
    root = load_dataset({**read_header(soft).dataset, "boxes": None}).root
    assert str(error.value) == (
        f"{soft} is box-constrained, but no image of split train of {root} has any; {copy} is no longer there; "
        "put them back where they were"
    )


def test_labels_that_were_not_held_are_refined_as_before(synthetic_root: Path, boxes: Path, tmp_path: Path) -> None:
    """Boxes that merely lie in the data set bound nothing."""
    dataset = open_dataset(
        TrainScribbleOptions(dataset="voc", root=synthetic_root, boxes=boxes, out=tmp_path / "n.h5", **SMALL)
    )
    truth = blurred_truth(dataset, 8)
    soft = [{0: np.full((1, 1), 100), 1: np.full((1, 1), 150)} for _ in truth]
    path = write_maps(tmp_path / "soft.h5", "soft-labels", dataset, soft)
    refine_crf(RefineCrfOptions(cams=path, out=tmp_path / "refined.h5", workers=1, preset="psa"))
    assert all((found[1] > 127).all() for found in read_maps(tmp_path / "refined.h5"))
