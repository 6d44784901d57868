"""What reads a data set with label files in a process of its own: ``data check``, and what a training would read."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import select
import signal
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pseudolabel.artefacts import read_header
from pseudolabel.cli.app import main
from pseudolabel.data.check import has_truth
from pseudolabel.data.images import image_size, read_image
from pseudolabel.data.opening import load_dataset
from pseudolabel.data.weak.labels import load_weak_labels
from pseudolabel.errors import InputError, PseudolabelError
from pseudolabel.options.data import DataCheckOptions
from tests.fuzz.label_sets import FORMATS, words

SECONDS = 20


def use(line: list[str]) -> str:
    """A digest of all that a training or an evaluation would read of the data set that ``data check`` was given."""
    dataset = load_dataset(DataCheckOptions.model_validate(_options(line)).model_dump())
    digest = hashlib.sha256(repr((dataset.classes, dataset.oracle)).encode(errors="surrogatepass"))
    for record in dataset.records:
        digest.update(repr((record.id, record.tags)).encode(errors="surrogatepass"))
        digest.update(read_image(record.image, record.decoding).tobytes())
        weak = load_weak_labels(record, image_size(record.image), dataset.classes)
        boxes = [box[:5] for box in weak.boxes]
        digest.update(weak.labels.tobytes() + repr(([point[:3] for point in weak.points], boxes)).encode())
        if has_truth(record, dataset.read_mask):
            digest.update(dataset.read_mask(record).tobytes())
    return digest.hexdigest()


def _options(line: list[str]) -> dict[str, Any]:
    pairs = [word for word in line[2:] if word != "--json"]
    found: dict[str, Any] = {
        name.removeprefix("--").replace("-", "_"): value for name, value in zip(pairs[::2], pairs[1::2], strict=True)
    }
    for name in ("mask_values", "ignore_value"):
        if name in found:
            found[name] = found[name].split(",")
    return found


def _read(line: list[str], folder: Path) -> dict[str, Any]:
    """What the command says of a data set, and what its use comes to, in a process that does nothing else."""
    code = main(line)
    sys.stdout.flush()
    sys.stderr.flush()
    found: dict[str, Any] = {"code": code, "use": "", "result": ""}
    if line[0] != "data":
        found["result"] = read_header(folder / "out.h5").digest if code == 0 else ""
        return found
    try:
        found["result"] = use(line)
    except PseudolabelError as error:
        found["use"] = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
    return found


def _in_child(line: list[str], folder: Path, connection: int) -> None:
    """The child's whole life: no output of it, and no error, leaves it but in files and over the pipe."""
    for number, name in ((1, "said.out"), (2, "said.err")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.chdir(folder / "home")
    found: dict[str, Any]
    try:
        found = _read(line, folder)
    except BaseException as error:  # noqa: BLE001 - what is not refused in one line is what is looked for
        found = {"code": 1, "use": "", "result": "", "raised": f"{type(error).__name__}: {error}"[:500]}
    os.write(connection, json.dumps({**found, "use": found["use"][:300]}).encode())
    os._exit(0)


def read(line: list[str], folder: Path) -> dict[str, Any]:
    """Run a command in a child and use what it has checked.

    Returns:
        ``code``, also ``crash`` or ``time``; ``said`` on standard error; ``shown`` on standard output; ``use``: the
        error of the use; ``result``: its digest; ``raised``: an exception that nobody refused; ``peak`` in bytes;
        ``seconds``.
    """
    start = time.perf_counter()
    mine, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(mine)
        _in_child(line, folder, theirs)
    os.close(theirs)
    in_time, _, _ = select.select([mine], [], [], SECONDS)
    raw = os.read(mine, 1 << 15) if in_time else b""
    os.close(mine)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    usage = os.wait4(child, 0)[2]
    found = json.loads(raw) if raw else {"code": "crash" if in_time else "time", "use": "", "result": ""}
    seconds = time.perf_counter() - start
    said, shown = ((folder / name).read_text(errors="backslashreplace") for name in ("said.err", "said.out"))
    return {"raised": "", **found, "said": said, "shown": shown, "peak": usage.ru_maxrss * 1024, "seconds": seconds}


def serve(connection: Connection, folder: Path) -> None:
    """Answer command lines with what ``read`` finds."""
    os.environ |= {"HOME": str(folder / "home"), "TMPDIR": str(folder / "home"), "NO_COLOR": "1", "COLUMNS": "200"}
    tempfile.tempdir = None
    for name in ("points, CSV", "COCO instances", "CAM dump"):  # what they import, the children then have
        form, nothing = FORMATS[name], io.StringIO()
        with contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
            _read(words(form, folder / "bases" / form.base, folder / "out.h5"), folder)
    while True:
        connection.send(read(connection.recv(), folder))
