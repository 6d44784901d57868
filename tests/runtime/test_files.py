"""Only regular files are opened, whatever has a file's name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pseudolabel.runtime.files import absolute, open_regular, read_regular, stands, what_stands
from tests.helpers.irregular import KINDS, put

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such files")


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_but_regular_files_is_opened(tmp_path: Path, kind: str) -> None:
    path = put(kind, tmp_path / "a")
    with pytest.raises(OSError, match=KINDS[kind]) as caught:
        read_regular(path)
    assert caught.value.strerror == KINDS[kind]
    assert stands(path)
    assert what_stands(path) == (
        "is a loop of symbolic links" if kind == "loop" else KINDS[kind].replace("it is", "is")
    )
    assert absolute(path).name == ("zero" if kind == "device" else "a")


def test_regular_files_and_links_to_them_are_opened(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("a")
    assert read_regular(tmp_path / "link") == b"12345"
    with open_regular(tmp_path / "a") as file:
        file.seek(2)
        assert file.read() == b"345"
    assert absolute(tmp_path / "link") == tmp_path / "a"


def test_folders_and_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        read_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "none")
    (tmp_path / "link").symlink_to("none")
    assert [stands(tmp_path / name) for name in (".", "none", "link")] == [True, False, True]
    assert what_stands(tmp_path) == "is a folder"
    assert what_stands(tmp_path / "none") == "does not exist"
    assert what_stands(tmp_path / "link") == "is a symbolic link to nothing"
