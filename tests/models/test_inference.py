"""Running a network over a data set: batches of one size, several at once on a processor, in an order that is kept."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pseudolabel.artefacts import Header, MapsReader, MapsWriter, open_artefact
from pseudolabel.data import Dataset, Record, load_dataset
from pseudolabel.models.inference import Compute, Plan, compute_maps, make_plan
from pseudolabel.runtime.progress import Progress
from tests.helpers import voc

CPU = torch.device("cpu")
SIZES = {"a": (16, 32), "b": (32, 16), "c": (16, 32), "d": (16, 32), "e": (32, 16), "f": (16, 32), "g": (16, 32)}
ORDER = "acdfgbe"  # of computing: by size, then by name


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    masks = {name: np.full(size, 1, dtype=np.uint8) for name, size in SIZES.items()}
    root = voc.write_voc(tmp_path / "set", masks)
    for number, (name, size) in enumerate(SIZES.items()):
        voc.save(root / f"JPEGImages/{name}.png", np.full((*size, 3), 10 * number, dtype=np.uint8))
    return load_dataset({"dataset": "voc", "root": str(root), "split": "val"})


def plan_of(dataset: Dataset, batch_size: int, device: str = "cpu") -> Plan:
    return make_plan(dataset, long_side=32, multiple=16, batch_size=batch_size, device=torch.device(device), skip=False)


def batches(plan: Plan) -> list[str]:
    return ["".join(plan.images.ids[index] for index in members) for members in plan.batches]


def run(dataset: Dataset, plan: Plan, compute: Compute, out: Path) -> dict[str, float]:
    """The one value that ``compute`` gives each image."""
    header = Header("cams", "make-cams", {}, dataset.classes, dataset=dataset.spec(), protocol={"tag_filter": "none"})
    with MapsWriter(out, header, plan.images, dtype="float32") as writer:
        compute_maps(writer, dataset, plan, compute, device=CPU, skip=False, workers=0, progress=Progress())
    with open_artefact(out, "cams") as artefact:
        reader = MapsReader(artefact)
        return {name: float(reader.maps(index)[1][0, 0]) for index, name in enumerate(reader.images.ids)}


def brightness(pixels: Tensor, records: list[Record]) -> list[dict[int, np.ndarray]]:
    return [{1: np.full((1, 1), image.float().mean().item() / 255, dtype=np.float32)} for image in pixels]


WANTED = {name: pytest.approx(10 * number / 255) for number, name in enumerate(SIZES)}


def test_no_more_images_are_under_way_than_asked_for(dataset: Dataset, three_threads: None) -> None:
    assert (plan_of(dataset, 6).at_once, batches(plan_of(dataset, 6))) == (3, ["ac", "df", "g", "be"])
    assert (plan_of(dataset, 5).at_once, batches(plan_of(dataset, 5))) == (3, list(ORDER))
    assert (plan_of(dataset, 2).at_once, batches(plan_of(dataset, 2))) == (2, list(ORDER))
    assert (plan_of(dataset, 1).at_once, batches(plan_of(dataset, 1))) == (1, list(ORDER))
    assert (plan_of(dataset, 4, "cuda").at_once, batches(plan_of(dataset, 4, "cuda"))) == (1, ["acdf", "g", "be"])


def test_one_thread_computes_one_batch_after_the_other(dataset: Dataset) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert (plan_of(dataset, 4).at_once, batches(plan_of(dataset, 4))) == (1, ["acdf", "g", "be"])
    finally:
        torch.set_num_threads(before)


def test_batches_are_computed_at_the_same_time_in_one_thread_each(
    dataset: Dataset, three_threads: None, tmp_path: Path
) -> None:
    """The first three wait for each other, so that this ends only if they are computed at once."""
    together, calls, inside = threading.Barrier(3), [], []

    def compute(pixels: Tensor, records: list[Record]) -> list[dict[int, np.ndarray]]:
        calls.append(len(records))
        inside.append(torch.get_num_threads())
        if len(calls) <= 3:
            together.wait(timeout=30)
        return brightness(pixels, records)

    assert run(dataset, plan_of(dataset, 3), compute, tmp_path / "x.h5") == WANTED
    assert calls == [1] * 7
    assert inside == [1] * 7
    assert torch.get_num_threads() == 3


def test_the_order_is_kept_whichever_batch_ends_first(dataset: Dataset, three_threads: None, tmp_path: Path) -> None:
    started = []

    def compute(pixels: Tensor, records: list[Record]) -> list[dict[int, np.ndarray]]:
        started.append(records[0].id)
        time.sleep(0.2 if len(started) == 1 else 0)
        return brightness(pixels, records)

    plan = plan_of(dataset, 3)
    assert run(dataset, plan, compute, tmp_path / "x.h5") == WANTED
    assert run(dataset, replace(plan, at_once=1), brightness, tmp_path / "y.h5") == WANTED
    digests = []
    for name in ("x", "y"):
        with open_artefact(tmp_path / f"{name}.h5") as artefact:
            digests.append(artefact.header.digest)
    assert digests[0] == digests[1]


def test_an_error_in_a_thread_ends_the_run_and_the_next_one_goes_on(
    dataset: Dataset, three_threads: None, tmp_path: Path
) -> None:
    def compute(pixels: Tensor, records: list[Record]) -> list[dict[int, np.ndarray]]:
        if records[0].id == "f":
            raise RuntimeError("out of order")
        return brightness(pixels, records)

    plan = plan_of(dataset, 3)
    with pytest.raises(RuntimeError, match="out of order"):
        run(dataset, plan, compute, tmp_path / "x.h5")
    assert torch.get_num_threads() == 3
    assert not (tmp_path / "x.h5").exists()
    assert run(dataset, plan, brightness, tmp_path / "x.h5") == WANTED


def test_ctrl_c_while_threads_compute_ends_the_run_and_the_next_one_goes_on(
    dataset: Dataset, three_threads: None, tmp_path: Path
) -> None:
    def compute(pixels: Tensor, records: list[Record]) -> list[dict[int, np.ndarray]]:
        if records[0].id == "f":
            os.kill(os.getpid(), signal.SIGINT)  # reaches the main thread, which waits for this one
        return brightness(pixels, records)

    plan = plan_of(dataset, 3)
    with pytest.raises(KeyboardInterrupt):
        run(dataset, plan, compute, tmp_path / "x.h5")
    assert torch.get_num_threads() == 3
    assert not (tmp_path / "x.h5").exists()
    assert run(dataset, plan, brightness, tmp_path / "x.h5") == WANTED
