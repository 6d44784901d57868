"""Artefacts being written: never half-written under their own name, kills and full disks survived."""

from __future__ import annotations

import fcntl
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pseudolabel.artefacts import (
    Images,
    Input,
    MapsWriter,
    StalePartialError,
    check_output,
    partial_path,
    read_header,
)
from pseudolabel.artefacts.journal import Journal
from pseudolabel.errors import InputError
from pseudolabel.options import build_options
from tests.helpers import kinds as kinds


@pytest.fixture
def cams(tmp_path: Path) -> Path:
    return kinds.make("cams", tmp_path / "cams.h5")


def test_a_finished_artefact_is_only_replaced_when_asked(cams: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        check_output(cams, overwrite=False)
    assert str(caught.value) == f"{cams} exists already; pass --overwrite to replace it, or another --out"
    check_output(tmp_path / "new" / "folder" / "x.h5", overwrite=False)
    assert not (tmp_path / "new").exists()  # it comes with the first thing to keep


def test_a_file_of_the_users_is_not_replaced_even_when_asked(cams: Path, tmp_path: Path) -> None:
    table = tmp_path / "tags.csv"
    table.write_text("id,class\n")
    with pytest.raises(InputError) as caught:
        check_output(table, overwrite=True)
    assert str(caught.value) == f"{table} is no output of pseudolabel and will not be replaced; choose another --out"
    check_output(cams, overwrite=True)
    check_output(cams.rename(tmp_path / "cams"), overwrite=True)  # an artefact by another name
    cams.write_text("damaged")
    check_output(cams, overwrite=True)


def begin(out: Path, count: int, *, seed: int = 0, **changes: object) -> MapsWriter:
    """A writer that has added the first images' maps and committed them."""
    options = build_options("make-cams", {"checkpoint": "cam.h5", "out": out, "seed": seed}).resolved()
    writer = MapsWriter(out, kinds.header("cams", options=options, **changes), kinds.IMAGES, dtype="float16")
    for index in range(count):
        writer.add(index, kinds.MAPS["cams"][index])
    writer.commit()
    writer._journal.close()
    return writer


def test_work_begun_with_other_options_is_refused_and_the_option_named(tmp_path: Path) -> None:
    out = tmp_path / "x.h5"
    begin(out, 1)
    hint = "pass --overwrite to start anew, or another --out"
    with pytest.raises(StalePartialError) as caught:
        begin(out, 1, seed=4)
    assert str(caught.value) == f"{out}.partial was begun with another --seed (0, now 4); {hint}"
    with pytest.raises(StalePartialError) as caught:
        begin(out, 1, inputs=(Input("dataset", "/data/voc", "cd" * 32),))
    assert str(caught.value) == f"{out}.partial was begun with another input (dataset differ by digest); {hint}"
    assert begin(out, 0).done == 1


def test_work_begun_on_other_images_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "x.h5"
    begin(out, 1)
    options = build_options("make-cams", {"checkpoint": "cam.h5", "out": out}).resolved()
    images = Images(kinds.IMAGES.ids[:2], kinds.IMAGES.heights[:2], kinds.IMAGES.widths[:2])
    with pytest.raises(StalePartialError, match="was begun with another list of images"):
        MapsWriter(out, kinds.header("cams", options=options), images, dtype="float16")


def test_a_moved_input_is_no_change(tmp_path: Path) -> None:
    out = tmp_path / "x.h5"
    begin(out, 2)
    assert begin(out, 0, inputs=(Input("dataset", "/moved/voc", "ab" * 32),)).done == 2


def test_overwriting_forgets_the_half_finished_work(tmp_path: Path) -> None:
    out = tmp_path / "x.h5"
    begin(out, 2)
    writer = MapsWriter(out, kinds.header("cams"), kinds.IMAGES, dtype="float16", overwrite=True)
    assert writer.done == 0


def test_two_runs_cannot_write_the_same_artefact(tmp_path: Path) -> None:
    out = tmp_path / "x.h5"
    first = MapsWriter(out, kinds.header("cams"), kinds.IMAGES, dtype="float16")
    with pytest.raises(InputError) as caught:
        MapsWriter(out, kinds.header("cams"), kinds.IMAGES, dtype="float16")
    assert str(caught.value) == f"{out}.partial is being written by another run; wait for it, or choose another --out"
    assert first.done == 0


def test_many_writers_at_once_leave_what_one_does(uninterrupted: str, tmp_path: Path) -> None:
    out = tmp_path / "x.h5"
    writers = [write_in_process(out) for _ in range(4)]
    said = [writer.communicate(timeout=120)[1].strip().rpartition("\n")[2] for writer in writers]
    codes = [writer.returncode for writer in writers]
    assert codes.count(0) >= 1
    for code, line in zip(codes, said, strict=True):
        refused = (
            f"{out}.partial is being written by another run; wait for it, or choose another --out",
            f"{out} exists already; pass --overwrite to replace it, or another --out",
        )
        assert code == 0 or line.removeprefix("pseudolabel.errors.InputError: ") in refused
    assert read_header(out).digest == uninterrupted
    assert [path.name for path in tmp_path.iterdir()] == ["x.h5"]


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_record_that_was_cut_short_is_dropped(cut: int, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "x.partial")
    for number in range(3):
        journal.append({"number": number}, [b"some bytes", b""])
    journal.close()
    os.truncate(tmp_path / "x.partial", (tmp_path / "x.partial").stat().st_size - cut)
    journal = Journal(tmp_path / "x.partial")
    assert list(journal.records()) == [({"number": n}, [b"some bytes", b""]) for n in range(2)]
    journal.append({"number": "again"})
    assert journal.record(2) == ({"number": "again"}, [])


def test_a_damaged_last_record_is_dropped_and_an_earlier_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.partial"
    journal = Journal(path)
    ends = []
    for number in range(3):
        journal.append({"number": number}, [b"0123456789"])
        ends.append(path.stat().st_size)
    journal.close()
    with path.open("rb+") as handle:
        for end in (ends[0], ends[2]):
            handle.seek(end - 4)
            handle.write(b"?")
    journal = Journal(path)
    assert len(journal) == 2
    with pytest.raises(InputError, match="is damaged at byte 22; pass --overwrite to start anew"):
        journal.record(0)


WRITER = """
import sys, time
from pathlib import Path
import numpy as np
from pseudolabel.artefacts import Images, MapsWriter
sys.path.insert(0, {tests!r})
from tests.helpers import kinds as kinds

sizes = np.full(3000, 60, np.int32)
images = Images(tuple(map(str, range(3000))), sizes, sizes)
options = dict(checkpoint="cam.h5", seed=0)
with MapsWriter(Path(sys.argv[1]), kinds.header("cams", options=options), images, dtype="float16") as writer:
    print(writer.done, flush=True)
    for index in range(writer.done, 3000):
        rng = np.random.default_rng(index)
        writer.add(index, {{1: rng.random((30, 30)), 2: rng.random((20, 21)) > 0.5}})
"""


def write_in_process(out: Path, **how: object) -> subprocess.Popen[str]:
    code = WRITER.format(tests=str(Path(__file__).parents[2]))
    command = [sys.executable, "-c", code, str(out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how)  # type: ignore[call-overload]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("uninterrupted") / "x.h5"
    assert write_in_process(out).wait(60) == 0
    return read_header(out).digest


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_goes_on_and_ends_with_the_same_digest(
    kill: signal.Signals, uninterrupted: str, tmp_path: Path
) -> None:
    """Kills at any moment: while values are made, while a record is written, while the HDF5 file is finished."""
    out, begun, rng = tmp_path / "x.h5", [], random.Random(int(kill))
    while not out.exists():
        process = write_in_process(out)
        begun.append(int(process.stdout.readline()))  # type: ignore[union-attr]
        longer = 1 + len(begun) / 10  # a busy machine may take long to finish the file
        time.sleep(rng.uniform(0.02, 0.1) if len(begun) < 4 else longer * rng.uniform(0.1, 0.5))
        process.send_signal(kill)
        process.communicate(timeout=60)
        assert len(begun) < 100
    assert begun == sorted(begun)  # nothing that was committed is lost
    assert len(begun) >= 2  # it was killed at least once; how often depends on the machine
    assert read_header(out).digest == uninterrupted
    assert [file.name for file in tmp_path.iterdir() if not file.name.endswith(".new.partial")] == ["x.h5"]


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(uninterrupted: str, tmp_path: Path) -> None:
    """The limit on a file's size stands for a disk that fills up while the artefact grows."""
    out = kinds.make("cams", tmp_path / "x.h5")
    out.rename(tmp_path / "earlier.h5")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    process = write_in_process(out, preexec_fn=limit)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    last = said.strip().splitlines()[-1]
    assert last == (
        f"pseudolabel.errors.PseudolabelError: cannot write {out}.partial: File too large; "
        "free some space or choose another --out, and run again"
    )
    assert not out.exists()
    read_header(tmp_path / "earlier.h5")
    assert write_in_process(out).wait(60) == 0
    assert read_header(out).digest == uninterrupted


FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
from pseudolabel.artefacts import write_artefact
from pseudolabel.artefacts.header import CostMeter
sys.path.insert(0, {tests!r})
from tests.helpers import kinds as kinds

resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
weights = np.random.default_rng(0).random(1_000_000)
write_artefact(Path(sys.argv[1]), kinds.header("checkpoint"), {{"weights/w": weights}}, CostMeter())
"""


def test_a_full_disk_leaves_the_earlier_artefact_untouched(tmp_path: Path) -> None:
    out = kinds.make("checkpoint", tmp_path / "x.h5")
    before = out.read_bytes()
    code = FULL_DISK.format(tests=str(Path(__file__).parents[2]))
    done = subprocess.run([sys.executable, "-c", code, str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"PseudolabelError: cannot write {out}: File too large; free some space" in done.stderr
    assert out.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["x.h5"]


def test_a_folder_that_may_not_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError) as caught:
        check_output(tmp_path / "file" / "x.h5", overwrite=False)
    assert (
        str(caught.value) == f"{tmp_path}/file/x.h5 cannot be written: {tmp_path}/file is a file; choose another --out"
    )


def test_an_error_inside_the_block_leaves_no_artefact(tmp_path: Path) -> None:
    out = tmp_path / "x.h5"
    with pytest.raises(ZeroDivisionError), MapsWriter(out, kinds.header("cams"), kinds.IMAGES, dtype="float16"):
        raise ZeroDivisionError
    assert [file.name for file in tmp_path.iterdir()] == ["x.h5.partial"]
    with partial_path(out).open("rb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # and the journal is free for the next run
