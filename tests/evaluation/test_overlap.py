"""How many of the images that are scored the network behind their masks was trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pseudolabel.artefacts import Header, Input, read_header, write_artefact
from pseudolabel.artefacts.header import CostMeter
from pseudolabel.data import Record
from pseudolabel.evaluation.overlap import count_trained_on

CLASSES = ("background", "cat")
PLACE = {"dataset": "coco", "root": "/data", "split": "fit"}
RECORDS = [Record(name, Path(f"{name}.jpg"), None) for name in "bcd"]


def chain(folder: Path, ids: str | None, **network: object) -> dict[Path, Header]:
    """Masks that a network has predicted, which was trained on images of these names."""
    header = Header("checkpoint", "train-cam", {}, CLASSES, dataset=PLACE)
    arrays = {"weights/one": np.zeros(1, np.float32)}
    if ids is not None:
        arrays["images/id"] = np.array(list(ids), dtype=object)
    path = write_artefact(folder / "net.h5", replace(header, **network), arrays, CostMeter())
    given = (Input("checkpoint", "net.h5", read_header(path).digest),)
    masks = Header("masks", "predict-masks", {}, CLASSES, dataset={**PLACE, "split": "seen"}, inputs=given)
    return {folder / "masks.h5": masks}


@pytest.mark.parametrize(("ids", "known"), [("ab", 1), ("abcd", 3), ("xyz", 0), (None, None)])
def test_images_are_known_by_the_ids_that_the_checkpoint_holds(
    tmp_path: Path, ids: str | None, known: int | None
) -> None:
    assert count_trained_on(chain(tmp_path, ids), RECORDS) == known


def test_what_is_not_known_is_none(tmp_path: Path) -> None:
    assert count_trained_on(chain(tmp_path, "abc", dataset={**PLACE, "root": "/elsewhere"}), RECORDS) is None
    parents = chain(tmp_path, "abc")
    (tmp_path / "net.h5").unlink()
    assert count_trained_on(parents, RECORDS) is None
    assert count_trained_on({}, RECORDS) is None
