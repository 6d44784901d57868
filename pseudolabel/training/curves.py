"""What a training shows while it runs, in a folder beside its output: a CSV table, TensorBoard's files, and pictures.

The table has a row a step and a column for everything that was ever measured, in the order of first appearance; a cell
is empty where nothing was measured. Whatever is shown is on disk when the call returns, and a resumed training goes on
from a step: what was shown of later ones is cut, so that it leaves the table and the pictures of an uninterrupted one.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from pseudolabel.artefacts.atomic import is_unfinished, replacing, writing
from pseudolabel.artefacts.journal import WholeFile
from pseudolabel.data.palette import write_png
from pseudolabel.errors import InputError

TABLE = "curves.csv"
PICTURES = "pictures"


def log_folder(out: Path) -> Path:
    """Where the training of ``out`` keeps its curves."""
    return out.with_name(out.name + ".log")


class Curves:
    """Where a training's curves go. This one keeps nothing."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Show numbers.

        Args:
            step: From 1; calls for the same step add to its row, and none goes back.
            values: By name; NaN is what was not measured.

        Raises:
            PseudolabelError: They cannot be written.
        """

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """Show a picture.

        Args:
            step: From 1.
            name: What the file's name begins with.
            image: uint8 (H, W, 3), RGB.

        Raises:
            PseudolabelError: It cannot be written.
        """

    def histogram(self, step: int, name: str, counts: np.ndarray, edges: np.ndarray) -> None:
        """Show a histogram, in TensorBoard alone.

        Args:
            step: From 1.
            name: What it is of.
            counts: int (B,).
            edges: float (B + 1,), ascending.

        Raises:
            PseudolabelError: It cannot be written.
        """

    def close(self) -> None:
        """Show nothing more."""

    def __enter__(self) -> Curves:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class CurveWriter(Curves):
    """Curves that are kept: ``curves.csv``, ``pictures/NAME-STEP.png``, and events for TensorBoard.

    Args:
        folder: Made if need be.
        first: Steps that were done before; 0 removes what another training has left.

    Raises:
        InputError: The folder is a file, or its table is not of a training.
        PseudolabelError: It cannot be written.
    """

    def __init__(self, folder: Path, *, first: int = 0) -> None:
        from pseudolabel.training.events import EventFile  # only a training has to wait for TensorBoard's import

        if folder.is_file():
            raise InputError(
                f"{folder} is a file; a training keeps its curves in a folder of that name: "
                "move the file away, or choose another --out"
            )
        self._folder = folder
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for left in filter(is_unfinished, list(folder.rglob("*.new.partial"))):  # by a killed training
                left.unlink()
            self._table = _Table(folder / TABLE, first)
            for path in (folder / PICTURES).glob("*-" + "[0-9]" * 6 + ".png"):
                if int(path.stem[-6:]) > first:
                    path.unlink()
            self._events = EventFile(folder, first=first)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """As ``Curves.scalars``."""
        measured = {name: float(value) for name, value in values.items() if not math.isnan(value)}
        with writing(self._folder):
            self._table.add(step, measured)
            self._events.scalars(step, measured)

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """As ``Curves.picture``."""
        path = self._folder / PICTURES / f"{name}-{step:06d}.png"
        with writing(self._folder):
            write_png(path, Image.fromarray(image), compress_level=3)  # in half the time of the default, a tenth larger
            self._events.picture(step, name, path.read_bytes(), (image.shape[0], image.shape[1]))

    def histogram(self, step: int, name: str, counts: np.ndarray, edges: np.ndarray) -> None:
        """As ``Curves.histogram``."""
        with writing(self._folder):
            self._events.histogram(step, name, counts, edges)

    def close(self) -> None:
        """Close the files."""
        self._table.close()
        self._events.close()


class _Table:
    """The CSV table, of which only the last row can still change.

    Args:
        path: The file.
        first: Later rows are cut, and so are columns that nothing else is in.
    """

    def __init__(self, path: Path, first: int) -> None:
        self._path = path
        self._step = first
        self._row: dict[str, float] | None = None
        self._names: list[str] = []
        if not first:
            path.unlink(missing_ok=True)
        elif path.exists():
            rows = self._rows(first)
            header = next(rows)
            width = max((index for row in rows for index, cell in enumerate(row) if cell), default=0)
            self._names = header[1 : width + 1]  # whatever appeared later stands further to the right
        self._file = self._rebuilt()

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add to the last row if it is of this step, else begin a new one."""
        if self._row is None or step != self._step:
            if step <= self._step:
                raise ValueError(f"step {step} after step {self._step}")
            self._start = self._file.seek(0, 2)
            self._step, self._row = step, {}
        self._row |= values
        self._file.truncate(self._start)
        new = [name for name in values if name not in self._names]
        if new:
            self._names += new
            self._file.close()
            self._file = self._rebuilt()
            self._start = self._file.seek(0, 2)
        cells = [f"{self._row[name]:.7g}" if name in self._row else "" for name in self._names]
        self._file.write((",".join([str(step), *cells]) + "\n").encode())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _rebuilt(self) -> WholeFile:
        """The table anew, with the columns and up to the step that there are now, open for more rows."""
        with replacing(self._path) as raw, io.TextIOWrapper(raw, encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["step", *self._names])
            if self._path.exists():
                rows = self._rows(self._step)
                next(rows)
                padding = [""] * len(self._names)
                writer.writerows((row + padding)[: len(padding) + 1] for row in rows)
        return WholeFile(self._path, "a")

    def _rows(self, last: int) -> Iterator[list[str]]:
        """Header and rows up to a step; a line that has no end was being written when its training was killed."""
        with self._path.open(newline="", encoding="utf-8") as file:
            rows = csv.reader(line for line in file if line.endswith("\n"))
            try:
                header = next(rows, [])
                if header[:1] != ["step"]:
                    raise ValueError("no table of steps")
                yield header
                for row in rows:
                    if len(row) != len(header):
                        raise ValueError("a row of another length")
                    if int(row[0]) <= last:
                        yield row
            except (ValueError, csv.Error) as error:
                raise InputError(
                    f"{self._path} is not the table that a training wrote, which has a column 'step' and as many cells "
                    "in every row; move it away to go on without it, or pass --overwrite to start anew"
                ) from error
