"""Fixtures that several test files share: a tiny synthetic data set, weak labels, real photographs where they are."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pseudolabel.data.layouts.synthetic import synth
from pseudolabel.data.simulate.labels import simulate_boxes, simulate_points, simulate_scribbles
from pseudolabel.options import (
    SimulateBoxesOptions,
    SimulatePointsOptions,
    SimulateScribblesOptions,
    SynthOptions,
    TrainScribbleOptions,
)
from tests.helpers.runs import multi_stage, single_stage, write_data
from tests.helpers.scribble import SMALL

# A shell that starts tests in the background has them ignore Ctrl-C, and their child processes inherit that; some tests
# are about Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Side by side (pytest-xdist) every process, and every command that it starts, has one thread: more threads than cores
# wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def synthetic_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic data set of 8 + 4 images of 64 pixels, in VOC layout. Read it, but change nothing in it."""
    root = tmp_path_factory.mktemp("data") / "synthetic"
    synth(SynthOptions(out=root, train=8, val=4, size=64))
    return root


@pytest.fixture(scope="session")
def weak_folders(synthetic_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of simulated scribbles, points and boxes of its training images. Change nothing in them."""
    folder = tmp_path_factory.mktemp("weak")
    about: dict[str, Any] = {"dataset": "voc", "root": synthetic_root, "split": "train", "from_": "masks", "workers": 0}
    simulate_scribbles(SimulateScribblesOptions(out=folder / "scribbles", **about))
    simulate_points(SimulatePointsOptions(out=folder / "points", **about))
    simulate_boxes(SimulateBoxesOptions(out=folder / "boxes", **about))
    return {kind: folder / kind for kind in ("scribbles", "points", "boxes")}


@pytest.fixture
def scribble_options(
    synthetic_root: Path, weak_folders: dict[str, Path], tmp_path: Path
) -> Callable[..., TrainScribbleOptions]:
    """Makes options of short trainings; on the scribbles unless told otherwise."""

    def make(name: str = "net.h5", **values: Any) -> TrainScribbleOptions:
        places = {"root": synthetic_root, "out": tmp_path / name, "scribbles": weak_folders["scribbles"]}
        return TrainScribbleOptions(**{"dataset": "voc", **places, **SMALL, **values})

    return make


@pytest.fixture(scope="session")
def voc_mini() -> Path:
    """The folder of 600 real photographs in VOC layout."""
    repository = Path(__file__).parents[1]
    root = Path(os.environ.get("PSEUDOLABEL_VOC_MINI", repository / "../shared/voc-mini")).resolve()
    if not root.is_dir():
        pytest.skip(f"needs real photographs in {root}; set PSEUDOLABEL_VOC_MINI to their folder")
    return root


@pytest.fixture
def three_threads() -> Iterator[None]:
    """torch has three threads, however many cores the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, a multi-stage run ``multi`` and a single-stage run ``single``; tests that change them copy them."""
    folder = tmp_path_factory.mktemp("runs")
    root = write_data(folder / "data")
    multi_stage(folder / "multi", root)
    single_stage(folder / "single", root)
    return folder


@pytest.fixture
def multi(made: Path, tmp_path: Path) -> Path:
    """A copy of the multi-stage run."""
    return Path(shutil.copytree(made / "multi", tmp_path / "multi"))


@pytest.fixture
def single(made: Path, tmp_path: Path) -> Path:
    """A copy of the single-stage run."""
    return Path(shutil.copytree(made / "single", tmp_path / "single"))
