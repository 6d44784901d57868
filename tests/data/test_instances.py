"""COCO annotations that cannot be drawn, and those of another frame: never background in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from pseudolabel.cli.app import main
from pseudolabel.data import Dataset, load_dataset
from pseudolabel.errors import DatasetError
from tests.helpers.weak import checked, text

SQUARE = [[1, 1, 4, 1, 4, 4, 1, 4]]  # pixels 1 to 3
ABSENT = "absent"


def make(root: Path, *annotations: dict[str, Any], **image: Any) -> Path:
    """One photograph of 10 x 8 pixels, and its annotations of class cat (1) or dog (2)."""
    items = [{"id": number, "image_id": 1, "category_id": 1} | item for number, item in enumerate(annotations, 1)]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    images = [{"id": 1, "file_name": "a.png", "width": 10, "height": 8} | image]
    text(root / "annotations/instances_all.json", {"images": images, "categories": categories, "annotations": items})
    Image.new("RGB", (10, 8)).save(root / "a.png")
    return root


def load(root: Path, **changes: Any) -> Dataset:
    return load_dataset({"dataset": "coco", "root": root, "split": "all"} | changes)


def truth(root: Path) -> np.ndarray:
    dataset = load(root)
    return dataset.read_mask(dataset.records[0])


def check(root: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str], list[str]]:
    return checked(capsys, root, "--dataset", "coco", "--split", "all")


UNDRAWABLE: list[Any] = [
    ABSENT,
    None,
    [],
    [[]],
    {},
    [[2, 2, 5, 5]],
    [[3, 3, 3, 3, 3, 3]],
    [[2, 3, 5, 3, 6, 3]],
    [[0.1, 0.2, 0.4, 0.2, 0.4, 0.6]],
    {"size": [8, 10], "counts": [80]},
]


@pytest.mark.parametrize("segmentation", UNDRAWABLE, ids=repr)
def test_an_object_without_a_shape_keeps_its_tag_and_its_box_is_ignored(
    tmp_path: Path, segmentation: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {} if segmentation is ABSENT else {"segmentation": segmentation}
    root = make(
        tmp_path,
        {"category_id": 2, "bbox": [2.5, 2, 4, 3], **given},
        {"segmentation": SQUARE, "bbox": [1, 1, 3, 3]},
    )
    wanted = np.zeros((8, 10), np.uint8)
    wanted[1:4, 1:4] = 1
    wanted[2:5, 2:7] = 255
    np.testing.assert_array_equal(truth(root), wanted)
    dataset = load(root, boxes=root / "annotations/instances_all.json")
    assert dataset.records[0].tags == (1, 2)
    assert [box[:5] for box in dataset.records[0].boxes] == [(2, 2.5, 2, 6.5, 5), (1, 1, 1, 4, 4)]
    assert check(root, capsys) == (
        0,
        [],
        [
            "warning: annotations without a shape that can be drawn: 1 (first: annotations/instances_all.json: "
            "annotation 1 of image 1); their tags and boxes are used, and in the ground truth their boxes are 255, "
            "which no score counts",
            "warning: classes that are tags of images with masks, but in none of these masks: dog (tag of 1)",
        ],
    )


BOXES = [ABSENT, None, [], [1, 1, 0, 2], [1, 1, 2], ["1", 1, 2, 2], [20, 20, 3, 3], [0.1, 0.2, 0.3, 0.4]]


@pytest.mark.parametrize("bbox", BOXES, ids=repr)
def test_without_shape_and_box_there_is_no_ground_truth(
    tmp_path: Path, bbox: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make(tmp_path, {"segmentation": [], **({} if bbox is ABSENT else {"bbox": bbox})})
    with pytest.raises(DatasetError) as caught:
        truth(root)
    message = (
        "annotations/instances_all.json: annotation 1 of image 1 has neither a shape that can be drawn nor a box, so "
        "that its image has no ground truth; give it a polygon or a bbox, or leave the image out"
    )
    assert str(caught.value).replace(f"{root}/", "") == message
    assert load(root).records[0].tags == (1,)
    code, problems, (warning,) = check(root, capsys)
    assert (code, problems) == (0, [])
    assert warning.endswith("; without a box either: 1, and of their images there is no ground truth")
    Image.new("P", (10, 8)).save(tmp_path / "a_mask.png")
    masks = tmp_path / "masks"
    masks.mkdir()
    (tmp_path / "a_mask.png").rename(masks / "a.png")
    words = ["evaluate-masks", str(masks), "--dataset", "coco", "--root", str(root), "--split", "all"]
    assert main([*words, "--out", str(tmp_path / "scores.h5"), "--workers", "0"]) == 2
    assert message in capsys.readouterr().err.replace(f"{root}/", "")


def test_a_crowd_without_a_shape_is_ignored_too(tmp_path: Path) -> None:
    found = truth(make(tmp_path, {"segmentation": [], "iscrowd": 1, "bbox": [0, 0, 10, 2]}))
    assert (found[:2] == 255).all()
    assert not found[2:].any()


def test_one_drawable_polygon_is_a_shape(tmp_path: Path) -> None:
    found = truth(make(tmp_path, {"segmentation": [[1, 1, 2, 2], *SQUARE, []], "bbox": [0, 0, 10, 8]}))
    assert (found == 1).sum() == 9
    assert (found == 0).sum() == 71


@pytest.mark.parametrize("sides", [{"width": 0, "height": 0}, {"width": None, "height": None}, {"height": 0}])
def test_a_size_that_is_not_stated_is_the_photographs(tmp_path: Path, sides: dict[str, Any]) -> None:
    assert (truth(make(tmp_path, {"segmentation": SQUARE}, **sides)) == 1).sum() == 9


def test_annotations_of_another_frame_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make(tmp_path, {"segmentation": SQUARE}, width=20, height=16)
    message = "the ground truth of a.png is for 20 x 16 pixels, its image has 10 x 8; use the photographs that were "
    with pytest.raises(DatasetError, match=r"is for 20 x 16 pixels, its image has 10 x 8;"):
        truth(root)
    assert check(root, capsys) == (2, [message + "annotated"], [])


def test_annotations_of_a_photograph_that_is_turned_are_refused(tmp_path: Path) -> None:
    root = make(tmp_path, {"segmentation": SQUARE})
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (10, 8)).save(root / "a.png", exif=exif)
    with pytest.raises(DatasetError) as caught:
        truth(root)
    assert str(caught.value) == (
        f"the ground truth of {root}/a.png is for 10 x 8 pixels, its image has 8 x 10 after its EXIF orientation has "
        "turned it upright; use the photographs that were annotated"
    )
