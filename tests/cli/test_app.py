"""The command line: generated from the settings, results on stdout, quick to start, completion."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
import typer

from pseudolabel import __version__
from pseudolabel.artefacts import read_header
from pseudolabel.cli import catalogue
from pseudolabel.cli.app import app, main
from pseudolabel.cli.failures import exit_code
from pseudolabel.options import STAGES, build_options
from pseudolabel.options.fields import as_word, default_of, flag_of, is_positional, type_of
from pseudolabel.runtime.formatting import counted, duration, part_of_all, percent, short, size
from tests.helpers import kinds as kinds
from tests.helpers.cli import fixed, program

COMMANDS = [*STAGES, "run", "compare", "report", "inspect", "export-model", "demo", "data"]
ENTRIES = catalogue.STAGES | catalogue.RUNS | {f"data {name}": entry for name, entry in catalogue.DATA.items()}


@pytest.fixture
def cams(tmp_path: Path) -> Path:
    return kinds.make("cams", tmp_path / "cams.h5")


# Help


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    return {command: program(command, "--help").stdout for command in COMMANDS}


def test_the_overview_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert main([]) == 0
    assert capsys.readouterr().out == shown
    for command in COMMANDS:
        assert re.search(rf"^  {command} ", shown, re.MULTILINE), command


def test_a_group_without_a_command_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "--help"]) == 0
    shown = capsys.readouterr()
    assert main(["data"]) == 0
    assert capsys.readouterr() == shown
    assert shown.err == ""


def test_the_overview_gives_every_command_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for words, panels in ([], ["Stages", "Runs"]), (["data"], ["Commands"]):
        assert main([*words, "--help"]) == 0
        lines = capsys.readouterr().out.splitlines()
        for panel in panels:
            section = lines[lines.index(f"{panel}:") + 1 :]
            section = section[: section.index("") if "" in section else None]
            entries = getattr(catalogue, panel.replace("Commands", "Data").upper())
            groups = catalogue.GROUPS if panel == "Runs" else {}
            wanted = {name: entry.line for name, entry in entries.items()} | groups
            assert [line.split(maxsplit=1) for line in section] == [[name, text] for name, text in wanted.items()]


def test_the_catalogue_is_about_the_commands_that_there_are() -> None:
    assert list(catalogue.STAGES) == list(STAGES)
    for name, entry in ENTRIES.items():
        assert entry.text.endswith(".")
        assert entry.line.endswith(".")
        assert len(entry.line) <= 50
        assert len(entry.text) < 160
        assert entry.example.startswith(f"pseudolabel {name} ")


@pytest.mark.parametrize("stage", list(STAGES))
def test_help_shows_every_setting_with_range_choices_and_default(stage: str, helps: dict[str, str]) -> None:
    shown = " ".join(helps[stage].split())
    model = STAGES[stage]
    assert ENTRIES[stage].text in shown
    for name in model.model_fields:
        kind, bounds = type_of(model, name)
        flag = name.upper() if is_positional(model, name) else f"--{flag_of(name)}"
        assert f" {flag} " in shown, name
        if kind is bool:
            assert f" --no-{flag[2:]} " in shown
        if default_of(model, name) is ...:
            assert "required" in shown
        elif default_of(model, name) not in (None, ()) and not bounds:
            assert f"default: {as_word(default_of(model, name))})" in shown, name
        if "Literal" in str(get_origin(kind)):
            assert all(as_word(choice) in shown for choice in get_args(kind))
    for flag in ("--config", "--set", "--json", "--quiet", "--traceback"):
        assert f" {flag} " in shown


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "data"])
def test_help_ends_with_a_runnable_example(command: str, helps: dict[str, str]) -> None:
    assert helps[command].strip().endswith(f"Example: {ENTRIES[command].example}")


@pytest.mark.parametrize("stage", list(STAGES))
def test_the_settings_of_every_example_are_valid(stage: str) -> None:
    """The parser takes the line as far as the settings, which are what it would run with."""
    words = shlex.split(ENTRIES[stage].example)
    assert words[:2] == ["pseudolabel", stage]
    command = typer.main.get_command(app).get_command(None, stage)  # type: ignore[attr-defined]
    given = command.make_context(stage, words[2:]).params
    known = {name: value for name, value in given.items() if name in STAGES[stage].model_fields and value is not None}
    build_options(stage, known)


def test_the_version() -> None:
    done = program("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"pseudolabel {__version__}\n", "")


def test_a_clone_that_hides_the_installed_package_says_so() -> None:
    command = [sys.executable, "-S", "-m", "pseudolabel", "--version"]  # -S: nothing is installed, not even as editable
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: the folder pseudolabel/ here hides the installed package; run this elsewhere, or pip install -e .\n"
    )


# Starting quickly


@pytest.mark.parametrize(
    "line", ["--help", "train-cam --help", "train-cam --epochs x", "data --help", "run --help", "report --help"]
)
def test_help_and_usage_errors_import_nothing_heavy(line: str) -> None:
    heavy = "torch", "numpy", "h5py", "PIL", "scipy", "yaml", "jinja2", "matplotlib", "rich", "multiprocessing"
    code = (
        "import sys; from pseudolabel.cli.app import main; "
        f"main({line.split()}); print([name for name in {heavy} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("line", "built"), [("--help", []), ("data --help", ["data"]), ("train-cam --help", ["train-cam"])]
)
def test_only_the_command_that_is_asked_for_is_built(line: str, built: list[str]) -> None:
    group: Any = typer.main.get_command(app)
    assert exit_code(group, line.split()) == 0
    assert list(group.commands._built) == built


# Settings


def test_flags_beat_set_which_beats_config_which_beats_defaults(cams: Path) -> None:
    config = cams.with_name("settings.yaml")
    config.write_text("value: 0.1\nlow: 0.05\nhigh: 0.9\nseed: 7\n")
    layered = ["--config", str(config), "--set", "value=0.2", "--set", "low=0.15"]
    assert main(fixed(cams, *layered, "--value", "0.3", "--quiet")) == 0
    options = read_header(cams.with_name("threshold.h5")).options
    assert (options["value"], options["low"], options["high"], options["seed"]) == (0.3, 0.15, 0.9, 7)
    assert options["minimum"] == 0.05


def test_a_switch_may_be_on_in_a_file_and_off_as_a_flag(cams: Path) -> None:
    config = cams.with_name("settings.yaml")
    config.write_text("overwrite: yes\n")
    words = fixed(cams, "--config", str(config), "--quiet")
    assert [main(words), main(words)] == [0, 0]
    assert main([*words, "--no-overwrite"]) == 2


def test_what_is_read_may_come_from_the_file_too(cams: Path) -> None:
    config = cams.with_name("settings.yaml")
    config.write_text(f"cams: {cams}\nmethod: fixed\nout: {cams.with_name('t.h5')}\n")
    assert main(["search-threshold", "--config", str(config), "--quiet"]) == 0
    assert cams.with_name("t.h5").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "valu: 0.1",
            "{config}: unknown option 'valu' (did you mean 'value'?); see 'pseudolabel search-threshold --help'",
        ),
        ("- 1", "{config} holds list, wanted 'key: value' lines"),
        ("value: 1\nvalue: 2", "{config}:2 is not valid YAML: key 'value' stands twice"),
        ("value: 7", "search-threshold: --value: should be less than or equal to 1, found 7"),
    ],
)
def test_mistakes_in_the_file(text: str, said: str, cams: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = cams.with_name("settings.yaml")
    config.write_text(text)
    assert main(fixed(cams, "--config", str(config))) == 2
    assert capsys.readouterr().err == f"error: {said.format(config=config)}\n"


def test_the_demo_knows_two_kinds_of_supervision(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--supervision", "masks", "--out", str(tmp_path / "demo")]) == 2
    said = "error: demo: --supervision: should be 'tags' or 'scribbles', found 'masks'\n"
    assert capsys.readouterr() == ("", said)
    assert not (tmp_path / "demo").exists()


# Results


def test_the_result_is_a_table_on_stdout(cams: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(fixed(cams, "--value", "0.25")) == 0
    shown = capsys.readouterr().out
    assert "search-threshold" in shown
    assert re.search(r"│ value\s+│ 0\.25\s+│", shown)


def test_the_result_is_one_json_document_on_request(cams: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(fixed(cams, "--json")) == 0
    result = json.loads(capsys.readouterr().out)
    assert next(iter(result)) == "out"
    assert result["out"] == str(cams.with_name("threshold.h5"))


def test_progress_is_on_stderr_and_quiet_means_none(cams: Path) -> None:
    done = program(*fixed(cams, "--json", "--quiet"))
    assert done.returncode == 0
    assert done.stderr == ""
    json.loads(done.stdout)


def test_things_are_counted() -> None:
    assert [counted(number, "epoch") for number in (0, 1, 12345)] == ["0 epochs", "1 epoch", "12345 epochs"]
    assert [counted(number, "epoch") for number in (1.0, 0.5, 2.0)] == ["1 epoch", "0.5 epochs", "2 epochs"]
    assert [part_of_all(3, others) for others in (0, 13)] == ["3", "3 of 16"]


def test_values_are_short() -> None:
    assert short(None) == "none"
    assert short(True) == "yes"
    assert short(0.123456) == "0.1235"
    assert short([1, 2]) == "1, 2"
    assert short(list(range(10))) == "0, 1, 2, 3, 4, 5 ... (10 in all)"
    assert short({"a": 1, "b": [2]}) == "a 1, b 2"
    assert short([]) == "none"
    assert percent(0.5) == "50.0"
    assert percent(None) == "-"
    assert [duration(s) for s in (None, 0.123, 5.04, 61, 3725)] == ["-", "0.12 s", "5.0 s", "1 min 01 s", "1 h 02 min"]
    assert [size(b) for b in (None, 12, 1500, 2_500_000, 3e9)] == ["-", "12 B", "1.5 kB", "2.5 MB", "3.0 GB"]


# Completion


def completed(line: str, shell: str = "bash") -> list[str]:
    words = shlex.split(line)
    count = len(words) if line.endswith(" ") else len(words) - 1
    environment = {
        "bash": {"COMP_WORDS": line, "COMP_CWORD": str(count)},
        "zsh": {"_TYPER_COMPLETE_ARGS": line},
        "fish": {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }[shell]
    done = program(_PSEUDOLABEL_COMPLETE=f"complete_{shell}", **environment)
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_completion_knows_commands_flags_and_choices() -> None:
    assert set(COMMANDS) <= set(completed("pseudolabel "))
    assert completed("pseudolabel refine") == ["refine-affinity", "refine-crf", "refine-par"]
    assert {"--pooling", "--pretrained"} <= set(completed("pseudolabel train-cam --p"))
    assert completed("pseudolabel train-cam --pooling ") == ["gap", "gmp", "none"]
    assert completed("pseudolabel refine-crf --preset to") == ["toco", "toco-labels"]
    assert completed("pseudolabel train-cam --output-stride ") == ["8", "16", "32", "none"]
    assert completed("pseudolabel make-cams --head m") == ["main", "mean"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion_speaks_other_shells(shell: str) -> None:
    assert "gmp" in "\n".join(completed("pseudolabel train-cam --pooling ", shell))


@pytest.mark.parametrize(
    ("shell", "file"), [("bash", ".bashrc"), ("zsh", ".zshrc"), ("fish", ".config/fish/completions")]
)
def test_completion_can_be_shown_and_installed(shell: str, file: str, tmp_path: Path) -> None:
    alone = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1", "HOME": str(tmp_path)}
    shown = program("--show-completion", shell, **alone)
    assert shown.returncode == 0
    assert "_PSEUDOLABEL_COMPLETE" in shown.stdout
    installed = program("--install-completion", shell, **alone)
    assert installed.returncode == 0
    assert (tmp_path / file).exists()
