"""Weak labels as data: every format, and the tags that they imply."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pseudolabel.data import load_dataset
from tests.helpers.voc import array, save, write_voc
from tests.helpers.weak import (
    MASKS,
    annotation,
    blank,
    box,
    coco,
    load,
    refusal,
    scribble,
    strokes,
    text,
    untagged,
    weak,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two images of 8 x 6 pixels: a with the tag cat, b with the tag dog."""
    return write_voc(tmp_path / "set", MASKS)


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
