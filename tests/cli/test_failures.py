"""The command line where something is wrong: one line on stderr, and an exit code."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer

from pseudolabel.artefacts import read_header
from pseudolabel.cli.app import main
from pseudolabel.cli.failures import exit_code
from pseudolabel.errors import DatasetError, PseudolabelError
from tests.helpers import kinds as kinds
from tests.helpers.cli import PROGRAM, fixed


@pytest.fixture
def cams(tmp_path: Path) -> Path:
    return kinds.make("cams", tmp_path / "cams.h5")


# Usage errors


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["inspct"], "no such command 'inspct'. Did you mean 'inspect'?; see 'pseudolabel --help'"),
        (["--nope"], "unknown option --nope; see 'pseudolabel --help'"),
        (
            ["train-cam", "--epoch", "3"],
            "unknown option --epoch (did you mean '--epochs'?); see 'pseudolabel train-cam --help'",
        ),
        (
            ["make-cams", "x", "--no-flp"],
            "unknown option --no-flp (did you mean '--no-flip'?); see 'pseudolabel make-cams --help'",
        ),
        (["make-cams", "a", "b"], "got unexpected extra argument(s) (b); see 'pseudolabel make-cams --help'"),
        (["make-cams", "a", "--out"], "option '--out' requires an argument; see 'pseudolabel --help'"),
        (["make-cams", "a"], "make-cams: --out is required"),
        (["make-cams"], "make-cams: --out and CHECKPOINT are required"),
        (
            ["make-cams", "a", "--out", "b", "--size", "3"],
            "make-cams: --size: should be greater than or equal to 16, found '3'",
        ),
        (
            ["train-cam", "--out", "b", "--dataset", "vok"],
            "train-cam: --dataset: should be 'voc', 'coco', 'folder' or 'synthetic', found 'vok'",
        ),
        (
            ["make-cams", "a", "--out", "b", "--set", "siz=3"],
            "--set: unknown option 'siz' (did you mean 'size'?); see 'pseudolabel make-cams --help'",
        ),
        (["make-cams", "a", "--out", "b", "--set", "size"], "--set 'size': wanted KEY=VALUE"),
        (
            ["make-cams", "a", "--out", "b", "--config", "no.yaml"],
            "no.yaml does not exist; wanted a YAML file of settings",
        ),
        (["run"], "missing argument 'CONFIG'; see 'pseudolabel run --help'"),
    ],
)
def test_a_usage_error_is_one_line_and_exit_code_2(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == f"error: {said}\n"


# Failures


def test_wrong_input_is_one_line_and_exit_code_2(
    tmp_path: Path, cams: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "cams.txt"
    text.write_text("text")
    assert main(fixed(text)) == 2
    makers = "make-cams, import-cams or refine-affinity"
    assert capsys.readouterr().err == f"error: {text} is not an HDF5 file; wanted cams artefact (made by {makers})\n"
    assert main(fixed(cams, "--quiet", "--json")) == 0
    capsys.readouterr()
    assert main(fixed(cams)) == 2
    out = cams.with_name("threshold.h5")
    said = f"error: {out} exists already; pass --overwrite to replace it, or another --out\n"
    assert capsys.readouterr().err == said


def test_traceback_shows_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(fixed(tmp_path / "no.h5", "--traceback")) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    wanted = "wanted cams artefact (made by make-cams, import-cams or refine-affinity)"
    assert lines[-1] == f"error: {tmp_path}/no.h5 does not exist; {wanted}"


def test_an_output_below_a_file_is_one_line_and_exit_code_2(cams: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = cams / "deep/x.h5"
    assert main(["search-threshold", str(cams), "--method", "fixed", "--out", str(out)]) == 2
    assert capsys.readouterr().err == f"error: {out} cannot be written: {cams} is a file; choose another --out\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "train-cosa --root {0}/no --out {0}/made/x.h5",
            "data set folder {0}/no does not exist; pass --root with the folder's place now",
        ),
        (
            "train-cosa --root {0} --out {1}",
            "{1} exists already; pass --overwrite to replace it, or another --out",
        ),
        (
            "make-cams {1} --out {0}/made/x.h5",
            "{1} holds cams (made by make-cams); wanted a checkpoint of train-cam or train-cosa",
        ),
        (
            "predict-masks {0}/no.h5 --out {0}/made",
            "{0}/no.h5 does not exist; wanted a checkpoint of train-segmenter, train-scribble, train-semi or "
            "train-cosa",
        ),
        (
            "evaluate-masks {1} --dataset voc --root {0} --split val",
            "{1} holds cams (made by make-cams); wanted masks or soft-labels artefact (made by export-masks, "
            "predict-masks, import-masks, refine-crf, refine-par or vote-regions)",
        ),
        (
            "train-segmenter {0} --out {0}/made/x.h5",
            "{0}/masks.h5 does not exist; wanted masks artefact (made by export-masks, predict-masks or import-masks)",
        ),
    ],
)
def test_what_cannot_begin_is_said_before_torch_is_imported_and_leaves_no_folder(
    line: str, said: str, cams: Path, tmp_path: Path
) -> None:
    words = [word.format(tmp_path, cams) for word in line.split()]
    code = (
        "import sys; from pseudolabel.cli.app import main; "
        f"print(main({words}), 'torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == [f"error: {said.format(tmp_path, cams)}", "2 False"]
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "line",
    [
        "train-cam --root data --weights {0}/no.safetensors --backbone resnet18 --out {0}/made/deep/x.h5",
        "make-cams {0}/no.h5 --out {0}/made/deep/x.h5",
        "search-crf {0}/no.h5 --out {0}/made/deep/x.h5",
        "export-masks {0}/no.h5 --out {0}/made/deep/masks",
        "predict-masks {0}/no.h5 --out {0}/made/deep/masks",
        "train-segmenter {0}/no --out {0}/made/deep/x.h5",
        "report {0}/no --out {0}/made/deep/x.html",
    ],
)
def test_a_stage_that_cannot_begin_leaves_no_folder(line: str, synthetic_root: Path, tmp_path: Path) -> None:
    words = [str(synthetic_root) if word == "data" else word.format(tmp_path) for word in line.split()]
    assert main(words) == 2
    assert list(tmp_path.iterdir()) == []


def failing(error: BaseException) -> Any:
    """A command that fails in a certain way."""
    broken = typer.Typer()

    @broken.command()
    def fail() -> None:
        raise error

    return typer.main.get_command(broken)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (DatasetError("image x\nis missing"), 2, "image x is missing"),
        (PseudolabelError("the loss is nan"), 1, "the loss is nan"),
        (KeyboardInterrupt(), 130, "interrupted; the same command starts anew"),
        (FileNotFoundError(2, "No such file or directory", "a/b.jpg"), 1, "a/b.jpg: No such file or directory"),
        (OSError("odd"), 1, "odd"),
        (MemoryError(), 1, "out of memory; use smaller images, a smaller batch or fewer --workers"),
        (typer.Exit(3), 3, ""),
        (typer.Abort(), 1, "aborted"),
    ],
)
def test_every_failure_has_its_exit_code_and_one_line(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(failing(error), ["--"]) == code
    assert capsys.readouterr().err == (f"error: {said}\n" if said else "")


@pytest.mark.parametrize(
    ("command", "what"),
    [
        ("train-cosa", "goes on from what was saved, if anything was"),
        ("run", "goes on from what was saved, if anything was"),
        ("data", "starts anew"),
    ],
)
def test_only_what_goes_on_after_an_interrupt_says_so(
    command: str, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    app = typer.Typer()
    app.callback()(lambda: None)  # or a single command would take no name

    @app.command(command)
    def interrupted() -> None:
        raise KeyboardInterrupt

    assert exit_code(typer.main.get_command(app), [command]) == 130
    assert capsys.readouterr().err == f"error: interrupted; the same command {what}\n"


@pytest.mark.parametrize("workers", ["0", "2"])
def test_terminate_is_answered_as_ctrl_c_is(workers: str, synthetic_root: Path, tmp_path: Path) -> None:
    words = f"train-cam --root {synthetic_root} --backbone test_vit --no-pretrained --device cpu --epochs 1000"
    out = tmp_path / "x.h5"
    line = [*PROGRAM, *words.split(), "--workers", workers, "--crop", "64", "--save-every", "1", "--out", str(out)]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 120
    while not out.with_name("x.h5.training").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert said.splitlines()[-1] == "error: terminated; the same command goes on from what was saved, if anything was"
    assert "Traceback" not in said
    assert process.returncode == 143


def test_of_torchruns_processes_the_first_says_what_all_have_met(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        ["train-cam", "--root", str(tmp_path / "no"), "--out", str(tmp_path / "x.h5")],
        ["train-cam", "--no-such-flag"],
        ["train-cosa", "--root", str(tmp_path), "--out", str(tmp_path / "x.h5"), "--low", "0.9"],
    ]
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, said in (("0", 1), ("1", 0)):
        monkeypatch.setenv("RANK", rank)
        for line in lines:
            assert main(line) == 2
            assert capsys.readouterr().err.count("error: ") == said


def test_what_one_of_torchruns_processes_may_have_met_alone_it_says_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    error = DatasetError("image x is corrupt")
    error.alone = True
    for failure, code in ((error, 2), (OSError("odd"), 1), (KeyboardInterrupt(), 130)):
        assert exit_code(failing(failure), ["--"]) == code
        assert capsys.readouterr().err.startswith("error: ")


def test_a_bug_keeps_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(failing(ZeroDivisionError("division by zero")), ["--"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert any("raise error" in line for line in lines)
    said = "error: ZeroDivisionError: division by zero; this is a bug in pseudolabel, please report the lines above"
    assert lines[-1] == said


@pytest.mark.parametrize("words", ["--help", "data synth --help"])
def test_a_reader_that_leaves_is_no_error(words: str) -> None:
    process = subprocess.Popen([*PROGRAM, *words.split()], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    _, said = process.communicate(timeout=30)
    assert said == b""
    assert process.returncode in (0, 1)


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_change_nothing_else(closed: str, cams: Path) -> None:
    line = f"{shlex.join([*PROGRAM, *fixed(cams, '--quiet')])} {closed}"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert read_header(cams.with_name("threshold.h5")).kind == "thresholds"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""


def test_a_name_that_the_output_cannot_hold_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    error = UnicodeEncodeError("ascii", "a \u56f3", 2, 3, "ordinal not in range(128)")
    assert exit_code(failing(error), ["--"]) == 1
    said = r"error: '\u56f3' cannot be written as ascii; set PYTHONUTF8=1 or rename what holds it" + "\n"
    assert capsys.readouterr().err == said
