"""COCO: integer ids, run lengths and polygons that pycocotools and torchvision read, and every pixel back again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from pseudolabel.data import Dataset, image_size
from pseudolabel.errors import DatasetError
from pseudolabel.interop.outgoing import object_regions
from pseudolabel.interop.outlines import pixel_outlines
from tests.helpers.artefacts import synthetic
from tests.helpers.interop import assert_same, exported, hard_masks, imported, labels_of, round_trip


@pytest.fixture(scope="module")
def dataset(synthetic_root: Path) -> Dataset:
    return synthetic(synthetic_root)


@pytest.mark.parametrize("name", ["coco", "coco-polygons"])
@pytest.mark.parametrize("instances", [False, True])
def test_pycocotools_finds_every_pixel(name: str, instances: bool, dataset: Dataset, tmp_path: Path) -> None:
    masks = hard_masks(dataset)
    out = exported(tmp_path, dataset, masks, as_=name, instances=instances)
    coco = COCO(out / "coco.json")
    assert coco.getImgIds() == [1, 2, 3]
    for number, mask in enumerate(masks, 1):
        drawn = np.zeros_like(mask)
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=[number]))
        for annotation in annotations:
            inside = coco.annToMask(annotation).astype(bool)
            assert (annotation["area"], annotation["iscrowd"]) == (inside.sum(), 0)
            assert not drawn[inside].any()
            drawn[inside] = annotation["category_id"]
        np.testing.assert_array_equal(drawn, np.where(mask == 255, 0, mask))
        assert len(annotations) == len(object_regions(mask, instances=instances))
    rows = json.loads((out / "coco.json").read_text())["annotations"]
    assert [row["id"] for row in rows] == list(range(1, len(rows) + 1))
    assert all(isinstance(row["segmentation"], list if name == "coco-polygons" else dict) for row in rows)


def test_torchvision_reads_it(dataset: Dataset, tmp_path: Path) -> None:
    detection = pytest.importorskip("torchvision.datasets", reason="torchvision is not installed")
    out = exported(tmp_path, dataset, hard_masks(dataset), as_="coco")
    found = detection.CocoDetection(dataset.records[0].image.parent, out / "coco.json")
    image, annotations = found[0]
    assert (len(found), image.size[::-1]) == (3, image_size(dataset.records[0].image))
    assert [annotation["category_id"] for annotation in annotations] == [1, 2, 3]
    assert found[2][1] == []


@pytest.mark.parametrize("name", ["coco", "coco-polygons"])
@pytest.mark.parametrize("instances", [False, True])
def test_what_nobody_touched_comes_back_as_it_was(name: str, instances: bool, dataset: Dataset, tmp_path: Path) -> None:
    round_trip(tmp_path, dataset, name, "coco.json", "coco", instances=instances)


def test_objects_by_hand() -> None:
    labels = np.array([[2, 1, 0], [0, 255, 1], [1, 0, 1]], dtype=np.uint8)
    by_class = [(label, inside.astype(int).tolist()) for label, inside in object_regions(labels, instances=False)]
    assert by_class == [(1, [[0, 1, 0], [0, 0, 1], [1, 0, 1]]), (2, [[1, 0, 0], [0, 0, 0], [0, 0, 0]])]
    apart = [(label, inside.astype(int).tolist()) for label, inside in object_regions(labels, instances=True)]
    assert apart == [
        (1, [[0, 1, 0], [0, 0, 1], [0, 0, 1]]),
        (1, [[0, 0, 0], [0, 0, 0], [1, 0, 0]]),
        (2, [[1, 0, 0], [0, 0, 0], [0, 0, 0]]),
    ]


def test_outlines_by_hand() -> None:
    ring = np.ones((3, 3), dtype=bool)
    ring[1, 1] = False
    (outline,) = pixel_outlines(ring)
    assert outline.tolist() == [
        [0, 0], [3, 0], [3, 3], [0, 3],  # around
        [1, 1], [1, 2], [2, 2], [2, 1], [1, 1], [0, 3],  # to the hole, around it, and back
    ]  # fmt: skip
    corner = pixel_outlines(np.array([[True, False], [False, True]]))
    assert [item.tolist() for item in corner] == [
        [[0, 0], [1, 0], [1, 1], [0, 1]],
        [[1, 1], [2, 1], [2, 2], [1, 2]],
    ]


@given(arrays.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
@settings(max_examples=100, deadline=None)
def test_outlines_hold_exactly_the_pixels(inside: np.ndarray) -> None:
    drawn = np.zeros_like(inside)
    for outline in pixel_outlines(inside):
        ring = outline.ravel().astype(float)
        drawn |= coco_mask.decode(coco_mask.frPyObjects([ring], *inside.shape))[:, :, 0].astype(bool)
    np.testing.assert_array_equal(drawn, inside)


def edited(out: Path, **changes: Any) -> Path:
    """The exported file with other sections, beside it."""
    content = json.loads((out / "coco.json").read_text())
    path = out.parent / "corrected.json"
    path.write_text(json.dumps(content | changes))
    return path


def test_a_correction_is_counted_and_small_objects_lie_on_large_ones(dataset: Dataset, tmp_path: Path) -> None:
    masks = hard_masks(dataset)
    out = exported(tmp_path, dataset, masks, as_="coco")
    images = json.loads((out / "coco.json").read_text())["images"][:1]
    rows = [
        {"id": 1, "image_id": 1, "category_id": 2, "segmentation": [[10, 10, 13, 10, 13, 12, 10, 12]]},
        {"id": 2, "image_id": 1, "category_id": 1, "segmentation": [[5, 5, 25, 5, 25, 15, 5, 15]]},
    ]
    path = edited(out, images=images, annotations=rows)
    wanted = np.where(masks[0] == 255, 255, 0).astype(np.uint8)
    wanted[5:15, 5:25] = 1
    wanted[10:12, 10:13] = 2
    result = imported(path, out, tmp_path / "back.h5", "coco")
    assert_same(labels_of(tmp_path / "back.h5"), [wanted, *masks[1:]])
    different = int((wanted != masks[0]).sum())
    assert result == {
        "out": str(tmp_path / "back.h5"),
        "images": 3,
        "corrected": 1,
        "changed": 1,
        "changed_pixels": different / sum(mask.size for mask in masks),
        "skipped": 0,
    }
    imported(path, out, tmp_path / "full.h5", "coco", unlabelled="background")
    assert_same(labels_of(tmp_path / "full.h5"), [np.where(wanted == 255, 0, wanted), *masks[1:]])


def test_what_a_file_cannot_be(dataset: Dataset, tmp_path: Path) -> None:
    out = exported(tmp_path, dataset, hard_masks(dataset), as_="coco")
    first = dataset.records[0].id
    tall, wide = image_size(dataset.records[0].image)
    row = {"id": 7, "image_id": 1, "category_id": 1}
    other = [{"id": 1, "file_name": "elsewhere.jpg", "height": tall, "width": wide}]
    small = [{"id": 1, "file_name": f"{first}.png", "height": 32, "width": 40}]
    zebra = [{"id": 1, "name": "zebra"}]
    runs = {"size": [32, 64], "counts": "0"}
    path, masks = tmp_path / "corrected.json", out / "masks.h5"
    square = [[1, 1, 3, 1, 3, 3]]
    for changes, said in (
        (
            {"images": other, "annotations": []},
            f"{path}: image 'elsewhere.jpg' is none of the 3 images of {masks}; pass the masks that were corrected as "
            "--masks",
        ),
        (
            {"images": small, "annotations": []},
            f"{path}: image {first!r} is 40 x 32 pixels there and {wide} x {tall} in {masks}; correct the masks at the "
            "size of the photographs",
        ),
        (
            {"categories": zebra, "annotations": [row | {"segmentation": square}]},
            f"{path}: label 'zebra' is no class of {masks} ({', '.join(dataset.classes[1:])}); rename it, or remove "
            "its objects",
        ),
        (
            {"annotations": [row | {"bbox": [1, 1, 2, 2]}]},
            f"{path}: annotation 7 has no shape that can be drawn, such as a box alone; draw it, or remove it",
        ),
        (
            {"annotations": [row | {"segmentation": runs}]},
            f"{path}: annotation 7: run lengths of size [32, 64]; wanted [{tall}, {wide}]",
        ),
        ({"annotations": [row | {"image_id": 9}]}, f"{path}: annotation 7 has image_id 9, which no image has"),
        (
            {"images": [], "annotations": []},
            f"{path} holds no corrected image; export the annotations from the other tool first",
        ),
    ):
        edited(out, **changes)
        with pytest.raises(DatasetError) as caught:
            imported(path, out, tmp_path / "back.h5", "coco")
        assert str(caught.value) == said
        assert sorted(item.name for item in tmp_path.iterdir()) == ["corrected.json", "in.h5", "out"]
