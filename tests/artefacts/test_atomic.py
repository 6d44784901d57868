"""What is replaced and what is not: links, FIFOs and files of others under the names that are written."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from PIL import Image

from pseudolabel.artefacts import MapsWriter, check_output, read_header
from pseudolabel.artefacts.atomic import Staging, new_folder, replacing
from pseudolabel.artefacts.journal import MAGIC, Journal
from pseudolabel.data.palette import write_png
from pseudolabel.errors import InputError
from tests.helpers import kinds as kinds


def lay(kind: str, path: Path) -> str:
    """Lay something that is no regular file under a name; returns what errors call it."""
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as there:
            os.chdir(path.parent)  # a socket's whole name must be short
            there.bind(path.name)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/null")
    else:
        path.symlink_to(path.name if kind == "loop" else "nothing")
    return {"loop": "a link that leads nowhere", "dangling": "a link that leads nowhere"}.get(kind, f"a {kind}")


KINDS = ("FIFO", "socket", "folder", "device", "loop", "dangling")


@pytest.mark.parametrize("kind", KINDS)
def test_only_regular_files_are_replaced(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.h5"
    what = lay(kind, path)
    before = path.lstat()
    said = f"{path} is {what} and will not be replaced; choose another --out"
    for replace in (
        lambda: check_output(path, overwrite=True),
        lambda: write_png(path, Image.new("L", (2, 2))),
        lambda: kinds.make("cams", path),
    ):
        with pytest.raises(InputError) as caught:
            replace()
        assert str(caught.value) == said
    assert path.lstat() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_to_a_file_is_replaced_and_its_target_is_not(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    (tmp_path / "x").symlink_to("mine")
    with replacing(tmp_path / "x") as file:
        file.write(b"new")
    assert [(tmp_path / name).read_bytes() for name in ("mine", "x")] == [b"mine", b"new"]


@pytest.mark.parametrize("kind", [*KINDS, "link"])
def test_what_is_no_folder_does_not_become_one(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    if kind == "link":
        (tmp_path / "other").mkdir()
        out.symlink_to("other")
    else:
        lay(kind, out)
    if kind == "folder":
        with new_folder(out):
            pass
        return
    said = rf"^{out} is a .* and will not be replaced; choose another --out$"
    with pytest.raises(InputError, match=said), new_folder(out):
        pass
    if kind != "link":
        with pytest.raises(InputError, match=rf"^{out} is a .*; wanted a folder to write to: choose another --out$"):
            Staging(out, fresh=True)


def test_a_planted_link_among_the_staged_files_is_no_way_out(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/a.txt").write_bytes(b"mine")
    (tmp_path / "out/pictures.partial").symlink_to(tmp_path / "victim")
    with pytest.raises(InputError, match=r"pictures\.partial is a link; wanted a folder to write to"):
        Staging(tmp_path / "out", fresh=True)
    assert (tmp_path / "victim/a.txt").read_bytes() == b"mine"


def test_links_under_the_old_names_of_unfinished_files_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    for name in ("x.h5.new.partial", "m.png.partial", "x.h5.0123abcd.new.partial"):
        (tmp_path / name).symlink_to("mine")
    kinds.make("cams", tmp_path / "x.h5")
    write_png(tmp_path / "m.png", Image.new("L", (2, 2)))
    assert (tmp_path / "mine").read_bytes() == b"mine"
    assert (tmp_path / "x.h5.0123abcd.new.partial").is_symlink()


def test_what_a_killed_run_left_is_removed_and_what_is_being_written_is_not(tmp_path: Path) -> None:
    left, mine = tmp_path / "x[1].h5.0123abcd.new.partial", tmp_path / "x[1].h5.notes.new.partial"
    left.write_bytes(b"half")
    mine.write_bytes(b"mine")
    with (tmp_path / "x[1].h5.89abcdef.new.partial").open("wb") as other:
        import fcntl

        fcntl.flock(other, fcntl.LOCK_EX)
        kinds.make("cams", tmp_path / "x[1].h5")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "x[1].h5",
        "x[1].h5.89abcdef.new.partial",
        "x[1].h5.notes.new.partial",
    ]


@pytest.mark.parametrize("kind", [*KINDS, "link", "file"])
@pytest.mark.parametrize("overwrite", [True, False])
def test_a_partial_file_that_is_not_ours_stays(
    kind: str, overwrite: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.h5.partial"
    (tmp_path / "mine").write_bytes(MAGIC + b"more")
    if kind == "file":
        path.write_bytes(b"something else")
        what = "a file of something else"
    elif kind == "link":
        path.symlink_to("mine")
        what = "a link"
    else:
        what = lay(kind, path)
        what = "a link" if path.is_symlink() else what
    with pytest.raises(InputError) as caught:
        MapsWriter(tmp_path / "x.h5", kinds.header("cams"), kinds.IMAGES, dtype="float16", overwrite=overwrite)
    where = "where the unfinished output would be kept; move it away, or choose another --out"
    assert str(caught.value) == f"{path} is {what}, {where}"
    assert (tmp_path / "mine").read_bytes() == MAGIC + b"more"
    assert kind != "file" or path.read_bytes() == b"something else"


@pytest.mark.parametrize("found", [b"", MAGIC[:5], b"pseudolabel journal 0\nolder"])
def test_a_journal_cut_at_its_beginning_or_of_another_version_is_begun_anew(found: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.partial").write_bytes(found)
    with Journal(tmp_path / "x.partial") as journal:
        assert len(journal) == 0
        journal.append({})
    assert (tmp_path / "x.partial").read_bytes().startswith(MAGIC)


def failing(out: Path, *, committed: bool) -> None:
    """Write a map, and then meet an error of the input."""
    with MapsWriter(out, kinds.header("cams"), kinds.IMAGES, dtype="float16") as writer:
        writer.add(0, {})
        if committed:
            writer.commit()
        raise InputError("no such image")


def test_after_an_error_of_the_input_nothing_is_left_but_what_can_be_gone_on_from(tmp_path: Path) -> None:
    out = tmp_path / "x.h5"
    for committed, left in ((False, []), (True, ["x.h5.partial"])):
        with pytest.raises(InputError, match="no such image"):
            failing(out, committed=committed)
        assert [path.name for path in tmp_path.iterdir()] == left
    with MapsWriter(out, kinds.header("cams"), kinds.IMAGES, dtype="float16") as writer:
        assert writer.done == 1
    assert read_header(out).kind == "cams"
