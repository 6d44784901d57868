"""Help as it is read: in a terminal of 80 columns, what is changed first on top, what is rarely changed last."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
import typer

from pseudolabel.cli.app import app, main
from pseudolabel.cli.help import PANELS
from pseudolabel.options import STAGES

GROUP: Any = typer.main.get_command(app)
WORDS = [(name,) for name in GROUP.list_commands(None)] + [("data", name) for name in GROUP.commands["data"].commands]


def _command(words: tuple[str, ...]) -> Any:
    command = GROUP
    for word in words:
        command = command.commands[word]
    return command


def _lines(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*words, "--help"]) == 0
    return capsys.readouterr().out.splitlines()


def _texts(lines: list[str]) -> list[list[str]]:
    """The help texts as they stand, line by line, each line with the column that it begins in."""
    rows: list[list[str]] = []
    for line in lines:
        row = re.match(r"  (\S.*?)?( {2,})(\S.*)$", line)
        if row is None:
            rows.append([])  # a heading, an empty line, or a name on a line of its own
        elif row[1] is None and rows[-1]:
            rows[-1].append(line)
        else:
            rows.append([" " * row.start(3) + row[3]])
    return [row for row in rows if row]


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_texts_are_at_least_40_characters_wide_at_80_columns(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = _lines(words, monkeypatch, capsys)
    rows = _texts(lines[: next((n for n, line in enumerate(lines) if line.startswith("Example:")), len(lines))])
    assert len(rows) >= 1
    for row in rows:
        (begin,) = {len(line) - len(line.lstrip()) for line in row}
        assert all(len(line) <= 80 for line in row)
        for line, after in itertools.pairwise(row):
            # What stands on the next line, a default or a bound as one piece, would not have fitted into 40 characters.
            piece = re.match(r"(\(?(default:|[<>]=?) )?\S+", after.lstrip())
            assert piece is not None
            assert len(line) - begin + 1 + len(piece[0]) > 40, line
            assert not line.endswith(("default:", ">", ">=", "<", "<="))


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_no_parameter_is_missing(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = _lines(words, monkeypatch, capsys)
    named = {name for line in lines if line.startswith("  ") for name in re.split(r"[ ,/]+", line[2:].split("   ")[0])}
    for parameter in _command(words).params:
        argument = parameter.param_type_name == "argument"
        assert {parameter.metavar} if argument else {*parameter.opts, *parameter.secondary_opts} <= named


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_panels_are_in_order_and_the_rare_one_is_last(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [line[:-1] for line in _lines(words, monkeypatch, capsys) if re.match(r"\S.*:$", line)]
    assert found == [name for name in ("Arguments", "Options", *PANELS.values(), "Commands") if name in found]
    assert (found[-1] == "Rarely changed") == any(
        getattr(parameter, "rich_help_panel", None) == "Rarely changed" for parameter in _command(words).params
    )
    if words[0] in STAGES and words[0].startswith("train-"):
        assert found[-1] == "Rarely changed"


def test_what_is_changed_first_leads_its_panel(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [line.split()[0] for line in _lines(("train-cosa",), monkeypatch, capsys) if line.startswith("  --")]
    assert flags[:4] == ["--dataset", "--root", "--split", "--out"]
    settings = flags.index("--backbone")
    assert flags[settings : settings + 5] == ["--backbone", "--epochs", "--batch-size", "--learning-rate", "--crop"]
    assert flags.index("--queue") > flags.index("--seed") > flags.index("--c2s")


def test_the_text_grows_with_the_terminal_up_to_100_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    widest = {}
    for columns in (60, 80, 100, 200):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert main(["train-cosa", "--help"]) == 0
        lines = capsys.readouterr().out.splitlines()
        widest[columns] = max(len(line) for line in lines if line.startswith(" " * 28))
    assert 50 < widest[60] <= 60 < widest[80] <= 80 < widest[100] == widest[200] <= 100
