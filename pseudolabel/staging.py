"""Files that appear in a folder together, at the end, so that a failed run leaves the folder as it was."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from pseudolabel.artefacts.store import writing

STAGED = "pictures.partial"
"""Name of the folder, inside the one that is written, where files wait until all are complete."""


class Staging:
    """The files to be of one folder.

    Args:
        folder: Where the files will appear.
        fresh: Forget what an interrupted run has left.
    """

    def __init__(self, folder: Path, *, fresh: bool) -> None:
        self._folder = folder
        self._waiting = folder / STAGED
        if fresh and self._waiting.exists():
            shutil.rmtree(self._waiting)
        self._waiting.mkdir(parents=True, exist_ok=True)

    def place(self, path: Path) -> Path:
        """Where to write what will be the file ``path`` of the folder."""
        return self._waiting / path.relative_to(self._folder)

    def find(self, path: Path) -> Path:
        """Where a file of the folder lies now: a run may have been killed while it published."""
        return waiting if (waiting := self.place(path)).exists() else path

    def publish(self, stale: Iterable[Path] = ()) -> None:
        """Give every waiting file its place.

        Args:
            stale: Files of an earlier writing that this one does not replace, to be removed.
        """
        with writing(self._folder):
            for waiting in sorted(path for path in self._waiting.rglob("*") if path.is_file()):
                path = self._folder / waiting.relative_to(self._waiting)
                path.parent.mkdir(parents=True, exist_ok=True)
                waiting.replace(path)
            for path in stale:
                path.unlink(missing_ok=True)
            shutil.rmtree(self._waiting)
