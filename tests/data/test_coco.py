"""The COCO layout: categories without gaps, tags, ground truth drawn from polygons and run lengths, and bad JSON."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pseudolabel.data import Dataset, load_dataset
from pseudolabel.data.layouts.coco import category_ids, image_ids
from pseudolabel.errors import DatasetError, InputError

SQUARE = [0, 0, 4, 0, 4, 4, 0, 4]  # covers pixels 0-3 in x and y
CORNER = [1, 1, 3, 1, 3, 3, 1, 3]  # 1-2
CONTENT: dict[str, Any] = {
    "images": [
        {"id": 42, "file_name": "COCO_train2014_000000000042.jpg", "height": 5, "width": 6},
        {"id": 7, "file_name": "b.jpg", "height": 2, "width": 3},
        {"id": 8, "file_name": "c.jpg", "height": 2, "width": 3},
    ],
    "categories": [{"id": 90, "name": "toothbrush"}, {"id": 3, "name": "car"}, {"id": 18, "name": "dog"}],
    "annotations": [
        {"id": 1, "image_id": 42, "category_id": 18, "segmentation": [CORNER], "iscrowd": 0},
        {"id": 2, "image_id": 42, "category_id": 90, "segmentation": [SQUARE]},
        {
            "id": 3,
            "image_id": 42,
            "category_id": 3,
            "segmentation": {"size": [5, 6], "counts": [15, 15]},  # column by column: the right half
            "iscrowd": 1,
        },
        {"id": 4, "image_id": 7, "category_id": 3, "segmentation": {"size": [2, 3], "counts": [1, 2, 3]}},
    ],
}
DRAWN = np.array(
    [
        [3, 3, 3, 3, 255, 255],
        [3, 2, 2, 3, 255, 255],
        [3, 2, 2, 3, 255, 255],
        [3, 3, 3, 3, 255, 255],
        [0, 0, 0, 255, 255, 255],
    ],
    dtype=np.uint8,
)


@pytest.fixture
def content() -> dict[str, Any]:
    return copy.deepcopy(CONTENT)


def make(root: Path, content: object, name: str = "train2014", folder: str = "train2014") -> Path:
    (root / "annotations").mkdir(exist_ok=True)
    path = root / f"annotations/instances_{name}.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    (root / folder).mkdir(parents=True, exist_ok=True)
    for image in CONTENT["images"]:
        Image.new("RGB", (image["width"], image["height"])).save(root / folder / image["file_name"])
    return path


def load(root: Path, **changes: object) -> Dataset:
    return load_dataset({"dataset": "coco", "root": root, "split": "train"} | changes)


def refusal(root: Path, **changes: object) -> str:
    with pytest.raises(InputError) as caught:
        load(root, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{root}/", "").replace(str(root), "ROOT")


def test_categories_are_numbered_without_gaps_in_the_order_of_their_ids(tmp_path: Path) -> None:
    make(tmp_path, CONTENT)
    dataset = load(tmp_path)
    assert dataset.classes == ("background", "car", "dog", "toothbrush")
    assert category_ids(dataset) == (3, 18, 90)
    assert image_ids(dataset) == {"COCO_train2014_000000000042": 42, "b": 7, "c": 8}
    assert [(record.id, record.tags) for record in dataset.records] == [
        ("COCO_train2014_000000000042", (1, 2, 3)),
        ("b", (1,)),
        ("c", ()),
    ]
    assert (dataset.split, dataset.tag_source, dataset.oracle) == ("train2014", "instances", ())


@pytest.mark.parametrize("name", ["background", "_background_", "Background"])
def test_a_category_called_background_is_the_background(tmp_path: Path, content: dict[str, Any], name: str) -> None:
    make(tmp_path, CONTENT)
    plain = load(tmp_path)
    content["categories"].append({"id": 5, "name": name})
    make(tmp_path, content)
    dataset = load(tmp_path)
    assert (dataset.classes, category_ids(dataset), dataset.records) == (plain.classes, (3, 18, 90), plain.records)
    np.testing.assert_array_equal(dataset.read_mask(dataset.records[0]), DRAWN)
    content["annotations"].append({"id": 5, "image_id": 8, "category_id": 5, "segmentation": [SQUARE]})
    make(tmp_path, content)
    assert load(tmp_path).records[2].tags == ()
    assert not load(tmp_path).read_mask(dataset.records[2]).any()


def test_small_instances_lie_on_large_ones_and_all_on_crowds(tmp_path: Path) -> None:
    make(tmp_path, CONTENT)
    dataset = load(tmp_path)
    np.testing.assert_array_equal(dataset.read_mask(dataset.records[0]), DRAWN)
    np.testing.assert_array_equal(dataset.read_mask(dataset.records[1]), [[0, 1, 0], [1, 0, 0]])
    np.testing.assert_array_equal(dataset.read_mask(dataset.records[2]), np.zeros((2, 3)))


def test_ground_truth_is_the_union_of_pycocotools_own_polygons(tmp_path: Path, content: dict[str, Any]) -> None:
    from pycocotools import mask as coco_mask

    rng = np.random.default_rng(0)
    rings = [rng.uniform(0, 40, 12).round(2).tolist() for _ in range(3)]
    content["images"][0] |= {"height": 40, "width": 50}
    content["annotations"] = [{"image_id": 42, "category_id": 18, "segmentation": rings}]
    make(tmp_path, content)
    Image.new("RGB", (50, 40)).save(tmp_path / "train2014" / content["images"][0]["file_name"])
    dataset = load(tmp_path)
    wanted = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(rings, 40, 50)))
    np.testing.assert_array_equal(dataset.read_mask(dataset.records[0]), 2 * wanted)


def test_compressed_run_lengths(tmp_path: Path, content: dict[str, Any]) -> None:
    from pycocotools import mask as coco_mask

    wanted = np.asfortranarray(np.eye(5, 6, dtype=np.uint8))
    run = coco_mask.encode(wanted)
    content["annotations"] = [
        {"image_id": 42, "category_id": 3, "segmentation": {"size": [5, 6], "counts": run["counts"].decode()}}
    ]
    make(tmp_path, content)
    dataset = load(tmp_path)
    np.testing.assert_array_equal(dataset.read_mask(dataset.records[0]), wanted)


def test_tags_from_masks_leave_crowds_out(tmp_path: Path) -> None:
    make(tmp_path, CONTENT)
    dataset = load(tmp_path, tag_source="masks")
    assert [record.tags for record in dataset.records] == [(2, 3), (1,), ()]
    assert dataset.oracle == ("image tags read from pixel masks",)


def test_tags_from_a_table(tmp_path: Path) -> None:
    make(tmp_path, CONTENT)
    (tmp_path / "tags.csv").write_text("b,dog\n")
    assert [record.tags for record in load(tmp_path, tag_source="csv").records] == [None, (2,), None]
    (tmp_path / "tags.csv").write_text("b,doge\n")
    assert refusal(tmp_path, tag_source="csv") == "tags.csv, line 1: unknown class 'doge' (did you mean 'dog'?)"


@pytest.mark.parametrize("folder", ["images", "images/train2014", "train2014", "train", "images/train", "."])
def test_places_of_images(tmp_path: Path, folder: str) -> None:
    make(tmp_path, CONTENT, folder=folder)
    assert {record.image.parent for record in load(tmp_path).records} == {tmp_path / folder}


def test_splits(tmp_path: Path, content: dict[str, Any]) -> None:
    for image in content["images"]:
        image["file_name"] = "v" + image["file_name"]
        Image.new("RGB", (image["width"], image["height"])).save(tmp_path / image["file_name"])
    make(tmp_path, CONTENT)
    make(tmp_path, content, "val2014")
    assert load(tmp_path, split="val").records[1].id == "vb"
    assert load(tmp_path, split="val2014").split == "val2014"
    wanted = "--split 2014 could be any of train2014, val2014 in annotations; name one of them"
    assert refusal(tmp_path, split="2014") == wanted
    assert refusal(tmp_path, split="test") == (
        "--split test: no such list in ROOT, and no file of that name; known here: train2014, val2014"
    )
    (tmp_path / "few.txt").write_text("vb\nc\n")
    few = load(tmp_path, split="few")
    assert [(record.id, record.tags) for record in few.records] == [("vb", (1,)), ("c", ())]
    np.testing.assert_array_equal(few.read_mask(few.records[0]), [[0, 1, 0], [1, 0, 0]])
    assert (few.split, image_ids(few)) == ("few", {"vb": 7, "c": 8})
    (tmp_path / "few.txt").write_text("vb\nx\n")
    assert refusal(tmp_path, split="few") == (
        "id 'x' is in none of instances_train2014.json, instances_val2014.json in annotations"
    )
    content["categories"][0]["name"] = "brush"
    make(tmp_path, content, "val2014")
    assert refusal(tmp_path, split="few") == (
        "annotations/instances_val2014.json has other categories than annotations/instances_train2014.json; "
        "use one of them alone as --split"
    )


JSON = "annotations/instances_train2014.json"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("{", " is not JSON (line 1: Expecting property name enclosed in double quotes); replace it"),
        ("[1]", " holds a JSON list; wanted COCO's object of images and annotations"),
        ('{"a": NaN}', " cannot be read as JSON (NaN is no number of JSON)"),
        ("{}", " lacks the key 'categories'; wanted COCO's images, annotations and categories"),
    ],
)
def test_bad_json(tmp_path: Path, text: str, wanted: str) -> None:
    make(tmp_path, text)
    assert refusal(tmp_path) == JSON + wanted


@pytest.mark.parametrize("section", ["images", "annotations", "categories"])
def test_missing_sections(tmp_path: Path, content: dict[str, Any], section: str) -> None:
    del content[section]
    make(tmp_path, content)
    wanted = f"{JSON} lacks the key {section!r}; wanted COCO's images, annotations and categories"
    assert refusal(tmp_path) == wanted


@pytest.mark.parametrize(
    ("section", "key"),
    [
        *[("images", key) for key in ("id", "file_name")],
        *[("annotations", key) for key in ("image_id", "category_id")],
        *[("categories", key) for key in ("id", "name")],
    ],
)
def test_missing_keys_and_wrong_types(tmp_path: Path, content: dict[str, Any], section: str, key: str) -> None:
    whole = content[section][1].pop(key)
    make(tmp_path, content)
    assert refusal(tmp_path) == f"{JSON}: {section}[1] lacks the key {key!r}"
    content[section][1][key] = None
    make(tmp_path, content)
    assert refusal(tmp_path) == f"{JSON}: {section}[1] has {key} None, which is of the wrong type"
    content[section][1] = [whole]
    make(tmp_path, content)
    assert refusal(tmp_path) == f"{JSON}: {section}[1] is no JSON object"


WHERE = f"{JSON}: annotation 1 of image 42: "


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"image_id": 9}, f"{JSON}: an annotation has image_id 9, which no image has"),
        ({"category_id": 4}, f"{JSON}: an annotation of image 42 has category_id 4, which no category has"),
        ({"segmentation": [["a", "b"]]}, WHERE + "its segmentation is no list of polygons [x, y, x, y, ...]"),
        ({"segmentation": [[10**400] * 6]}, WHERE + "its segmentation is no list of polygons [x, y, x, y, ...]"),
        ({"segmentation": {"size": [5, 6], "counts": "\ud800"}}, WHERE + "its run lengths do not fill the image"),
        ({"segmentation": [1, 2, 3]}, WHERE + "its segmentation is no list of polygons [x, y, x, y, ...]"),
        ({"segmentation": [[1, 2, 3]]}, WHERE + "a polygon has a coordinate too many, or one that lies in no image"),
        ({"segmentation": [[1e9] * 6]}, WHERE + "a polygon has a coordinate too many, or one that lies in no image"),
        ({"segmentation": {"counts": [30]}}, WHERE + "run lengths of size None; wanted [5, 6]"),
        ({"segmentation": {"size": [6, 5], "counts": [30]}}, WHERE + "run lengths of size [6, 5]; wanted [5, 6]"),
        ({"segmentation": {"size": [5, 6], "counts": [31]}}, WHERE + "its run lengths do not fill the image"),
        ({"segmentation": {"size": [5, 6], "counts": [40, -10]}}, WHERE + "its run lengths do not fill the image"),
        ({"segmentation": {"size": [5, 6]}}, WHERE + "its run lengths do not fill the image"),
    ],
)
def test_bad_annotations(tmp_path: Path, content: dict[str, Any], change: dict[str, Any], wanted: str) -> None:
    content["annotations"][0] |= change
    make(tmp_path, content)
    assert refusal(tmp_path) == wanted


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"file_name": "../b.jpg"}, "file_name '../b.jpg' could lead out of the data set; wanted a plain name"),
        ({"file_name": "/b.jpg"}, "file_name '/b.jpg' is an absolute path; wanted a name inside the data set"),
        ({"file_name": "b\ud800.jpg"}, "file_name 'b\\ud800.jpg' is no text that can be written as UTF-8"),
        ({"file_name": ""}, "file_name '' could lead out of the data set; wanted a plain name"),
        ({"id": 42}, "image 42 (b.jpg) stands twice; remove one of them"),
        ({"file_name": "c.jpg"}, "image 8 (c.jpg) stands twice; remove one of them"),
        ({"file_name": "x.jpg"}, "image 'x.jpg' is in none of ROOT/train2014, ROOT"),
        ({"height": -1}, "image 7 has height -1; wanted pixels"),
        ({"width": "3"}, "image 7 has width '3'; wanted pixels"),
    ],
)
def test_bad_images(tmp_path: Path, content: dict[str, Any], change: dict[str, Any], wanted: str) -> None:
    content["images"][1] |= change
    content["annotations"] = []
    make(tmp_path, content)
    assert refusal(tmp_path).replace("none of train2014,", "none of ROOT/train2014,") == f"{JSON}: {wanted}"


def test_bad_categories(tmp_path: Path, content: dict[str, Any]) -> None:
    content["categories"][0]["id"] = 3
    make(tmp_path, content)
    assert refusal(tmp_path) == f"{JSON}: two categories have the same id; wanted one id a category"
    content["categories"][0]["name"] = "car"
    make(tmp_path, content)
    assert refusal(tmp_path) == f"{JSON}: class 'car' stands twice; every class needs a name of its own"


def test_broken_compressed_run_lengths_are_found_when_drawn(tmp_path: Path, content: dict[str, Any]) -> None:
    content["annotations"][0]["segmentation"] = {"size": [5, 6], "counts": "0123zzzz"}
    make(tmp_path, content)
    dataset = load(tmp_path)
    with pytest.raises(DatasetError, match=r"0042\.jpg: the run lengths of an annotation are broken \("):
        dataset.read_mask(dataset.records[0])


def test_no_annotations(tmp_path: Path) -> None:
    assert refusal(tmp_path) == "annotations holds no instances_*.json; wanted the COCO layout"


def roboflow(root: Path, **changes: Any) -> Path:
    """Two splits of Roboflow's export, whose category 0 stands above the others; one photograph each."""
    for split in ("train", "valid"):
        name = f"{split}_jpg.rf.0f3c"
        names = {0: "pets", 1: "cat", 2: "dog"}
        content = {
            "images": [{"id": 0, "file_name": f"{name}.jpg", "width": 6, "height": 5}],
            "categories": [
                {"id": number, "name": name, "supercategory": "pets" if number else "none"} | changes
                for number, name in names.items()
            ],
            "annotations": [{"id": 0, "image_id": 0, "category_id": 2, "bbox": [0, 0, 4, 4], "segmentation": [SQUARE]}],
        }
        (root / split).mkdir(parents=True, exist_ok=True)
        (root / split / "_annotations.coco.json").write_text(json.dumps(content))
        Image.new("RGB", (6, 5)).save(root / f"{split}/{name}.jpg")
    return root


def test_roboflows_layout(tmp_path: Path) -> None:
    roboflow(tmp_path)
    dataset = load(tmp_path)
    assert dataset.classes == ("background", "cat", "dog")
    assert category_ids(dataset) == (1, 2)
    assert [(record.id, record.tags) for record in dataset.records] == [("train_jpg.rf.0f3c", (2,))]
    assert (dataset.read_mask(dataset.records[0]) == 2).sum() == 16
    assert load(tmp_path, split="val").split == "valid"
    assert load_dataset(dataset.spec()).records == dataset.records
    assert refusal(tmp_path, split="test") == (
        "--split test: no such list in ROOT, and no file of that name; known here: train, valid"
    )
    with pytest.raises(InputError) as caught:
        load(tmp_path / "train")
    assert str(caught.value) == (
        f"{tmp_path}/train is one split of Roboflow's layout; pass --root {tmp_path} --split train"
    )
    (tmp_path / "few.txt").write_text("valid_jpg.rf.0f3c\nx\n")
    assert refusal(tmp_path, split="few") == (
        "id 'x' is in none of train/_annotations.coco.json, valid/_annotations.coco.json in ROOT"
    )


def test_a_category_0_like_any_other_is_a_class(tmp_path: Path) -> None:
    assert load(roboflow(tmp_path, supercategory="none")).classes == ("background", "pets", "cat", "dog")


def test_a_data_set_can_be_sent_to_another_process(tmp_path: Path) -> None:
    make(tmp_path, CONTENT)
    dataset = load(tmp_path)
    there = pickle.loads(pickle.dumps(dataset))
    assert there.records == dataset.records
    np.testing.assert_array_equal(there.read_mask(there.records[0]), DRAWN)


def test_other_layouts_number_their_own_classes(synthetic_root: Path) -> None:
    dataset = load_dataset({"dataset": "synthetic", "root": synthetic_root, "split": "val"})
    assert category_ids(dataset) == (1, 2, 3, 4, 5)
    assert image_ids(dataset)["scene_00008"] == "scene_00008"


def test_an_id_that_cannot_be_one_is_one_problem_among_others(tmp_path: Path, content: dict[str, Any]) -> None:
    content["images"][1]["id"] = []
    make(tmp_path, content)
    problems: list[str] = []
    load_dataset({"dataset": "coco", "root": tmp_path, "split": "train"}, fault=problems.append)
    assert [line.replace(f"{tmp_path}/", "") for line in problems] == [
        f"{JSON}: images[1] has id [], which is of the wrong type",
        f"{JSON}: an annotation has image_id 7, which no image has",
    ]


def test_a_class_name_that_is_no_text(tmp_path: Path, content: dict[str, Any]) -> None:
    content["categories"][1]["name"] = "\udcff"
    make(tmp_path, content)
    wanted = f"{JSON}: class '\\udcff' is no text that can be written as UTF-8; give it another name"
    assert refusal(tmp_path) == wanted
