"""Named pipes, sockets, devices and loops of links in the place of every file of a data set: one line each."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pseudolabel.data import load_dataset, read_image
from pseudolabel.data.check import check_dataset
from pseudolabel.data.inputs import npy_input, png_input
from pseudolabel.errors import InputError
from pseudolabel.options import DataCheckOptions
from tests.helpers.irregular import KINDS, put

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such files")
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two photographs with masks, in the layouts of folders and of VOC."""
    rng = np.random.default_rng(0)
    for folder, masks in (("images", "masks"), ("JPEGImages", "SegmentationClass")):
        for name in ("a", "b"):
            for place, image in ((folder, rng.integers(0, 256, (4, 5, 3))), (masks, rng.integers(0, 2, (4, 5)))):
                (tmp_path / place).mkdir(exist_ok=True)
                Image.fromarray(image.astype(np.uint8)).save(tmp_path / place / f"{name}.png")
    (tmp_path / "tags.csv").write_text("a,dog\nb,dog\n")
    (tmp_path / "classes.txt").write_text("dog\n")
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("a\nb\n")
    return tmp_path


def problems(root: Path, **changes: object) -> list[str]:
    options = DataCheckOptions(**{"dataset": "folder", "root": root, "split": "all", "workers": 0} | changes)
    return [line.replace(f"{root}/", "") for line in check_dataset(options)["problems"]]


@every_kind
def test_photographs_and_masks(root: Path, kind: str) -> None:
    put(kind, root / "images/a.png")
    put(kind, root / "masks/b.png")
    said = f"cannot be opened: {KINDS[kind]}"
    assert problems(root) == [f"images/a.png {said}", f"masks/b.png {said}"]
    assert load_dataset({"dataset": "folder", "root": root, "split": "all"}).as_input().digest


@every_kind
def test_tables_and_lists(root: Path, kind: str) -> None:
    said = f"cannot be read: {KINDS[kind]}"
    for name in ("tags.csv", "classes.txt"):
        before = (root / name).read_text()
        put(kind, root / name)
        assert problems(root) == [f"{name} {said}"]
        (root / name).unlink()
        (root / name).write_text(before)
    put(kind, root / "mine.txt")
    assert problems(root, split="mine") == [f"mine.txt {said}"]
    assert problems(root, split=str(root / "mine.txt")) == [f"mine.txt {said}"]
    assert problems(root, tags_file=root / "mine.txt") == [f"mine.txt {said}"]


@every_kind
def test_annotations(root: Path, kind: str) -> None:
    voc = {"dataset": "voc", "split": "train"}
    put(kind, root / "Annotations/a.xml")
    found = problems(root, **voc)
    assert found[0] == f"Annotations/a.xml cannot be read: {KINDS[kind]}"
    put(kind, root / "annotations/instances_train.json")
    assert problems(root, dataset="coco", split="train") == [
        f"annotations/instances_train.json cannot be read: {KINDS[kind]}"
    ]


@every_kind
def test_weak_labels(root: Path, kind: str) -> None:
    said = KINDS[kind]
    points = put(kind, root / "weak/points.csv").parent
    assert problems(root, points=points) == [f"weak/points.csv cannot be read: {said}"]
    put(kind, root / "boxes/a.xml")
    assert problems(root, boxes=root / "boxes")[0] == f"boxes/a.xml cannot be read: {said}"
    put(kind, root / "scribbles/a.png")
    assert f"scribbles/a.png cannot be opened: {said}" in problems(root, scribbles=root / "scribbles")
    put(kind, root / "strokes/a.xml")
    assert f"strokes/a.xml cannot be read: {said}" in problems(root, scribbles=root / "strokes")
    put(kind, root / "list.txt")
    (found,) = [line for line in problems(root, mask_list=root / "list.txt") if "list.txt" in line]
    assert found.startswith("--mask-list list.txt is a ")


@every_kind
@pytest.mark.parametrize("option", ["points", "boxes", "scribbles"])
def test_places_of_weak_labels(root: Path, kind: str, option: str) -> None:
    path = put(kind, root / "labels.json")
    (found,) = problems(root, **{option: path})
    assert ("/dev/zero" if kind == "device" else "labels.json") in found  # links are followed first


@every_kind
def test_folders_of_others_files_are_digested(tmp_path: Path, kind: str) -> None:
    put(kind, tmp_path / "a.png")
    put(kind, tmp_path / "a.npy")
    assert png_input(tmp_path).digest
    assert npy_input(tmp_path).digest


def test_a_root_that_is_a_loop(tmp_path: Path) -> None:
    path = put("loop", tmp_path / "data")
    with pytest.raises(InputError) as caught:
        load_dataset({"dataset": "folder", "root": path, "split": "all"})
    assert str(caught.value) == f"data set folder {path} does not exist; pass --root with the folder's place now"


def test_links_to_photographs_are_followed(root: Path) -> None:
    (root / "images/c.png").symlink_to("a.png")
    wanted: Callable[[Path], np.ndarray] = read_image
    np.testing.assert_array_equal(wanted(root / "images/c.png"), wanted(root / "images/a.png"))
