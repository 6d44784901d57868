"""YOLO's polygons: supervision finds every pixel, whether it rounds or cuts off, and every pixel back again."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from pseudolabel.data import Dataset
from pseudolabel.errors import DatasetError, MissingExtraError
from tests.helpers.artefacts import synthetic
from tests.helpers.interop import assert_same, exported, hard_masks, imported, labels_of, round_trip


@pytest.fixture(scope="module")
def dataset(synthetic_root: Path) -> Dataset:
    return synthetic(synthetic_root)


def test_supervision_finds_every_pixel(dataset: Dataset, tmp_path: Path) -> None:
    sv = pytest.importorskip("supervision", reason="supervision is not installed")
    masks = hard_masks(dataset)
    folder = exported(tmp_path, dataset, masks, as_="yolo") / "yolo"
    assert yaml.safe_load((folder / "data.yaml").read_text()) == {
        "path": ".",
        "train": "images/train",
        "val": "images/train",
        "names": dict(enumerate(dataset.classes[1:])),
    }
    found = sv.DetectionDataset.from_yolo(
        str(folder / "images" / "train"), str(folder / "labels" / "train"), str(folder / "data.yaml"), force_masks=True
    )
    by_name = {Path(path).stem: detections for path, _, detections in found}
    for record, mask in zip(dataset.records, masks, strict=False):
        drawn = np.zeros_like(mask)
        detections = by_name[record.id]
        for number in range(len(detections)):
            drawn[detections.mask[number]] = detections.class_id[number] + 1
        np.testing.assert_array_equal(drawn, np.where(mask == 255, 0, mask))


def test_readers_that_cut_off_find_the_same_corners(dataset: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("supervision", reason="supervision is not installed")
    masks = hard_masks(dataset, 2)
    folder = exported(tmp_path, dataset, masks, as_="yolo") / "yolo"
    tall, wide = masks[0].shape
    for line in (folder / "labels" / "train" / f"{dataset.records[0].id}.txt").read_text().splitlines():
        shares = np.array(line.split()[1:], dtype=np.float32).reshape(-1, 2)
        pixels = shares * np.array([wide, tall], dtype=np.float32)
        np.testing.assert_array_equal(np.floor(pixels), np.round(pixels))


def test_what_nobody_touched_comes_back_as_it_was(dataset: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("supervision", reason="supervision is not installed")
    round_trip(tmp_path, dataset, "yolo", "yolo")


def labelled(folder: Path, lines: str, name: str, names: object = ("car", "dog")) -> Path:
    (folder / "labels").mkdir(parents=True, exist_ok=True)
    (folder / "data.yaml").write_text(yaml.safe_dump({"names": list(names) if isinstance(names, tuple) else names}))
    (folder / "labels" / f"{name}.txt").write_text(lines)
    return folder


def test_an_empty_file_is_an_image_without_objects(dataset: Dataset, tmp_path: Path) -> None:
    masks = hard_masks(dataset)
    out = exported(tmp_path, dataset, masks)
    folder = labelled(tmp_path / "yolo", "", dataset.records[0].id)
    result = imported(folder, out, tmp_path / "back.h5", "yolo", unlabelled="background")
    assert_same(labels_of(tmp_path / "back.h5"), [np.zeros_like(masks[0]), *masks[1:]])
    assert (result["corrected"], result["changed"]) == (1, 1)


def test_what_a_file_cannot_be(dataset: Dataset, tmp_path: Path) -> None:
    out = exported(tmp_path, dataset, hard_masks(dataset))
    folder, name = tmp_path / "yolo", dataset.records[0].id
    file = folder / "labels" / f"{name}.txt"
    box = "is a box, of which no mask can be made; export polygons, or remove it"
    no_polygon = "is no polygon; wanted a class number and x y x y ... in shares of the sides"
    for lines, names, said in (
        (
            "0 .5 .5 .2 .2",
            None,
            f"{file}: line 1 {box}",
        ),
        ("\n0 .5 .5 .2", None, f"{file}: line 2 {no_polygon}"),
        ("0 .5 .5 .2 nan .1 .1", None, f"{file}: line 1 {no_polygon}"),
        ("9 .1 .1 .2 .2 .1 .2", None, f"{file}: line 1 has class 9, which data.yaml does not name; name it there"),
        (
            "0 .1 .1 .2 .2 .1 .2",
            ["zebra"],
            f"{file}: label 'zebra' is no class of {out / 'masks.h5'} ({', '.join(dataset.classes[1:])}); rename it, "
            "or remove its objects",
        ),
        (
            "",
            "zebra",
            f"{folder / 'data.yaml'} has no list of names; wanted names: [NAME, ...] or a name for each number",
        ),
    ):
        labelled(folder, lines, name, names or dataset.classes[1:])
        with pytest.raises(DatasetError) as caught:
            imported(folder, out, tmp_path / "back.h5", "yolo")
        assert str(caught.value) == said
    (folder / "data.yaml").unlink()
    with pytest.raises(DatasetError) as caught:
        imported(folder, out, tmp_path / "back.h5", "yolo")
    assert str(caught.value) == f"{folder} holds no data.yaml; pass the folder that holds it and the labels"
    assert not (tmp_path / "back.h5").exists()


@pytest.mark.parametrize("name", ["yolo", "labelme"])
def test_without_the_package_the_extra_is_named(
    name: str, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "supervision.dataset.utils", None)
    with pytest.raises(MissingExtraError) as caught:
        exported(tmp_path, dataset, hard_masks(dataset), as_=name)
    assert str(caught.value) == (
        f'--as {name} needs the package supervision, which is not installed; run: pip install "pseudolabel[interop]"'
    )
    assert not (tmp_path / "out").exists()
