"""How many of the images that are scored the network behind their masks was trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_voc import write_voc

from pseudolabel.artefacts import Header, Input, read_header, write_artefact
from pseudolabel.artefacts.header import CostMeter
from pseudolabel.data import load_dataset
from pseudolabel.familiar import count_trained_on

CLASSES = ("background", "cat")
TRUTH = {name: np.array([[0, 1], [0, 0]], np.uint8) for name in "abcd"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four images, of which the list ``fit`` has a, b and c, and ``seen`` b, c and d."""
    root = write_voc(tmp_path / "voc", TRUTH)
    for name, ids in (("fit", "abc"), ("seen", "bcd")):
        (root / f"ImageSets/Segmentation/{name}.txt").write_text("\n".join(ids))
    return root


def chain(folder: Path, root: Path, **network: object) -> dict[Path, Header]:
    """Masks that a network has predicted, which was trained on ``fit`` but for image b."""
    place = {"dataset": "voc", "root": str(root), "split": "fit"}
    header = Header("checkpoint", "train-cam", {}, CLASSES, dataset=place, facts={"held_out": ["b"]})
    path = write_artefact(
        folder / "net.h5", replace(header, **network), {"weights/one": np.zeros(1, np.float32)}, CostMeter()
    )
    given = (Input("checkpoint", "net.h5", read_header(path).digest),)
    masks = Header("masks", "predict-masks", {}, CLASSES, dataset={**place, "split": "seen"}, inputs=given)
    return {folder / "masks.h5": masks}


def count(root: Path, parents: dict[Path, Header]) -> int | None:
    dataset = load_dataset({"dataset": "voc", "root": str(root), "split": "seen", "tag_source": "none"})
    return count_trained_on(parents, dataset, dataset.records)


def test_of_three_images_one_was_trained_on_and_one_held_out(root: Path, tmp_path: Path) -> None:
    assert count(root, chain(tmp_path, root)) == 1
    assert count(root, chain(tmp_path, root, facts={})) == 2


def test_what_is_not_known_is_none(root: Path, tmp_path: Path) -> None:
    elsewhere = {"dataset": "voc", "root": "/elsewhere", "split": "fit"}
    assert count(root, chain(tmp_path, root, dataset=elsewhere)) is None
    parents = chain(tmp_path, root)
    (root / "ImageSets/Segmentation/fit.txt").unlink()
    assert count(root, parents) is None  # its list is gone
    (tmp_path / "net.h5").unlink()
    assert count(root, parents) is None
    assert count(root, {}) is None
