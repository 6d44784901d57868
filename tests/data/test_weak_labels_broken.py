"""Weak labels at fault: every fault named by file and entry, by loading and by ``data check``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pseudolabel.cli.app import main
from pseudolabel.data import load_dataset
from pseudolabel.data.shapes import Box
from pseudolabel.data.weak.labels import WeakLabels
from pseudolabel.data.weak.manifest import write_manifest
from pseudolabel.errors import DatasetError, InputError
from pseudolabel.export.weak_labels import labels_picture
from tests.helpers.voc import save, write_voc
from tests.helpers.weak import (
    MASKS,
    blank,
    box,
    coco,
    load,
    problems,
    refusal,
    scribble,
    strokes,
    text,
    untagged,
    weak,
    write,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two images of 8 x 6 pixels: a with the tag cat, b with the tag dog."""
    return write_voc(tmp_path / "set", MASKS)


CASES: list[tuple[dict[str, Any], str]] = [
    (
        {"scribbles/a.png": blank(r2c2=2)},
        "scribbles/a.png: a scribble of class 'dog', but the tags of image 'a' are cat; correct one of them",
    ),
    (
        {"scribbles/a.png": [[1, 255]]},
        "scribbles/a.png is for 2 x 1 pixels, its image has 8 x 6; draw the scribbles at the image's size",
    ),
    ({"scribbles/a.png": blank(r2c2=7)}, "scribbles/a.png holds label 7; wanted 0 to 2, or 255 for unlabelled"),
    ({"scribbles/a.png": blank()}, "scribbles/a.png labels no pixel: every value is 255; draw a scribble or remove it"),
    (
        {"scribbles/a.xml": "<annotation/>"},
        "scribbles/a.xml holds no stroke; wanted <polygon> with <tag> and <point>, as ScribbleSup has it",
    ),
    (
        {"scribbles/a.xml": "<annotation><polygon><tag>cat</tag></polygon></annotation>"},
        "scribbles/a.xml: polygon 1 has no <point>",
    ),
    (
        {"scribbles/a.xml": [("cat", [(1, 1), (3, 3)]), ("cat", [(1, 1), (9, 3)])]},
        "scribbles/a.xml: polygon 2: corner (9, 3) lies outside its image, which is 8 x 6 pixels",
    ),
    (
        {"scribbles/a.xml": [("cat", [(1, -2)])]},
        "scribbles/a.xml: polygon 1: corner (1, -2) lies outside its image, which is 8 x 6 pixels",
    ),
    (
        {"scribbles/a.xml": [("dog", [(1, 1)])]},
        "scribbles/a.xml: polygon 1: a scribble of class 'dog', but the tags of image 'a' are cat; correct one of them",
    ),
    ({"scribbles/a.xml": [("cta", [(1, 1)])]}, "scribbles/a.xml: polygon 1: unknown class 'cta' (did you mean 'cat'?)"),
    ({"scribbles/a.xml": [("cat", [("x", 1)])]}, "scribbles/a.xml: polygon 1: <X> is 'x'; wanted a number"),
    ({"points.csv": "a,cat,8,1\n"}, "points.csv, line 1: point (8, 1) lies outside its image, which is 8 x 6 pixels"),
    ({"points.csv": "a,cat,nan,1\n"}, "points.csv, line 1: x 'nan' and y '1' are not both numbers"),
    ({"points.csv": "a,cat,1\n"}, "points.csv, line 1: 3 columns; wanted 4, with commas between: id,class,x,y"),
    (
        {"points.csv": "id;class;x;y\n"},
        "points.csv, line 1: 1 column; wanted 4, with commas between: id,class,x,y",
    ),
    (
        {"points.csv": "id,x,y,class\na,1,1,cat\n"},
        "points.csv, line 1: the columns are id,x,y,class; wanted them as id,class,x,y",
    ),
    (
        {"scribbles/a.png": [[0] * 8] * 5 + [[1] * 8]},
        "scribbles/a.png labels every pixel, with 0 most of them; unlabelled pixels must be 255; pixel masks are no "
        "scribbles, train-scribble takes them by --mask-list",
    ),
    (
        {"points.csv": "a,dog,1,1\n"},
        "points.csv, line 1: a point of class 'dog', but the tags of image 'a' are cat; correct one of them",
    ),
    (
        {"points.csv": "../a,cat,1,1\n"},
        "points.csv, line 1: id '../a' could lead out of the data set; wanted a plain name",
    ),
    (
        {"scribbles/a.png": blank(r1c1=0), "points.csv": "a,cat,1,1\n"},
        "points.csv, line 1: point (1, 1) of class 'cat' lies on a scribble of class 'background'",
    ),
    (
        {"points.csv": "a,cat,2,3\na,background,2,3\n"},
        "points.csv, line 2: point (2, 3) of class 'background' lies on one of class 'cat'; remove one of them",
    ),
    (
        {"points.json": {"a": [{"cls": 3, "x": 1, "y": 1}]}},
        "points.json: point 1 of 'a': cls 3; wanted a class index, 1 to 2, or 0 for background",
    ),
    ({"points.json": {"a": [{"x": 1, "y": 1}]}}, "points.json: point 1 of 'a' lacks one of the keys 'cls', 'x', 'y'"),
    ({"points.json": {"a": 3}}, "points.json: 'a' has a JSON int; wanted a list of points"),
    ({"points.json": [1]}, "points.json holds a JSON list; wanted an object of image id to a list of points"),
    (
        {"boxes/a.xml": [("cat", box(5, 2, 3, 4))]},
        "boxes/a.xml: object 1: box from (4, 1) to (2, 4), counted from 0, has swapped corners or a negative extent",
    ),
    (
        {"boxes/a.xml": [("cat", box(5, 2, 5, 4))]},
        "boxes/a.xml: object 1: box from (4, 1) to (4, 4), counted from 0, has no extent",
    ),
    (
        {"boxes/a.xml": [("cat", box(1, 1, 2, 2)), ("cat", box(1, 1, 9, 6))]},
        "boxes/a.xml: object 2: box from (0, 0) to (9, 6), counted from 0, "
        "goes beyond the border of its image, which is 8 x 6 pixels",
    ),
    (
        {"boxes/a.xml": [("cat", box(-1, 1, 4, 4))]},
        "boxes/a.xml: object 1: box from (-2, 0) to (4, 4), counted from 0, "
        "goes beyond the border of its image, which is 8 x 6 pixels",
    ),
    (
        {"boxes/a.xml": [("dog", box(1, 1, 2, 2))]},
        "boxes/a.xml: object 1: a box of class 'dog', but the tags of image 'a' are cat; correct one of them",
    ),
    ({"boxes/a.xml": [("cat", box("?", 1, 2, 2))]}, "boxes/a.xml: object 1: <xmin> is '?'; wanted a number"),
    (
        {"boxes/a.xml": "<annotation><object><name>cat</name></object></annotation>"},
        "boxes/a.xml: object 1 has no <bndbox>",
    ),
    (
        {"boxes.json": [(1, 17, [1, 1, -2, 2])]},
        "boxes.json: annotation 10 of image 1: box from (1, 1) to (-1, 3), counted from 0, "
        "has swapped corners or a negative extent",
    ),
    (
        {"boxes.json": [(1, 17, [1, 1, 0, 2])]},
        "boxes.json: annotation 10 of image 1: box from (1, 1) to (1, 3), counted from 0, has no extent",
    ),
    (
        {"boxes.json": [(1, 17, [1, 1])]},
        "boxes.json: annotation 10 of image 1: bbox [1, 1]; wanted four numbers: left, top, width, height",
    ),
    (
        {"boxes.json": [(1, 17, [10**400, 1, 2, 2])]},
        f"boxes.json: annotation 10 of image 1: bbox [1{'0' * 58}; wanted four numbers: left, top, width, height",
    ),
    (
        {"boxes.json": [(1, 17, [8.2, 1, 0.2, 2])]},
        "boxes.json: annotation 10 of image 1: box from (8.2, 1) to (8.4, 3), counted from 0, "
        "has no extent within its image, which is 8 x 6 pixels",
    ),
    (
        {"boxes.json": [(1, 19, [1, 1, 2, 2])]},
        "boxes.json: annotation 10 of image 1: unknown class 'cow'; known: cat, dog",
    ),
    ({"boxes.json": [(9, 17, [1, 1, 2, 2])]}, "boxes.json: an annotation has image_id 9, which no image has"),
    (
        {"boxes.json": [(1, 7, [1, 1, 2, 2])]},
        "boxes.json: annotation 10 of image 1 has category_id 7, which no category has",
    ),
]


@pytest.mark.parametrize(("files", "message"), CASES, ids=[message[:60] for _, message in CASES])
def test_each_fault_stops_loading_and_is_listed_by_check(
    root: Path, tmp_path: Path, files: dict[str, Any], message: str
) -> None:
    places = write(tmp_path, files)
    assert refusal(root, **places) == message
    assert message in problems(root, **places)


def test_what_stops_everything(root: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert refusal(root, boxes=tmp_path / "no") == "--boxes no does not exist; pass the folder or file with the boxes"
    assert refusal(root, scribbles=tmp_path / "empty") == (
        "empty holds no .png or .xml file; wanted scribbles as ID.png or ID.xml"
    )
    assert refusal(root, boxes=tmp_path / "empty") == (
        "empty holds no .xml file; wanted VOC's annotations, or COCO's instances JSON"
    )
    assert refusal(root, points=tmp_path / "empty") == (
        "empty holds no points.csv and no .json file; wanted lines of id,class,x,y, or JSON of What's the Point"
    )
    scribble(tmp_path / "s/a.png", blank(r2c2=1))
    assert refusal(root, scribbles=tmp_path / "s/a.png") == (
        "--scribbles s/a.png is a file; wanted the folder that holds ID.png or ID.xml"
    )
    assert refusal(root, boxes=root / "Annotations/a.xml") == (
        "--boxes set/Annotations/a.xml is one image's annotation; wanted the folder that holds it"
    )
    strokes(tmp_path / "s/a.xml", ("cat", [(1, 1)]))
    assert (
        refusal(root, scribbles=tmp_path / "s") == "s/a.xml and a.png are scribbles of the same image; keep one of them"
    )
    text(tmp_path / "x/a.xml", "<!DOCTYPE a [<!ENTITY x 'y'>]><annotation>&x;</annotation>")
    assert refusal(root, scribbles=tmp_path / "x") == (
        "x/a.xml declares XML entities, which are refused as unsafe; remove its DOCTYPE"
    )
    strokes(tmp_path / "z/a.xml", ("cat", [(1, 1)]), size="<size><width>9</width><height>6</height></size>")
    assert refusal(root, scribbles=tmp_path / "z") == (
        "z/a.xml is for 9 x 6 pixels, its image has 8 x 6; draw the scribbles at the image's size"
    )


def spoilt(root: Path, folder: Path) -> dict[str, Path]:
    """Weak labels of an untagged set with one fault of each kind that only the whole shows."""
    save(root / "JPEGImages/other.png", np.zeros((6, 8, 3), dtype=np.uint8))
    files = {
        "scribbles/a.png": [[1, 255]],
        "scribbles/ghost.png": blank(r0c0=0),
        "points.csv": "id,class,x,y\nb,dog,4,2\nother,cat,1,1\n",
        "boxes/a.xml": [("cat", box(1, 1, 99, 3))],
        "boxes/other.xml": [("cat", box(1, 1, 2, 3))],
    }
    return write(folder, files)


@pytest.mark.parametrize("folder", ["SegmentationClass", "SegmentationClassAug"])
def test_the_masks_of_a_data_set_are_no_scribbles(root: Path, folder: str) -> None:
    scribble(root / folder / "a.png", blank(r2c2=1))
    assert refusal(root, scribbles=root / folder) == (
        f"--scribbles set/{folder} is the data set's own folder of pixel masks; simulate scribbles from them "
        "with 'pseudolabel data scribbles', or let train-scribble take them as --supervision masks"
    )


def stroked(root: Path, photograph: str) -> dict[str, Any]:
    """A plain folder of one photograph, with a scribble in ``strokes``."""
    save(root / photograph, np.zeros((6, 8, 3), dtype=np.uint8))
    folder = scribble(root / "strokes/a.png", blank(r2c2=1))
    return {"dataset": "folder", "root": root, "split": "all", "scribbles": folder}


def test_scribbles_of_a_set_without_classes_say_what_is_missing(tmp_path: Path) -> None:
    root = tmp_path / "set"
    spec = stroked(root, "images/a.png")
    with pytest.raises(DatasetError) as error:
        load_dataset(spec)
    assert str(error.value) == (
        f"{root}/strokes/a.png holds label 1, but the data set names no class; "
        "write a classes.txt in its folder: one name a line, in the order of the labels from 1"
    )
    text(root / "classes.txt", "cat\n")
    assert load_dataset(spec).records[0].tags == (1,)


def test_scribbles_among_the_photographs_are_refused(tmp_path: Path) -> None:
    """They would be photographs of a class of their own."""
    root = tmp_path / "set"
    with pytest.raises(InputError) as error:
        load_dataset(stroked(root, "a.png"))
    assert str(error.value) == (
        f"--scribbles {root}/strokes lies among the photographs of {root} and would be taken for some; "
        f"move the photographs to {root}/images"
    )


def test_check_takes_listed_masks_for_labels(root: Path, tmp_path: Path) -> None:
    places = write(tmp_path, {"scribbles/a.png": blank(r2c2=1)})
    assert problems(untagged(root), **places) == ["set: id 'b' has no label: no tags or scribbles"]
    assert problems(root, **places, mask_list=text(tmp_path / "masked.txt", "b\n")) == []
    assert problems(root, **places, mask_list=text(tmp_path / "masked.txt", "b\nc\n")) == [
        "masked.txt names 1 images that are not in split val of set (first: 'c'); remove them from the list",
        "set: id 'b' has no label: no tags or scribbles",
    ]
    (root / "SegmentationClass/b.png").unlink()
    assert problems(root, **places, mask_list=text(tmp_path / "masked.txt", "b\n")) == [
        "masked.txt: image 'b' has no mask in set"
    ]


@pytest.mark.parametrize("place", ["masks", "masks/x"])
def test_the_masks_of_a_plain_folder_are_no_scribbles(tmp_path: Path, place: str) -> None:
    """Also where ids lie in folders of their own."""
    save(tmp_path / "set/images/x/a.png", np.zeros((6, 8, 3), dtype=np.uint8))
    save(tmp_path / "set/masks/x/a.png", MASKS["a"])
    text(tmp_path / "set/tags.csv", "x/a,cat\n")
    spec = {"dataset": "folder", "root": tmp_path / "set", "split": "all", "scribbles": tmp_path / "set" / place}
    with pytest.raises(
        DatasetError, match=rf"^--scribbles .*/set/{place} is the data set's own folder of pixel masks;"
    ):
        load_dataset(spec)


def test_coco_boxes_that_stand_twice_are_refused(root: Path, tmp_path: Path) -> None:
    path = coco(tmp_path / "boxes.json", (1, 17, [1, 1, 2, 2]))
    content = json.loads(path.read_text())
    for section, entry, message in (
        ("images", {"id": 9, "file_name": "a.jpg"}, "image 9 (a.jpg) stands twice; remove one of them"),
        ("images", {"id": 1, "file_name": "c.png"}, "image 1 (c.png) stands twice; remove one of them"),
        ("categories", {"id": 17, "name": "dog"}, "category 17 (dog) stands twice; remove one of them"),
    ):
        path.write_text(json.dumps({**content, section: [*content[section], entry]}))
        assert refusal(root, boxes=path) == f"boxes.json: {message}"


def test_a_stroke_along_the_far_border_is_drawn_on_the_last_pixels(root: Path, tmp_path: Path) -> None:
    folder = strokes(tmp_path / "s/a.xml", ("cat", [(8, 0), (8, 6), (0, 6)]))
    labels = weak(load(root, scribbles=folder), 0, width=1).labels
    assert (labels[:, 7] == 1).all()
    assert (labels[5] == 1).all()
    assert (labels[:5, :7] == 255).all()


@pytest.mark.parametrize("side", [1, 2, 3])
def test_the_smallest_boxes_are_drawn(side: int) -> None:
    """At a long side of 640 and more nothing is enlarged."""
    nothing, photograph = np.full((480, 640), 255, np.uint8), np.zeros((480, 640, 3), np.uint8)
    pictures = [
        labels_picture(photograph, WeakLabels(nothing, boxes=(box,)), ("background", "cat"), "a")
        for box in (Box(1, left, 200, left + side, 201, "") for left in (100, 300))
    ]
    first, second = map(np.asarray, pictures)
    assert (first != second).any(axis=(0, 2)).nonzero()[0].size >= 2 * side


def test_check_warns_where_nothing_can_be_learnt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is no fault: masks can be predicted of such photographs."""
    save(tmp_path / "my/images/one.png", np.zeros((6, 8, 3), dtype=np.uint8))
    words = ["data", "check", "--dataset", "folder", "--root", str(tmp_path / "my"), "--workers", "0"]
    assert main(words) == 0
    assert capsys.readouterr().err == (
        f"warning: no image of split train of {tmp_path / 'my'} has tags, weak labels or a mask, so that nothing "
        "can be learnt from them; put a tags.csv there, or give --tags-file, --scribbles, --points or --boxes\n"
    )
    (tmp_path / "my/tags.csv").write_text("id,tags\none,cat\n")
    (tmp_path / "my/classes.txt").write_text("background\ncat\n")
    assert main(words) == 0
    assert capsys.readouterr().err == ""


def test_check_says_once_that_no_image_has_a_label(root: Path, tmp_path: Path) -> None:
    points = text(tmp_path / "points.csv", "name,where\n")
    table, bare = problems(untagged(root), points=points)
    assert table.startswith("points.csv")
    assert bare == "set: none of the 2 images has a label: no tags or points"
    ghost, stray = problems(root, **write(tmp_path, {"scribbles/ghost.png": blank()}))
    assert ghost == "set: none of the 2 images has a label: no tags or scribbles"
    assert stray == (
        "scribbles: none of its scribbles is of an image in split val of set (first: 'ghost' in scribbles/ghost.png); "
        "an id is the name in the list, without a file's ending"
    )


def test_check_lists_all_faults_at_once(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    list_file = root / "ImageSets/Segmentation/val.txt"
    list_file.write_text("a\nb\nc\n")
    save(root / "JPEGImages/c.png", np.zeros((6, 8, 3), dtype=np.uint8))
    places = spoilt(untagged(root), tmp_path)
    wanted = [
        "set: id 'c' has no label: no tags, scribbles, points or boxes",
        "scribbles/a.png is for 2 x 1 pixels, its image has 8 x 6; draw the scribbles at the image's size",
        "boxes/a.xml: object 1: box from (0, 0) to (99, 3), counted from 0, "
        "goes beyond the border of its image, which is 8 x 6 pixels",
    ]
    assert problems(root, **places) == wanted
    assert problems(root, **places, workers=2) == wanted
    words = [word for kind, path in places.items() for word in (f"--{kind}", str(path))]
    assert main(["data", "check", "--root", str(root), "--split", "val", "--workers", "0", "--json", *words]) == 2
    result = json.loads(capsys.readouterr().out)
    assert [result[key] for key in ("images", "tagged", "scribbles", "points", "boxes")] == [3, 2, 1, 1, 1]
    assert (len(result["problems"]), result["tag_source"]) == (len(wanted), "weak")


def test_the_tags_command_writes_what_weak_labels_imply(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = scribble(tmp_path / "s/a.png", blank(r2c2=2))
    write_manifest(folder, "scribbles", {"seed": 0})
    words = ["data", "tags", "--root", str(root), "--split", "val", "--scribbles", str(folder)]
    assert main(words) == 2
    assert capsys.readouterr().err == (
        f"error: {folder}/a.png: a scribble of class 'dog', but the tags of image 'a' are cat; correct one of them\n"
    )
    assert main([*words, "--tag-source", "weak"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "id,tags\na,dog\n"
    assert captured.err == "warning: oracle: scribbles simulated from pixel masks\n"
    scribble(folder / "a.png", blank(r2c2=1))
    assert main(words) == 0
    assert capsys.readouterr().out == "id,tags\na,cat\nb,dog\n"
