"""LabelMe's JSON: supervision reads it, and every pixel comes back; people's polygons, rectangles and masks too."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pseudolabel.data import Dataset
from pseudolabel.errors import DatasetError
from tests.helpers.artefacts import synthetic
from tests.helpers.interop import assert_same, exported, hard_masks, imported, labels_of, round_trip


@pytest.fixture(scope="module")
def dataset(synthetic_root: Path) -> Dataset:
    return synthetic(synthetic_root)


def test_supervision_finds_every_pixel(dataset: Dataset, tmp_path: Path) -> None:
    sv = pytest.importorskip("supervision", reason="supervision is not installed")
    masks = hard_masks(dataset)
    folder = exported(tmp_path, dataset, masks, as_="labelme", instances=True) / "labelme"
    found = sv.DetectionDataset.from_labelme(str(folder), str(folder))
    by_name = {Path(path).stem: detections for path, _, detections in found}
    for record, mask in zip(dataset.records, masks, strict=False):
        drawn, detections = np.zeros_like(mask), by_name[record.id]
        for number in range(len(detections)):
            drawn[detections.mask[number]] = dataset.classes.index(found.classes[detections.class_id[number]])
        np.testing.assert_array_equal(drawn, np.where(mask == 255, 0, mask))


@pytest.mark.parametrize("instances", [False, True])
def test_what_nobody_touched_comes_back_as_it_was(instances: bool, dataset: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("supervision", reason="supervision is not installed")
    round_trip(tmp_path, dataset, "labelme", "labelme", instances=instances)
    shapes = json.loads((tmp_path / "out" / "labelme" / f"{dataset.records[0].id}.json").read_text())["shapes"]
    groups = {None} if instances else {1, 2, 3}
    assert {shape["group_id"] for shape in shapes} == groups
    assert (tmp_path / "out" / "labelme" / dataset.records[0].image.name).is_file()


def corrected(folder: Path, record: Any, size: tuple[int, int], *shapes: dict[str, Any], **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    content = {"shapes": list(shapes), "imageHeight": size[0], "imageWidth": size[1]} | changes
    (folder / f"{record.id}.json").write_text(json.dumps(content))
    return folder


def test_polygons_rectangles_and_masks_are_drawn(dataset: Dataset, tmp_path: Path) -> None:
    masks = hard_masks(dataset)
    out = exported(tmp_path, dataset, masks)
    names = dataset.classes
    buffer = io.BytesIO()
    Image.fromarray(np.array([[0, 255, 0], [255, 255, 255]], dtype=np.uint8)).save(buffer, format="PNG")
    packed = base64.b64encode(buffer.getvalue()).decode()
    folder = corrected(
        tmp_path / "labelme",
        dataset.records[0],
        masks[0].shape,
        {"label": names[1], "shape_type": "polygon", "points": [[2, 3], [6, 3], [6, 7], [2, 7]]},
        {"label": names[2], "shape_type": "rectangle", "points": [[12, 20], [10, 18]]},
        {"label": names[3], "shape_type": "mask", "points": [[3, 4], [5, 5]], "mask": packed},
    )
    imported(folder, out, tmp_path / "back.h5", "labelme", unlabelled="background")
    wanted = np.zeros_like(masks[0])
    wanted[3:8, 2:7], wanted[18:21, 10:13] = 1, 2
    wanted[4, 4], wanted[5, 3:6] = 3, 3
    assert_same(labels_of(tmp_path / "back.h5"), [wanted, *masks[1:]])


def test_what_a_file_cannot_be(dataset: Dataset, tmp_path: Path) -> None:
    masks = hard_masks(dataset)
    out, record = exported(tmp_path, dataset, masks), dataset.records[0]
    (tall, wide), folder = masks[0].shape, tmp_path / "labelme"
    file, label = folder / f"{record.id}.json", dataset.classes[1]
    for shapes, changes, said in (
        ([], {"shapes": None}, f"{file} lacks a list of shapes; wanted LabelMe's object with shapes"),
        (
            [],
            {"imageHeight": 9},
            f"{file}: image {record.id!r} is {wide} x 9 pixels there and {wide} x {tall} in {out / 'masks.h5'}; "
            "correct the masks at the size of the photographs",
        ),
        (
            [{"label": label, "shape_type": "point", "points": [[1, 1]]}],
            {},
            f"{file}: shape 1 is a point, which has no pixels; draw a polygon, a rectangle or a mask",
        ),
        (
            [{"label": label, "shape_type": "polygon", "points": [[1, 1], [2, 2]]}],
            {},
            f"{file}: shape 1 has no list of points; draw it anew",
        ),
        (
            [{"label": label, "shape_type": "mask", "points": [[1, 1], [2, 2]], "mask": "?"}],
            {},
            f"{file}: shape 1 has a mask that cannot be read as a PNG; draw it anew",
        ),
    ):
        corrected(folder, record, masks[0].shape, *shapes, **changes)
        with pytest.raises(DatasetError) as caught:
            imported(folder, out, tmp_path / "back.h5", "labelme")
        assert str(caught.value) == said
        assert not (tmp_path / "back.h5").exists()
