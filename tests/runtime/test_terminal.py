"""What a terminal would obey is shown as an escape."""

from __future__ import annotations

import json
import sys
from io import StringIO
from pathlib import Path

import pytest
from PIL import Image
from rich.table import Table
from rich.text import Text

from pseudolabel.cli.app import main
from pseudolabel.runtime.progress import Progress, RichProgress
from pseudolabel.runtime.terminal import printable, printable_json, printable_line, printing_console

PLAIN = "K\u00e4fer \u56fe \u05d0\u05d1 \U0001f431\u200d\U0001f4bb\ta\nb"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\rb\x08\x7f", r"a\rb\x08\x7f"),
        ("\x9b31m", r"\x9b31m"),
        ("gpj.\u202ecod", r"gpj.\u202ecod"),
        ("\u2066a\u2069\u200f", r"\u2066a\u2069\u200f"),
        ("a\u2028b\ufeff", r"a\u2028b\ufeff"),
        ("\udcff\U000e0041", r"\udcff\U000e0041"),
        (PLAIN, PLAIN),
    ],
)  # fmt: skip
def test_what_a_terminal_obeys_is_escaped_and_nothing_else(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown
    assert json.loads(printable_json(json.dumps([text], ensure_ascii=False))) == [text]


def test_tables_keep_their_styles_and_escape_their_cells() -> None:
    table = Table("name\x1b[2J", title="\x1b[31mtitle")
    table.add_row(Text("cat\x1b[2J", style="bold"))
    out = StringIO()
    printing_console(file=out, force_terminal=True, width=80, color_system="standard").print(table)
    assert r"cat\x1b" in out.getvalue()
    assert "\x1b[2J" not in out.getvalue()
    assert "\x1b[31m" not in out.getvalue()
    assert "\x1b[1m" in out.getvalue()


def test_warnings_and_errors_are_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Progress().warn("skipped: a\x1b[2J.jpg")
    RichProgress().warn("skipped: a\x1b[2J.jpg")
    RichProgress().log("look at a\x1b[2J.jpg")
    path = tmp_path / "no\x1b[2J\u202e.h5"
    assert main(["inspect", str(path)]) == 2
    assert main(["inspect", "--no\x1b[2J"]) == 2
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert said.splitlines()[:3] == [
        r"warning: skipped: a\x1b[2J.jpg",
        r"warning: skipped: a\x1b[2J.jpg",
        r"look at a\x1b[2J.jpg",
    ]
    assert said.splitlines()[3].startswith(rf"error: {tmp_path}/no\x1b[2J\u202e.h5 does not exist; ")


def test_ids_and_classes_of_a_data_set_are_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a\x1b[2J.png").write_bytes(b"no image")
    (tmp_path / "tags.csv").write_text("id,tags\na\x1b[2J,cat\x1b[31m\n")
    for more in ([], ["--json"]):
        main(["data", "check", "--dataset", "folder", "--root", str(tmp_path), *more])
        shown = capsys.readouterr()
        assert "\x1b" not in shown.out + shown.err
        assert "a\\" in shown.out + shown.err


@pytest.mark.skipif(sys.platform == "win32", reason="names of files hold no control characters there")
def test_a_bug_shows_its_traceback_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    from tests.cli.test_failures import exit_code, failing

    assert exit_code(failing(ZeroDivisionError("\x1b[2J")), ["--"]) == 1
    assert "\x1b" not in capsys.readouterr().err


def test_a_message_is_one_line_of_a_length_that_can_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert printable_line("a\n b\x1b") == r"a b\x1b"
    assert printable_line("a" * 4000) == "a" * 4000
    assert printable_line("a" * 4001 + "b") == "a" * 2000 + " ... " + "a" * 999 + "b"
    (tmp_path / "images").mkdir()
    Image.new("RGB", (3, 2)).save(tmp_path / "images/a.png")
    (tmp_path / "tags.csv").write_text(f"id,tags\na,cat\n{'b' * 100_000},cat\n")
    assert main(["data", "check", "--dataset", "folder", "--root", str(tmp_path), "--workers", "0"]) == 2
    assert len(capsys.readouterr().out.splitlines()[0]) == 3005
    assert main(["data", "tags", "--dataset", "folder", "--root", str(tmp_path)]) == 2
    assert len(capsys.readouterr().err) == len("error: ") + 3005 + 1
