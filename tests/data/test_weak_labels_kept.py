"""Weak labels after they were read once: the digest, later stages, folders that have moved, marks of an oracle."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from unittest.mock import ANY

import pytest

from pseudolabel.data import load_dataset, open_dataset, reopen_dataset
from pseudolabel.data.weak.manifest import write_manifest
from pseudolabel.errors import DatasetError
from pseudolabel.options import DatasetOptions, WeakLabelOptions
from tests.helpers.voc import write_voc
from tests.helpers.weak import (
    MASKS,
    annotation,
    blank,
    box,
    load,
    scribble,
    text,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two images of 8 x 6 pixels: a with the tag cat, b with the tag dog."""
    return write_voc(tmp_path / "set", MASKS)


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
