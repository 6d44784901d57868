"""Curves of a training on disk: the CSV table, TensorBoard's event files, the pictures, and how they are taken up."""

from __future__ import annotations

import csv
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pseudolabel.errors import InputError, PseudolabelError
from pseudolabel.training.curves import Curves, CurveWriter, log_folder


def events(folder: Path):
    """What TensorBoard would show."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance=dict.fromkeys(("scalars", "images", "histograms"), 0))
    return found.Reload()


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events(folder).Scalars(name)]


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "curves.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def values(step: int) -> Mapping[str, float]:
    """What a training with a warm-up of three steps measures, a validation every fourth step apart."""
    warm = {"loss": 1 / step, "rate": 1e-5 * step}
    return warm if step <= 3 else warm | {"c2s": step / 3, "high": 0.5}


def measured(curves: Curves, steps: range) -> None:
    for step in steps:
        curves.scalars(step, values(step))
        if step % 4 == 0:
            curves.scalars(step, {"epoch/miou": step / 100})
            curves.picture(step, "grid", np.full((4, 6, 3), step, np.uint8))
            curves.histogram(step, "scores", np.array([0, 1, step]), np.array([0.25, 0.5, 0.75, 1.0]))


def test_the_folder_lies_beside_the_output() -> None:
    assert log_folder(Path("runs/cosa.h5")) == Path("runs/cosa.h5.log")


def test_one_row_a_step_and_an_empty_cell_where_nothing_was_measured(tmp_path: Path) -> None:
    with CurveWriter(tmp_path / "a.log") as curves:
        curves.scalars(1, {"loss": 0.5, "low": float("nan")})
        curves.scalars(2, {"loss": 0.25, "c2s": 1 / 3})
        curves.scalars(2, {"epoch/miou": 0.125})
        curves.scalars(3, {"c2s": 2.0, "low": -1e-7})
        curves.scalars(4, {})
        curves.scalars(5, {"loss": float("inf"), "collapsed": True})
    assert (tmp_path / "a.log" / "curves.csv").read_text() == (
        "step,loss,c2s,epoch/miou,low,collapsed\n"
        "1,0.5,,,,\n"
        "2,0.25,0.3333333,0.125,,\n"
        "3,,2,,-1e-07,\n"
        "4,,,,,\n"
        "5,inf,,,,1\n"
    )


def test_names_that_need_quotes_survive_a_new_column(tmp_path: Path) -> None:
    with CurveWriter(tmp_path / "a.log") as curves:
        curves.scalars(1, {'a,"b"': 1.0})
        curves.scalars(2, {"c": 2.0})
    assert table(tmp_path / "a.log") == [{"step": "1", 'a,"b"': "1", "c": ""}, {"step": "2", 'a,"b"': "", "c": "2"}]


def test_steps_do_not_go_back(tmp_path: Path) -> None:
    with CurveWriter(tmp_path / "a.log") as curves:
        curves.scalars(3, {"loss": 1.0})
        with pytest.raises(ValueError, match="step 2 after step 3"):
            curves.scalars(2, {"loss": 1.0})
    with CurveWriter(tmp_path / "a.log", first=3) as curves, pytest.raises(ValueError, match="step 3 after step 3"):
        curves.scalars(3, {"loss": 1.0})


def test_tensorboard_shows_scalars_pictures_and_histograms(tmp_path: Path) -> None:
    with CurveWriter(tmp_path / "a.log") as curves:
        measured(curves, range(1, 9))
    assert scalars(tmp_path / "a.log", "loss") == [(step, pytest.approx(1 / step)) for step in range(1, 9)]
    assert scalars(tmp_path / "a.log", "c2s") == [(step, pytest.approx(step / 3)) for step in range(4, 9)]
    assert scalars(tmp_path / "a.log", "epoch/miou") == [(4, pytest.approx(0.04)), (8, pytest.approx(0.08))]
    found = events(tmp_path / "a.log")
    pictures = found.Images("grid")
    assert [(event.step, event.height, event.width) for event in pictures] == [(4, 4, 6), (8, 4, 6)]
    assert pictures[1].encoded_image_string == (tmp_path / "a.log/pictures/grid-000008.png").read_bytes()
    with Image.open(tmp_path / "a.log/pictures/grid-000008.png") as picture:
        np.testing.assert_array_equal(np.array(picture), np.full((4, 6, 3), 8))
    histogram = found.Histograms("scores")[1].histogram_value
    assert histogram.bucket == [0, 1, 8]
    assert histogram.bucket_limit == [0.5, 0.75, 1.0]
    assert (histogram.min, histogram.max, histogram.num) == (0.5, 1.0, 9)  # of the bins that hold something
    assert histogram.sum == pytest.approx(0.625 + 8 * 0.875)
    assert histogram.sum_squares == pytest.approx(0.625**2 + 8 * 0.875**2)


def test_an_empty_histogram_and_values_that_are_not_finite_can_be_shown(tmp_path: Path) -> None:
    with CurveWriter(tmp_path / "a.log") as curves:
        curves.histogram(1, "scores", np.zeros(2, int), np.array([0.0, 0.5, 1.0]))
        curves.scalars(1, {"loss": float("nan")})
    found = events(tmp_path / "a.log")
    assert found.Histograms("scores")[0].histogram_value.num == 0
    assert found.Tags()["scalars"] == []
    assert table(tmp_path / "a.log") == [{"step": "1"}]


@pytest.mark.parametrize("first", [0, 1, 3, 4, 6, 9])
def test_a_resumed_training_leaves_what_an_uninterrupted_one_does(first: int, tmp_path: Path) -> None:
    with CurveWriter(tmp_path / "whole.log") as curves:
        measured(curves, range(1, 13))
    with CurveWriter(tmp_path / "killed.log") as curves:
        measured(curves, range(1, 10))
    with CurveWriter(tmp_path / "killed.log", first=first) as curves:
        measured(curves, range(first + 1, 13))
    whole, killed = ((tmp_path / f"{name}.log") for name in ("whole", "killed"))
    assert (whole / "curves.csv").read_bytes() == (killed / "curves.csv").read_bytes()
    pictures = sorted(path.name for path in (killed / "pictures").iterdir())
    assert pictures == ["grid-000004.png", "grid-000008.png", "grid-000012.png"]
    for name in ("loss", "c2s", "epoch/miou"):
        assert scalars(whole, name) == scalars(killed, name)
    for found in (events(killed).Images("grid"), events(killed).Histograms("scores")):
        assert [event.step for event in found] == [4, 8, 12]


def test_columns_of_cut_rows_are_cut_too(tmp_path: Path) -> None:
    with CurveWriter(tmp_path / "a.log") as curves:
        measured(curves, range(1, 9))
    CurveWriter(tmp_path / "a.log", first=2).close()
    assert (tmp_path / "a.log/curves.csv").read_text() == "step,loss,rate\n1,1,1e-05\n2,0.5,2e-05\n"
    assert list((tmp_path / "a.log/pictures").iterdir()) == []


def test_a_training_that_is_killed_twice_at_the_same_state(tmp_path: Path) -> None:
    for first, last in ((0, 5), (4, 7), (4, 6), (4, 8)):
        with CurveWriter(tmp_path / "a.log", first=first) as curves:
            measured(curves, range(first + 1, last + 1))
    assert [row["step"] for row in table(tmp_path / "a.log")] == [str(step) for step in range(1, 9)]
    assert [step for step, _ in scalars(tmp_path / "a.log", "loss")] == list(range(1, 9))


def test_a_half_written_row_is_dropped(tmp_path: Path) -> None:
    with CurveWriter(tmp_path / "a.log") as curves:
        for step in (10, 11):
            curves.scalars(step, {"loss": 0.5})
    path = tmp_path / "a.log/curves.csv"
    path.write_bytes(path.read_bytes()[:-5])  # 11,0.5 becomes 11: nobody knows of what it is the beginning
    assert path.read_text() == "step,loss\n10,0.5\n11"
    CurveWriter(tmp_path / "a.log", first=200).close()
    assert path.read_text() == "step,loss\n10,0.5\n"


def test_starting_anew_removes_what_another_training_left_and_nothing_else(tmp_path: Path) -> None:
    with CurveWriter(tmp_path / "a.log") as curves:
        measured(curves, range(1, 9))
    (tmp_path / "a.log/curves.csv").write_text("edited;by;hand\n")
    (tmp_path / "a.log/notes.txt").write_text("mine")
    (tmp_path / "a.log/pictures/best.png").write_text("mine")
    with CurveWriter(tmp_path / "a.log") as curves:
        curves.scalars(1, {"other": 1.0})
    assert (tmp_path / "a.log/curves.csv").read_text() == "step,other\n1,1\n"
    assert [path.name for path in (tmp_path / "a.log/pictures").iterdir()] == ["best.png"]
    assert (tmp_path / "a.log/notes.txt").read_text() == "mine"
    assert events(tmp_path / "a.log").Tags()["scalars"] == ["other"]


def test_a_folder_that_was_lost_is_begun_again(tmp_path: Path) -> None:
    with CurveWriter(tmp_path / "a.log", first=7) as curves:
        curves.scalars(8, {"loss": 1.0})
    assert table(tmp_path / "a.log") == [{"step": "8", "loss": "1"}]
    assert scalars(tmp_path / "a.log", "loss") == [(8, 1.0)]


@pytest.mark.parametrize(
    "text", ["step;loss\n1;0.5\n", "step,loss\none,0.5\n", "", "\n", "step,loss\n1,0.5,3\n", "\0\n\xff"]
)
def test_a_table_of_others_is_not_gone_on_with(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.log").mkdir()
    path = tmp_path / "a.log/curves.csv"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(InputError) as caught:
        CurveWriter(tmp_path / "a.log", first=1)
    assert str(caught.value) == (
        f"{path} is not the table that a training wrote, which has a column 'step' and as many cells in every row; "
        "move it away to go on without it, or pass --overwrite to start anew"
    )
    assert path.read_text(encoding="latin-1") == text


def test_nothing_but_the_last_step_is_lost_when_killed(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from pseudolabel.training.curves import CurveWriter\n"
        "curves = CurveWriter(Path(sys.argv[1]))\n"
        "for step in range(1, 51):\n"
        "    curves.scalars(step, {'loss': 1.0})\n"
        "assert 'tensorflow' not in sys.modules\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.log")], check=False, capture_output=True)
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, b"")
    assert [row["step"] for row in table(tmp_path / "a.log")] == [str(step) for step in range(1, 51)]
    assert len(scalars(tmp_path / "a.log", "loss")) == 50


def test_a_full_disk_is_one_line_and_what_is_there_can_be_gone_on_with(tmp_path: Path) -> None:
    curves = CurveWriter(tmp_path / "a.log")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
        with pytest.raises(PseudolabelError) as caught:
            measured(curves, range(1, 500))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    curves.close()
    assert str(caught.value) == (
        f"cannot write {tmp_path / 'a.log'}: File too large; free some space or choose another --out, and run again"
    )
    assert type(caught.value) is PseudolabelError
    assert list((tmp_path / "a.log").rglob("*.partial")) == []
    with CurveWriter(tmp_path / "a.log", first=4) as curves:
        measured(curves, range(5, 9))
    assert [row["step"] for row in table(tmp_path / "a.log")] == [str(step) for step in range(1, 9)]
    assert [step for step, _ in scalars(tmp_path / "a.log", "loss")] == list(range(1, 9))


def test_a_file_of_the_folders_name_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("mine")
    with pytest.raises(InputError) as caught:
        CurveWriter(tmp_path / "a.log")
    assert str(caught.value) == (
        f"{tmp_path / 'a.log'} is a file; a training keeps its curves in a folder of that name: "
        "move the file away, or choose another --out"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.log").mkdir(mode=0o500)
    with pytest.raises(PseudolabelError, match=r"cannot write .*a\.log: Permission denied"):
        CurveWriter(tmp_path / "a.log")


def test_curves_that_nobody_wants_go_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Curves() as curves:
        measured(curves, range(1, 9))
    assert list(tmp_path.iterdir()) == []


def test_importing_it_is_cheap() -> None:
    code = "import sys, pseudolabel.training.curves; print(sorted({'tensorboard', 'tensorflow'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
