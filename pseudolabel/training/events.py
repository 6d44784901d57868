"""TensorBoard's event files, written with its own protocol buffers and without a thread or a buffer.

The writer that comes with torch hands every event to a thread: a kill loses what waits, and a full disk shows as that
thread's traceback. An event written at once costs a step well under a tenth of a millisecond.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from pseudolabel.artefacts.journal import WholeFile

_NAME = "events.out.tfevents."  # by which TensorBoard knows its files; they are read in the order of their names


class EventFile:
    """The events of one stretch of a training.

    Args:
        folder: Where it lies, beside those of earlier stretches.
        first: Steps done before; TensorBoard forgets what the others hold of later ones.
    """

    def __init__(self, folder: Path, *, first: int) -> None:
        for path in folder.glob(_NAME + "[0-9]" * 10):
            if int(path.name.removeprefix(_NAME)) >= first:
                path.unlink()
        self._file = WholeFile(folder / f"{_NAME}{first:010d}", "w")
        self._records = RecordWriter(self._file)
        self._add(file_version="brain.Event:2")
        if first:
            self._add(step=first + 1, session_log=SessionLog(status=SessionLog.START))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add numbers by name."""
        self._summarise(step, [Summary.Value(tag=name, simple_value=value) for name, value in values.items()])

    def picture(self, step: int, name: str, png: bytes, size: tuple[int, int]) -> None:
        """Add a PNG file in RGB, with its height and width."""
        image = Summary.Image(height=size[0], width=size[1], colorspace=3, encoded_image_string=png)
        self._summarise(step, [Summary.Value(tag=name, image=image)])

    def histogram(self, step: int, name: str, counts: np.ndarray, edges: np.ndarray) -> None:
        """Add counts (B,) between edges (B + 1,); a value counts as the middle of its bin."""
        centres = (edges[1:] + edges[:-1]) / 2
        filled = np.flatnonzero(counts)
        low, high = (edges[filled[0]], edges[filled[-1] + 1]) if len(filled) else (0.0, 0.0)
        histogram = HistogramProto(
            min=low,
            max=high,
            num=float(counts.sum()),
            sum=float(counts @ centres),
            sum_squares=float(counts @ centres**2),
            bucket_limit=edges[1:].tolist(),
            bucket=counts.tolist(),
        )
        self._summarise(step, [Summary.Value(tag=name, histo=histogram)])

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _summarise(self, step: int, values: list[Any]) -> None:
        if values:
            self._add(step=step, summary=Summary(value=values))

    def _add(self, **what: Any) -> None:
        self._records.write(Event(wall_time=time.time(), **what).SerializeToString())
