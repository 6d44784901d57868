"""Weak labels as data: every format, the tags that they imply, and every fault named by file and entry."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pytest
from small_voc import array, save, write_voc

from pseudolabel.cli.app import main
from pseudolabel.data import Dataset, load_dataset, open_dataset, reopen_dataset
from pseudolabel.data.check import check_dataset
from pseudolabel.data.manifest import write_manifest
from pseudolabel.data.shapes import Box
from pseudolabel.data.show import labels_picture
from pseudolabel.data.weak import WeakLabels, load_weak_labels
from pseudolabel.errors import DatasetError, InputError
from pseudolabel.options import DataCheckOptions, DatasetOptions, WeakLabelOptions

MASKS = {"a": np.zeros((6, 8), dtype=np.uint8), "b": np.zeros((6, 8), dtype=np.uint8)}
MASKS["a"][1:5, 1:4] = 1
MASKS["b"][2:5, 4:8] = 2
MASKS["b"][2, 4:8] = 255


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two images of 8 x 6 pixels: a with the tag cat, b with the tag dog."""
    return write_voc(tmp_path / "set", MASKS)


def load(root: Path, **places: Any) -> Dataset:
    return load_dataset({"dataset": "voc", "root": root, "split": "val"} | places)


def weak(dataset: Dataset, index: int, **how: Any) -> Any:
    return load_weak_labels(dataset.records[index], (6, 8), dataset.classes, **how)


def problems(root: Path, **changes: Any) -> list[str]:
    options = DataCheckOptions(**{"root": root, "split": "val", "workers": 0} | changes)
    return [line.replace(f"{root.parent}/", "") for line in check_dataset(options)["problems"]]


def read_all(root: Path, **places: Any) -> None:
    dataset = load(root, **places)
    for index in range(len(dataset.records)):
        weak(dataset, index)


def refusal(root: Path, **places: Any) -> str:
    with pytest.raises(InputError) as caught:
        read_all(root, **places)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{root.parent}/", "")


def scribble(path: Path, rows: Sequence[Sequence[int]]) -> Path:
    save(path, array(rows))
    return path.parent


def blank(**marks: int) -> list[list[int]]:
    """An unlabelled scribble of 8 x 6 pixels with single pixels set: r2c3=1."""
    rows = [[255] * 8 for _ in range(6)]
    for place, label in marks.items():
        row, column = place[1:].split("c")
        rows[int(row)][int(column)] = label
    return rows


def strokes(path: Path, *polygons: tuple[str, Sequence[tuple[Any, Any]]], size: str = "") -> Path:
    body = "".join(
        f"<polygon><tag>{tag}</tag>{''.join(f'<point><X>{x}</X><Y>{y}</Y></point>' for x, y in points)}</polygon>"
        for tag, points in polygons
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<annotation><filename>{path.stem}.jpg</filename>{size}{body}</annotation>")
    return path.parent


def text(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def annotation(path: Path, *objects: tuple[str, Mapping[str, Any]]) -> Path:
    body = "".join(
        f"<object><name>{name}</name><bndbox>{''.join(f'<{k}>{v}</{k}>' for k, v in box.items())}</bndbox></object>"
        for name, box in objects
    )
    text(path, f"<annotation>{body}</annotation>")
    return path.parent


def box(x0: Any, y0: Any, x1: Any, y1: Any) -> dict[str, Any]:
    return {"xmin": x0, "ymin": y0, "xmax": x1, "ymax": y1}


def coco(path: Path, *boxes: tuple[int, int, Any], **changes: Any) -> Path:
    images = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}, {"id": 3, "file_name": "ghost.png"}]
    annotations = [
        {"id": number, "image_id": image, "category_id": category, "bbox": values}
        for number, (image, category, values) in enumerate(boxes, 10)
    ]
    categories = [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}, {"id": 19, "name": "cow"}]
    return text(path, {"images": images, "categories": categories, "annotations": annotations} | changes)


def untagged(root: Path) -> Path:
    for path in (root / "Annotations").iterdir():
        path.unlink()
    return root


def test_a_scribble_png_is_read_as_it_is(root: Path, tmp_path: Path) -> None:
    rows = blank(r2c2=1, r0c0=0)
    dataset = load(root, scribbles=scribble(tmp_path / "s/a.png", rows))
    np.testing.assert_array_equal(weak(dataset, 0).labels, array(rows))
    assert weak(dataset, 0).labels.dtype == np.uint8
    assert (weak(dataset, 1).labels == 255).all()
    assert dataset.spec()["scribbles"] == str(tmp_path / "s")
    assert load_dataset(dataset.spec()).records == dataset.records


def test_polylines_are_drawn_with_their_width(root: Path, tmp_path: Path) -> None:
    folder = strokes(tmp_path / "s/a.xml", ("cat", [(1, 2), (5, 2)]), ("background", [(0, 5), (7, 5)]))
    dataset = load(root, scribbles=folder)
    wanted = np.full((6, 8), 255, dtype=np.uint8)
    wanted[2, 1:6], wanted[5] = 1, 0
    np.testing.assert_array_equal(weak(dataset, 0, width=1).labels, wanted)
    thick = weak(dataset, 0, width=3).labels
    assert (thick[1:4, 1:6] == 1).all()
    assert (thick[4:] == 0).all()
    assert set(np.unique(thick)) == {0, 1, 255}


def test_points_of_a_table_and_of_whats_the_point(root: Path, tmp_path: Path) -> None:
    table = text(tmp_path / "points.csv", "id,class,x,y\r\na,cat,2,3\r\n\r\na,background,7,0\r\nb,dog,5.0,4.9\r\n")
    click = {"cls": 1, "x": 2, "y": 3, "rank": 1}
    clicks = text(tmp_path / "points.json", {"a": [click], "b": [{"cls": 2, "x": 5, "y": 4}]})
    wanted = np.full((6, 8), 255, dtype=np.uint8)
    wanted[3, 2] = 1
    np.testing.assert_array_equal(weak(load(root, points=clicks), 0, width=1).labels, wanted)
    wanted[0, 7] = 0
    for place in (table, tmp_path):  # the folder that holds the table names it too
        dataset = load(root, points=place)
        found = weak(dataset, 0, width=1)
        np.testing.assert_array_equal(found.labels, wanted)
        assert [point[:3] for point in found.points] == [(1, 2, 3), (0, 7, 0)]
        assert [point[:3] for point in dataset.records[1].points] == [(2, 5, 4)]
    assert np.count_nonzero(weak(load(root, points=clicks), 0, width=3).labels == 1) >= 5


def test_no_disc_covers_the_centre_of_another_point(root: Path, tmp_path: Path) -> None:
    table = text(tmp_path / "points.csv", "a,cat,2,3\na,background,3,3\n")
    labels = weak(load(root, points=table), 0, width=5).labels
    assert (labels[3, 2], labels[3, 3]) == (1, 0)


def test_boxes_of_voc_count_from_1_and_hold_both_corners(root: Path, tmp_path: Path) -> None:
    dataset = load(root, boxes=annotation(tmp_path / "boxes/a.xml", ("cat", box(2, 2, 4, 5))))
    found = weak(dataset, 0)
    assert [item[:5] for item in found.boxes] == [(1, 1, 1, 4, 5)]  # exactly the cat in MASKS
    assert (found.labels == 255).all()


def test_boxes_of_coco_are_rounded_outwards_and_crowds_left_out(root: Path, tmp_path: Path) -> None:
    path = coco(tmp_path / "boxes.json", (1, 17, [1.2, 1, 2.3, 4]), (2, 18, [4, 2, 4.01, 3]))
    content = json.loads(path.read_text())
    content["annotations"].append({"image_id": 1, "category_id": 17, "bbox": [0, 0, 8, 6], "iscrowd": 1})
    dataset = load(root, boxes=text(path, content))
    assert [item[:5] for item in weak(dataset, 0).boxes] == [(1, 1, 1, 4, 5)]
    assert [item[:5] for item in weak(dataset, 1).boxes] == [(2, 4, 2, 8, 5)]  # a rounding error beyond the border


def test_weak_labels_imply_tags_where_none_are_given(root: Path, tmp_path: Path) -> None:
    places = {
        "scribbles": scribble(tmp_path / "s/a.png", blank(r2c2=1, r0c0=0)),
        "boxes": annotation(tmp_path / "boxes/a.xml", ("dog", box(1, 1, 3, 3))),
        "points": text(tmp_path / "points.csv", "b,background,0,0\n"),
    }
    dataset = load(untagged(root), **places)
    assert [record.tags for record in dataset.records] == [(1, 2), ()]
    assert dataset.tag_source == "weak"
    assert load_dataset(dataset.spec()).records == dataset.records
    strokes(tmp_path / "xml/b.xml", ("dog", [(1, 1)]))
    assert load(root, scribbles=tmp_path / "xml").records[1].tags == (2,)
    assert load(root, scribbles=tmp_path / "xml").records[0].tags is None


def test_the_source_weak_takes_tags_from_weak_labels_alone(root: Path, tmp_path: Path) -> None:
    table = text(tmp_path / "points.csv", "a,dog,0,0\n")
    dataset = load(root, points=table, tag_source="weak")
    assert [record.tags for record in dataset.records] == [(2,), None]
    assert refusal(root, tag_source="weak") == (
        "--tag-source weak needs scribbles, points or boxes, and none are given; "
        "'pseudolabel data tags' takes them and writes a table for --tags-file"
    )
    assert refusal(root, points=table, tag_source="weak", tags_file=table) == (
        "--tags-file is not read with --tag-source weak; leave one of them out"
    )


def test_a_coco_data_set_takes_weak_labels_too(tmp_path: Path) -> None:
    path = coco(tmp_path / "annotations/instances_val.json", (1, 18, [0, 0, 4, 4]))
    content = json.loads(path.read_text())
    content["images"] = [{"id": 1, "file_name": "a.png", "height": 6, "width": 8}]
    content["annotations"][0]["segmentation"] = [[0, 0, 4, 0, 4, 4]]
    text(path, content)
    save(tmp_path / "a.png", np.zeros((6, 8, 3), dtype=np.uint8))
    dataset = load(tmp_path, dataset="coco", boxes=path)
    assert [item[:5] for item in weak(dataset, 0).boxes] == [(2, 0, 0, 4, 4)]
    assert dataset.records[0].tags == (2,)


def test_the_digest_covers_weak_labels(root: Path, tmp_path: Path) -> None:
    folder = scribble(tmp_path / "s/a.png", blank(r2c2=1))
    digests = [load(root).as_input().digest, load(root, scribbles=folder).as_input().digest]
    scribble(tmp_path / "s/a.png", blank(r2c3=1))
    digests.append(load(root, scribbles=folder).as_input().digest)
    for x in (2, 3):
        digests.append(load(root, points=text(tmp_path / "points.csv", f"a,cat,{x},3\n")).as_input().digest)
    assert len(set(digests)) == 5
    moved = load(root, points=text(tmp_path / "elsewhere.csv", "a,cat,3,3\n"))
    assert moved.as_input().digest == digests[-1]


def test_weak_labels_inside_a_data_set_move_with_it(root: Path, tmp_path: Path) -> None:
    spec = load(root, scribbles=scribble(root / "scribbles/a.png", blank(r2c2=1))).spec()
    moved = root.rename(tmp_path / "moved")
    dataset = load_dataset(spec, root=moved)
    assert dataset.records[0].scribbles == moved / "scribbles/a.png"
    with pytest.raises(DatasetError, match=r"^--scribbles .*/set/scribbles does not exist; pass the folder or file"):
        load_dataset(spec | {"root": str(moved)})
    assert load_dataset(spec | {"root": str(moved), "tag_source": "none"}).weak == {}  # evaluation needs no labels


def test_a_later_stage_does_without_weak_labels_that_are_gone(root: Path, tmp_path: Path) -> None:
    """Tags from elsewhere stay; nothing of what the artefact says of its data set is lost."""
    folder, table = scribble(tmp_path / "s/a.png", blank(r2c2=1)), text(tmp_path / "p.csv", "b,dog,5,3\n")
    write_manifest(folder, "scribbles", {"seed": 3})
    before = load(root, scribbles=folder, points=table)
    assert reopen_dataset(before.spec()) == replace(before, read_mask=ANY)
    folder.rename(tmp_path / "away")
    dataset = reopen_dataset(before.spec())
    found = [(item.scribbles, item.tags, len(item.points)) for item in dataset.records]
    assert found == [(None, (1,), 0), (None, (2,), 1)]
    assert (dataset.spec(), dataset.oracle) == (before.spec(), before.oracle)
    assert dataset.gone == (folder,)
    dataset.require_tags("never read")
    table.unlink()
    assert reopen_dataset(before.spec()).gone == (folder, table)


def test_weak_labels_that_are_still_there_are_read_and_say_what_they_are(root: Path, tmp_path: Path) -> None:
    """Also where tags come from weak labels alone; the manifest of now counts, not what the artefact had read."""
    folder = scribble(tmp_path / "s/a.png", blank(r2c2=1))
    boxes = annotation(tmp_path / "b/a.xml", ("cat", box(1, 1, 2, 3)))
    write_manifest(folder, "scribbles", {"seed": 3})
    before = load(root, scribbles=folder, tag_source="weak")
    folder.rename(tmp_path / "away")
    write_manifest(boxes, "boxes", {"seed": 4})
    dataset = reopen_dataset(before.spec(), boxes=boxes)
    assert [len(record.boxes) for record in dataset.records] == [1, 0]
    assert dataset.oracle == ("scribbles simulated from pixel masks", "boxes simulated from pixel masks")
    assert dataset.spec()["boxes"] == str(boxes)


def test_boxes_that_are_named_now_are_where_they_are_said_to_be(root: Path, tmp_path: Path) -> None:
    """They have not moved with the data set, though they lie in its old folder."""
    spec = load(root).spec()
    shutil.copytree(root, tmp_path / "moved")
    for place, corner in ((root, 3), (tmp_path / "moved", 4)):
        annotation(place / "boxes/a.xml", ("cat", box(1, 1, 2, corner)))
    dataset = reopen_dataset(spec, root=tmp_path / "moved", boxes=root / "boxes")
    assert dataset.root == tmp_path / "moved"
    assert [record.boxes[0].where for record in dataset.records[:1]] == [f"{root}/boxes/a.xml: object 1"]


def test_tags_that_were_implied_go_when_a_part_of_what_implied_them_does(root: Path, tmp_path: Path) -> None:
    """b had none of its own; what points say of it is not all that it had."""
    (root / "Annotations/b.xml").unlink()
    table = text(tmp_path / "p.csv", "b,dog,5,3\n")
    before = load(root, points=table, boxes=annotation(tmp_path / "x/b.xml", ("cat", box(1, 1, 2, 3))))
    assert [record.tags for record in before.records] == [(1,), (1, 2)]
    shutil.rmtree(tmp_path / "x")
    dataset = reopen_dataset(before.spec())
    assert [(record.tags, len(record.points)) for record in dataset.records] == [((1,), 0), (None, 1)]
    with pytest.raises(DatasetError, match=r"^1 images of .* have no tags \(first: b\); .*/x is no longer there; tag"):
        dataset.require_tags("tag it")


@pytest.mark.parametrize("source", ["weak", "csv"])
def test_tags_go_with_what_said_them(root: Path, tmp_path: Path, source: str) -> None:
    """A part of what implied them is not taken for the whole."""
    folder = scribble(tmp_path / "s/a.png", blank(r2c2=1))
    table = text(tmp_path / "points.csv", "a,cat,0,0\nb,dog,5,3\n")
    if source == "weak":
        before, gone = load(root, scribbles=folder, points=table, tag_source="weak"), folder
    else:
        tags = text(root / "given.csv", "a,cat\nb,cat;dog\n")
        before, gone = load(root, points=table, tags_file=tags), tags
    assert before.tag_source == source
    assert all(item.tags for item in before.records)
    gone.rename(tmp_path / "away")
    dataset = reopen_dataset(before.spec())
    assert [item.tags for item in dataset.records] == [None, None]
    assert dataset.spec() == before.spec()
    with pytest.raises(DatasetError) as error:
        dataset.require_tags("do something")
    assert str(error.value) == (f"2 images of {root} have no tags (first: a); {gone} is no longer there; do something")


def test_a_tag_table_inside_a_data_set_moves_with_it(root: Path, tmp_path: Path) -> None:
    spec = load(root, tags_file=text(root / "given.csv", "a,cat\nb,cat;dog\n")).spec()
    moved = root.rename(tmp_path / "moved")
    assert [item.tags for item in load_dataset(spec, root=moved).records] == [(1,), (1, 2)]


def test_a_stage_that_asks_for_weak_labels_opens_them(root: Path, tmp_path: Path) -> None:
    class Options(WeakLabelOptions, DatasetOptions):
        """Of a stage that reads weak labels."""

    folder = scribble(tmp_path / "s/a.png", blank(r2c2=1))
    dataset = open_dataset(Options(root=root, split="val", scribbles=folder, out=tmp_path / "x.h5"))
    assert [record.scribbles for record in dataset.records] == [folder / "a.png", None]
    assert open_dataset(DatasetOptions(root=root, split="val", out=tmp_path / "x.h5")).weak == {}


def test_what_was_simulated_is_marked_oracle(root: Path, tmp_path: Path) -> None:
    folder = scribble(tmp_path / "s/a.png", blank(r2c2=1))
    assert load(root, scribbles=folder).oracle == ()
    write_manifest(folder, "scribbles", {"from": "pixel masks", "seed": 3})
    dataset = load(root, scribbles=folder)
    assert dataset.oracle == ("scribbles simulated from pixel masks",)
    assert dataset.spec()["simulated"] == {"scribbles": {"from": "pixel masks", "seed": 3}}
    assert load_dataset(dataset.spec()).oracle == dataset.oracle
    table = text(folder / "points.csv", "a,cat,2,3\n")
    assert load(root, points=table).oracle == ()  # the manifest beside it is about scribbles


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
        "points.json: point 1 of 'a': cls 3; wanted a class index, 1 to 2",
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
        {"boxes/a.xml": [("cat", box(0, 1, 4, 4))]},
        "boxes/a.xml: object 1: box from (-1, 0) to (4, 4), counted from 0, "
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


def write(folder: Path, files: Mapping[str, Any]) -> dict[str, Path]:
    """Write files of weak labels and say what the options are that name them."""
    places = {}
    for name, content in files.items():
        kind = name.split("/")[0].split(".")[0]
        path = folder / name
        places[kind] = path.parent if "/" in name else path
        if isinstance(content, str) or name.startswith("points"):
            text(path, content)
        elif name.endswith(".png"):
            scribble(path, content)
        elif name == "boxes.json":
            coco(path, *content)
        else:
            (strokes if kind == "scribbles" else annotation)(path, *content)
    return places


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
        "empty holds no points.csv; wanted one with lines of id,class,x,y, or the path of a JSON of What's the Point"
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


def test_check_says_once_that_no_image_has_a_label(root: Path, tmp_path: Path) -> None:
    points = text(tmp_path / "points.csv", "name,where\n")
    table, bare = problems(untagged(root), points=points)
    assert table.startswith("points.csv")
    assert bare == "set: none of the 2 images has a label: no tags or points"
    ghost, stray = problems(root, **write(tmp_path, {"scribbles/ghost.png": blank()}))
    assert ghost == "set: none of the 2 images has a label: no tags or scribbles"
    assert stray.startswith("scribbles/ghost.png")


def test_check_lists_all_faults_at_once(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    list_file = root / "ImageSets/Segmentation/val.txt"
    list_file.write_text("a\nb\nc\n")
    save(root / "JPEGImages/c.png", np.zeros((6, 8, 3), dtype=np.uint8))
    places = spoilt(untagged(root), tmp_path)
    wanted = [
        "set: id 'c' has no label: no tags, scribbles, points or boxes",
        "scribbles/ghost.png: image 'ghost' is not in split val of set; correct its name or remove it",
        "points.csv, line 3: image 'other' is not in split val of set; correct its name or remove it",
        "boxes/other.xml: image 'other' is not in split val of set; correct its name or remove it",
        "scribbles/a.png is for 2 x 1 pixels, its image has 8 x 6; draw the scribbles at the image's size",
        "boxes/a.xml: object 1: box from (0, 0) to (99, 3), counted from 0, "
        "goes beyond the border of its image, which is 8 x 6 pixels",
        "points.csv, line 2: point (4, 2) lies on pixels that the mask of the image ignores (255)",
    ]
    assert problems(root, **places) == wanted
    assert problems(root, **places, workers=2) == wanted
    words = [word for kind, path in places.items() for word in (f"--{kind}", str(path))]
    assert main(["data", "check", "--root", str(root), "--split", "val", "--workers", "0", "--json", *words]) == 2
    result = json.loads(capsys.readouterr().out)
    assert [result[key] for key in ("images", "tagged", "scribbles", "points", "boxes")] == [3, 2, 1, 1, 1]
    assert (len(result["problems"]), result["tag_source"]) == (len(wanted), "weak")


def test_labels_in_the_data_sets_own_folder_serve_all_its_lists(root: Path) -> None:
    save(root / "JPEGImages/other.png", np.zeros((6, 8, 3), dtype=np.uint8))
    for name in ("a", "b", "other", "ghost"):
        annotation(root / f"boxes/{name}.xml", ("cat" if name == "a" else "dog", box(1, 1, 2, 3)))
    assert problems(root, boxes=root / "boxes") == [
        "set/boxes/ghost.xml: image 'ghost' is not in split val of set; correct its name or remove it"
    ]


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
