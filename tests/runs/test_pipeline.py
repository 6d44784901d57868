"""Pipelines: reading the YAML, what is fresh and what is not, going on after an interrupt, one process a stage."""

from __future__ import annotations

import json
import multiprocessing
import operator
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pseudolabel.artefacts import read_header
from pseudolabel.artefacts.attributes import attribute
from pseudolabel.cli.app import main
from pseudolabel.errors import InputError, PseudolabelError
from pseudolabel.options import build_options, command_line
from pseudolabel.runs.pipeline import Pipeline, find_config, read_pipeline
from pseudolabel.runs.runner import half_finished, plan, run_pipeline
from pseudolabel.runtime.progress import Progress
from pseudolabel.runtime.subprocesses import in_own_process
from tests.helpers import kinds
from tests.helpers.artefacts import blurred_truth, synthetic

STAGES: dict[str, dict[str, Any]] = {
    "cams": {"stage": "import-cams", "cams": "npy"},
    "threshold": {"stage": "search-threshold", "cams": "cams", "method": "fixed", "value": 0.5},
    "soft": {"stage": "refine-crf", "cams": "cams", "threshold": "threshold", "iterations": 2},
    "masks": {"stage": "export-masks", "labels": "soft"},
    "scores": {"stage": "evaluate-masks", "masks": "masks"},
}


class Remembering(Progress):
    def __init__(self) -> None:
        self.said: list[str] = []

    def log(self, message: str) -> None:
        self.said.append(message)

    def warn(self, message: str) -> None:
        self.said.append(f"warning: {message}")

    def __reduce__(self) -> tuple[Any, ...]:
        return Progress, ()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, synthetic_root: Path) -> Path:
    """A folder with a data set, others' CAMs and a pipeline that has run once."""
    folder = tmp_path_factory.mktemp("pipeline")
    shutil.copytree(synthetic_root, folder / "data")
    dataset = synthetic(folder / "data")
    (folder / "npy").mkdir()
    for record, maps in zip(dataset.records, blurred_truth(dataset, len(dataset.records)), strict=True):
        found = {"keys": np.array([label - 1 for label in maps]), "high_res": np.stack(list(maps.values()))}
        np.save(folder / "npy" / f"{record.id}.npy", found, allow_pickle=True)
    write(folder, STAGES)
    run_pipeline(read(folder))
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which is the working folder."""
    copy = tmp_path / "copy"
    shutil.copytree(made, copy)
    write(copy, STAGES)
    monkeypatch.chdir(copy)
    return copy


def write(folder: Path, stages: Any, **top: Any) -> Path:
    """Write a pipeline with absolute paths, so that it runs from anywhere."""
    stages = json.loads(json.dumps(stages))
    if isinstance(stages, dict) and "cams" in stages:
        stages["cams"]["cams"] = str(folder / "npy")
    defaults = {"dataset": "voc", "root": str(folder / "data"), "workers": 0, "seed": 1}
    document = {"name": "small", "out": str(folder / "work"), "defaults": defaults, "stages": stages} | top
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def read(folder: Path, **assignments: str) -> Pipeline:
    return read_pipeline(folder / "small.yaml", {key.replace("__", "."): value for key, value in assignments.items()})


def states(result: dict[str, Any]) -> dict[str, str]:
    return {row["key"]: row["state"] for row in result["stages"]}


def digests(folder: Path) -> dict[str, str]:
    paths = {key: folder / "work" / (f"{key}/masks.h5" if key == "masks" else f"{key}.h5") for key in STAGES}
    return {key: read_header(path).digest for key, path in paths.items()}


# Running


def test_every_stage_leaves_its_artefact_under_its_key(made: Path) -> None:
    files = sorted(str(file.relative_to(made / "work")) for file in (made / "work").rglob("*.h5"))
    assert files == ["cams.h5", "masks/masks.h5", "scores.h5", "soft.h5", "threshold.h5"]
    kinds = {key: read_header(made / "work" / f"{key}.h5").kind for key in ("cams", "threshold", "soft", "scores")}
    assert kinds == {"cams": "cams", "threshold": "thresholds", "soft": "soft-labels", "scores": "scores"}


def test_a_second_run_does_nothing_and_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {file: file.stat().st_mtime_ns for file in (folder / "work").rglob("*") if file.is_file()}
    assert main(["run", "small.yaml"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("all 5 stages are fresh: nothing to do\n")
    assert shown.err.splitlines() == [f"[{n}/5] {key}: fresh" for n, key in enumerate(STAGES, start=1)]
    assert {file: file.stat().st_mtime_ns for file in (folder / "work").rglob("*") if file.is_file()} == before


def test_the_result_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "small.yaml", "--json", "--quiet"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    result = json.loads(shown.out)
    assert result["made"] == 0
    assert [row["key"] for row in result["stages"]] == list(STAGES)
    row = result["stages"][2]
    assert row.keys() == {
        "key", "stage", "state", "reason", "out", "wall_seconds", "images_per_second", "peak_memory_bytes", "bytes",
    }  # fmt: skip
    assert row["bytes"] == (folder / "work" / "soft.h5").stat().st_size
    assert result["stage_seconds"] == pytest.approx(sum(row["wall_seconds"] for row in result["stages"]))
    assert result["scores"]["scores"]["miou"] > 0.5


def test_a_changed_option_makes_its_stage_and_what_follows_again(folder: Path) -> None:
    before, progress = digests(folder), Remembering()
    result = run_pipeline(read(folder, threshold__value="0.8"), progress)
    assert states(result) == {"cams": "fresh", "threshold": "made", "soft": "made", "masks": "made", "scores": "made"}
    assert result["stages"][1]["reason"] == "was made with another --value (0.5, now 0.8)"
    assert result["stages"][2]["reason"] == f"its input {folder / 'work' / 'threshold.h5'} has changed"
    assert {key for key, digest in digests(folder).items() if digest != before[key]} == set(STAGES) - {"cams"}
    assert run_pipeline(read(folder, threshold__value="0.8"))["made"] == 0
    assert any(line.startswith("[2/5] threshold: was made with another --value") for line in progress.said)


def test_an_input_that_comes_out_the_same_changes_nothing_downstream(folder: Path) -> None:
    (folder / "work" / "threshold.h5").unlink()
    result = run_pipeline(read(folder))
    assert states(result) == {
        "cams": "fresh",
        "threshold": "made",
        "soft": "fresh",
        "masks": "fresh",
        "scores": "fresh",
    }
    assert result["stages"][1]["reason"] == "has no output yet"


def test_execution_settings_and_moved_data_change_nothing(folder: Path) -> None:
    (folder / "data").rename(folder / "moved")
    moved = str(folder / "moved")
    assert run_pipeline(read(folder, defaults__workers="1", defaults__root=moved))["made"] == 0


def test_a_stage_that_runs_later_reads_moved_data_where_it_lies_now(folder: Path) -> None:
    (folder / "data").rename(folder / "moved")
    result = run_pipeline(read(folder, soft__iterations="1", defaults__root=str(folder / "moved")), only=["soft"])
    assert states(result) == {"soft": "made"}


def test_changed_data_makes_the_stages_that_read_them_again(folder: Path) -> None:
    data = folder / "data"
    image = next((data / "JPEGImages").iterdir())
    image.write_bytes(image.read_bytes() + b"\0")
    result = run_pipeline(read(folder))
    # The CAMs come out the same, so that what only reads them stays; the CRF and the scores look at the photographs.
    # Their outcome is the same, too: a byte after the end of an image is not seen.
    assert states(result) == {"cams": "made", "threshold": "fresh", "soft": "made", "masks": "fresh", "scores": "made"}
    assert result["stages"][0]["reason"] == "its data set has changed"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: os.truncate(path, 1000), "soft.h5 is truncated (make it again); wanted a pseudolabel artefact"),
        (lambda path: path.write_text("text"), "soft.h5 is not an HDF5 file; wanted a pseudolabel artefact"),
        (lambda path: shutil.copy(path.with_name("cams.h5"), path), "soft.h5 was made by import-cams"),
    ],
)
def test_an_output_that_is_something_else_is_made_again(damage: Callable[[Path], Any], said: str, folder: Path) -> None:
    path = folder / "work" / "soft.h5"
    before = read_header(path).digest
    damage(path)
    result = run_pipeline(read(folder))
    assert result["stages"][2]["reason"] == f"{path.parent}/{said}"
    assert states(result)["masks"] == "fresh"
    assert read_header(path).digest == before


def test_force_runs_all_and_only_runs_some(folder: Path) -> None:
    result = run_pipeline(read(folder), force=True, only=["masks", "threshold"])
    assert [row["key"] for row in result["stages"]] == ["threshold", "masks"]
    assert {row["state"] for row in result["stages"]} == {"made"}
    assert {row["reason"] for row in result["stages"]} == {"--force"}
    assert run_pipeline(read(folder))["made"] == 0


def test_only_needs_the_inputs_and_a_known_key(folder: Path) -> None:
    (folder / "work" / "cams.h5").unlink()
    with pytest.raises(InputError) as caught:
        run_pipeline(read(folder), only=["soft"])
    said = f"stage soft reads {folder / 'work' / 'cams.h5'}, which is not made yet; add --only cams"
    assert str(caught.value) == said
    with pytest.raises(InputError) as caught:
        run_pipeline(read(folder), only=["sofd"])
    assert str(caught.value) == (
        f"--only sofd: {folder}/small.yaml has no such stage (did you mean 'soft'?); "
        "it has cams, threshold, soft, masks, scores"
    )


def test_the_plan_runs_nothing_and_says_why(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = digests(folder)
    rows = plan(read(folder, soft__iterations="3"))
    assert [(row["key"], row["state"], row["reason"]) for row in rows] == [
        ("cams", "fresh", ""),
        ("threshold", "fresh", ""),
        ("soft", "run", "was made with another --iterations (2, now 3)"),
        ("masks", "maybe", "if soft comes out different"),
        ("scores", "maybe", "if masks comes out different"),
    ]
    assert main(["run", "small.yaml", "--dry-run", "--set", "soft.iterations=3"]) == 0
    shown = capsys.readouterr().out
    assert "was made with another --iterations (2, now 3)" in shown
    work = folder / "work"
    assert f"soft: pseudolabel refine-crf {work}/cams.h5 --out {work}/soft.h5 " in shown
    commands = dict(line.split(": ", 1) for line in shown.splitlines() if ": pseudolabel " in line)
    assert list(commands) == ["soft", "masks", "scores"]  # the others are fresh
    assert all(" --overwrite" in command for command in commands.values())  # their outputs are there
    assert main(["run", "small.yaml", "--dry-run", "--json", "--force"]) == 0
    assert {row["state"] for row in json.loads(capsys.readouterr().out)} == {"run"}
    assert digests(folder) == before


def test_the_plan_says_what_would_fail_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(folder / "work")
    assert main(["run", "small.yaml", "--dry-run", "--only", "soft"]) == 2
    said = f"stage soft reads {folder / 'work'}/cams.h5, which is not made yet; add --only cams"
    assert capsys.readouterr().err == f"error: {said}\n"
    (folder / "data").rename(folder / "elsewhere")
    for words in (["--dry-run"], ["--dry-run", "--json"], []):
        assert main(["run", "small.yaml", *words]) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        what = f"data set folder {folder / 'data'} does not exist; pass --root with the folder's place now"
        assert shown.err.splitlines()[-1].endswith(what)
    moved = ["--dry-run", "--set", f"defaults.root={folder / 'elsewhere'}"]
    assert main(["run", "small.yaml", *moved]) == 0
    write(folder, {"net": {"stage": "train-scribble", "scribbles": "no/strokes"}})
    capsys.readouterr()
    assert main(["run", "small.yaml", *moved]) == 2
    assert capsys.readouterr().err == (
        "error: stage net (train-scribble): --scribbles no/strokes does not exist; "
        "pass the folder or file with the scribbles\n"
    )


def test_another_folder_of_artefacts(folder: Path) -> None:
    pipeline = read_pipeline(folder / "small.yaml", out=folder / "elsewhere")
    result = run_pipeline(pipeline, only=["cams"])
    assert result["stages"][0]["out"] == str(folder / "elsewhere" / "cams.h5")
    assert (folder / "elsewhere" / "cams.h5").exists()


def test_a_failing_stage_is_one_line_and_leaves_the_earlier_output(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = digests(folder)
    photograph = folder / "data" / "JPEGImages" / f"{synthetic(folder / 'data').records[3].id}.png"
    photograph = photograph if photograph.exists() else photograph.with_suffix(".jpg")
    photograph.write_text("no photograph")
    assert main(["run", "small.yaml", "--only", "soft", "--quiet"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1
    assert shown.err.startswith("error: ")
    assert photograph.name in shown.err
    assert digests(folder)["soft"] == before["soft"]


# Going on


def slow(folder: Path, iterations: int = 1000) -> list[str]:
    """A command that stays in refine-crf for a long while."""
    words = ["run", str(folder / "small.yaml"), "--set", f"soft.iterations={iterations}", "--only", "soft"]
    return [sys.executable, "-m", "pseudolabel", *words]


def begun(partial: Path) -> Callable[[], bool]:
    """Whether a half-finished output says by now what it is to become: its first record is there, and whole."""
    sizes = [0, 0]

    def grown() -> bool:
        sizes[:] = sizes[1], partial.stat().st_size if partial.exists() else 0
        return 100 < sizes[0] == sizes[1]

    return grown


def wait_for(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("number", "everybody", "code", "what"),
    [
        (signal.SIGINT, False, 130, "interrupted"),  # to the parent alone; it passes it on
        (signal.SIGTERM, False, 143, "terminated"),
        (signal.SIGTERM, True, 143, "terminated"),  # as a scheduler ends a job
    ],
)
def test_an_interrupted_run_goes_on_where_it_stopped(
    number: signal.Signals, everybody: bool, code: int, what: str, folder: Path
) -> None:
    partial = folder / "work" / "soft.h5.partial"
    (folder / "work" / "soft.h5").unlink()
    pipe = subprocess.PIPE
    process = subprocess.Popen(slow(folder, 150), stdout=pipe, stderr=pipe, text=True, start_new_session=True)
    wait_for(begun(partial))
    time.sleep(0.1)
    for pid in (process.pid, *(children(process.pid) if everybody else ())):
        os.kill(pid, number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert said.splitlines()[-1] == f"error: {what}; the same command goes on from what was saved, if anything was"
    assert said.count("error") == 1
    assert "Traceback" not in said
    assert partial.exists()
    assert not (folder / "work" / "soft.h5").exists()
    progress = Remembering()
    result = run_pipeline(read(folder, soft__iterations="150"), progress, only=["soft"])
    assert result["stages"][0]["reason"] == "goes on from its half-finished output"
    interrupted = read_header(folder / "work" / "soft.h5").digest
    run_pipeline(read(folder, soft__iterations="150"), only=["soft"], force=True)
    assert read_header(folder / "work" / "soft.h5").digest == interrupted


def test_work_begun_with_other_options_is_begun_anew_with_a_warning(folder: Path) -> None:
    process = subprocess.Popen(slow(folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    partial = folder / "work" / "soft.h5.partial"
    wait_for(begun(partial))
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    progress = Remembering()
    result = run_pipeline(read(folder, soft__iterations="3"), progress, only=["soft"])
    assert result["stages"][0]["state"] == "made"
    said = [line for line in progress.said if line.startswith("warning")]
    assert said == [f"warning: {partial} was begun with another --iterations (1000, now 3); starting anew"]
    assert read_header(folder / "work" / "soft.h5").options["iterations"] == 3
    assert not partial.exists()


def test_a_fresh_output_stays_fresh_beside_the_remains_of_another_run(folder: Path) -> None:
    (folder / "work" / "soft.h5.partial").write_bytes(b"remains")
    assert half_finished(read(folder).steps[2].options)
    assert run_pipeline(read(folder))["made"] == 0


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks the processes up in /proc")
def test_a_stage_does_not_outlive_a_killed_run(folder: Path) -> None:
    process = subprocess.Popen(slow(folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(begun(folder / "work" / "soft.h5.partial"))
    working = children(process.pid)
    assert working
    process.kill()
    process.wait()
    wait_for(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() and running(pid) for pid in working))


def running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


# One process a stage


# The functions are others', so that the fresh process need not import this file.


def test_a_function_runs_in_a_process_of_its_own() -> None:
    assert in_own_process("looking", os.getpid) != os.getpid()
    assert multiprocessing.active_children() == []


def test_its_errors_are_raised_here_with_their_traceback() -> None:
    with pytest.raises(InputError) as caught:
        in_own_process("complaining", build_options, "make-cams", {})
    assert str(caught.value) == "make-cams: --out and CHECKPOINT are required"
    with pytest.raises(ZeroDivisionError) as bug:
        in_own_process("stumbling", operator.truediv, 1, 0)
    assert "sender.send((function(*arguments), None, " in bug.value.__notes__[0]


def test_a_process_that_dies_is_one_line() -> None:
    tail = "the same command goes on from what was saved, if anything was"
    with pytest.raises(PseudolabelError) as caught:
        in_own_process("stage soft (refine-crf)", signal.raise_signal, signal.SIGKILL)
    assert str(caught.value) == f"stage soft (refine-crf) ended by signal SIGKILL; is there enough memory?; {tail}"
    with pytest.raises(PseudolabelError) as caught:
        in_own_process("stage soft (refine-crf)", os._exit, 7)
    assert str(caught.value) == f"stage soft (refine-crf) ended with exit code 7; {tail}"


# Reading


def test_defaults_reach_every_stage_that_has_such_an_option(folder: Path) -> None:
    options = {step.key: step.options for step in read(folder, defaults__seed="5").steps}
    assert {o.seed for o in options.values()} == {5}
    assert {o.workers for o in options.values()} == {0}
    assert options["cams"].dataset == "voc"  # type: ignore[attr-defined]
    assert options["scores"].dataset is None  # type: ignore[attr-defined]  # read from its input
    assert {getattr(o, "root", None) for o in options.values()} == {folder / "data"}


def test_a_stage_s_own_setting_beats_the_default(folder: Path) -> None:
    write(folder, STAGES | {"soft": STAGES["soft"] | {"seed": 9}})
    assert [step.options.seed for step in read(folder).steps] == [1, 1, 9, 1, 1]
    assert [step.options.seed for step in read(folder, soft__seed="2").steps] == [1, 1, 2, 1, 1]


def test_inputs_name_stages_files_and_files_of_stages(folder: Path) -> None:
    more = {"again": {"stage": "export-masks", "labels": "masks/soft.h5"}, "file": {"stage": "export-masks"}}
    more["file"]["labels"] = str(folder / "work" / "soft.h5")
    write(folder, STAGES | more)
    steps = {step.key: step for step in read(folder).steps}
    assert steps["soft"].parents == ("cams", "threshold")
    assert steps["scores"].options.masks == folder / "work" / "masks" / "masks.h5"  # type: ignore[attr-defined]
    assert steps["masks"].options.artefact == folder / "work" / "masks" / "masks.h5"
    assert steps["again"].options.labels == folder / "work" / "masks" / "soft.h5"  # type: ignore[attr-defined]
    assert steps["again"].parents == ("masks",)
    assert steps["file"].parents == ()


def broken(**change: Any) -> dict[str, Any]:
    return {"stages": STAGES | change}


@pytest.mark.parametrize(
    ("top", "said"),
    [
        ({"stage": {}}, ": unknown key 'stage' (did you mean 'stages'?)"),
        ({"stages": {}}, ": 'stages' is empty; wanted 'key: {stage: train-cam, ...}' lines"),
        ({"stages": ["cams"]}, ": 'stages' holds ['cams'], wanted 'key: value' lines"),
        ({"out": None}, " names no folder for its artefacts; add 'out: work/NAME' or pass --out"),
        ({"defaults": 3}, ": 'defaults' holds 3, wanted 'key: value' lines"),
        ({"defaults": {"sead": 3}}, ": 'defaults': unknown key 'sead' (did you mean 'seed'?)"),
        ({"defaults": {"out": "x"}}, ": 'defaults': unknown key 'out'"),
        ({"defaults": {True: 3}}, ": 'defaults': key True is not a word; put it in quotes"),
        (broken(soft="x"), ": stage 'soft' holds 'x', wanted 'key: value' lines"),
        (
            broken(soft={}),
            ": stage 'soft' names no stage; known: train-cam, train-cosa, train-scribble, train-semi, make-cams, "
            "import-cams, ",
        ),
        (
            broken(soft={"stage": "refine"}),
            ": stage 'soft' names an unknown stage 'refine' (did you mean 'refine-par'?)",
        ),
        (broken(**{"a b": {"stage": "refine-crf"}}), ": stage 'a b': a key names a file; use letters, digits, - and _"),
        (
            broken(soft=STAGES["soft"] | {"iteration": 2}),
            ": stage 'soft': unknown option 'iteration' (did you mean 'iterations'?); "
            "see 'pseudolabel refine-crf --help'",
        ),
        (
            broken(soft=STAGES["soft"] | {"iterations": "many"}),
            ": stage 'soft': --iterations: should be a valid integer, found 'many'",
        ),
        (broken(soft={"stage": "refine-crf"}), ": stage 'soft': CAMS is required"),
        (
            broken(soft=STAGES["soft"] | {"out": "x"}),
            ": stage 'soft': 'out' is not for a pipeline to set; outputs are named by their keys",
        ),
        (
            broken(soft=STAGES["soft"] | {"cams": "cam"}),
            ": stage 'soft': 'cams' is 'cam', neither an earlier stage (did you mean 'cams'?) nor a file; "
            "correct it, or pass --set soft.cams=FILE",
        ),
        (
            broken(soft=STAGES["soft"] | {"cams": "masks"}),
            ": stage 'soft': 'cams' names stage 'masks', which does not come earlier; move it up",
        ),
    ],
)
def test_mistakes_name_file_stage_option_and_the_nearest_name(top: dict[str, Any], said: str, tmp_path: Path) -> None:
    (tmp_path / "npy").mkdir()
    path = write(tmp_path, top.pop("stages", STAGES), **top)
    with pytest.raises(InputError) as caught:
        read_pipeline(path)
    assert str(caught.value).startswith(f"{path}{said}")
    assert said.endswith(", ") or str(caught.value) == f"{path}{said}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1", ":1 is not valid YAML: did not find expected ',' or ']'"),
        ("- a", " holds list, wanted 'key: value' lines"),
        ("", " holds NoneType, wanted 'key: value' lines"),
        ("stages: {}\nout: x\nout: y", ":3 is not valid YAML: key 'out' stands twice"),
        ("on: 3", ": key True is not a word; put it in quotes"),
        ("out: x\n? [a, b]\n: 1", ":2 is not valid YAML: a key is no word"),
        ("? {a: b}\n: 1", ":1 is not valid YAML: a key is no word"),
        ("stages: " + "[" * 3000 + "]" * 3000, " is nested too deeply; wanted a YAML file of settings"),
        ("a: !!python/object:os.system {}", ":1 is not valid YAML: could not determine a constructor for the tag "),
    ],
)
def test_files_that_are_no_settings(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_pipeline(path)
    assert str(caught.value).startswith(f"{path}{said.split(': did')[0]}")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("sof.seed", "--set sof.seed: no stage 'sof' (did you mean 'soft'?)"),
        ("seed", "--set seed: wanted STAGE.OPTION=VALUE or defaults.OPTION=VALUE"),
    ],
)
def test_assignments_to_nothing(word: str, said: str, folder: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_pipeline(folder / "small.yaml", {word: "1"})
    assert str(caught.value) == said


def test_pipelines_are_found_by_path_and_by_name(folder: Path) -> None:
    assert find_config("small.yaml") == Path("small.yaml")
    found = find_config("demo/multi-stage")
    assert found.name == "multi-stage.yaml"
    assert find_config("configs/demo/multi-stage.yaml") == found
    with pytest.raises(InputError) as caught:
        find_config("demo/multistage")
    assert str(caught.value) == (
        "demo/multistage is neither a YAML file nor a packaged pipeline (did you mean 'demo/multi-stage'?)"
    )


@pytest.mark.parametrize("step", ["cams", "threshold", "soft", "masks", "scores"])
def test_the_command_line_of_a_step_means_the_same_options(step: str, made: Path) -> None:
    options = {s.key: s for s in read(made).steps}[step]
    words = command_line(options.stage, options.options).split()
    assert words[:2] == ["pseudolabel", options.stage]
    positional = next(name for name in ("cams", "labels", "masks") if name in type(options.options).model_fields)
    given = {positional: words[2]}
    for flag, value in zip(words[3::2], words[4::2], strict=True):
        given[flag.removeprefix("--")] = value
    assert build_options(options.stage, given) == options.options


def test_an_option_that_an_earlier_version_did_not_have_counts_as_its_default(folder: Path) -> None:
    """So that what was made before stays, unless the new option is used."""
    with kinds.edited(folder / "work" / "soft.h5") as file:
        options = json.loads(attribute(file, "options"))
        del options["unary"], options["confidence"]
        file.attrs["options"] = json.dumps(options)
    rows = plan(read(folder))
    assert rows[2]["reason"] == ""
    rows = plan(read(folder, soft__confidence="posterior"))
    assert rows[2]["reason"] == "was made with another --confidence (None, now 'posterior')"
