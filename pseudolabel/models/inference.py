"""Running a network over a data set: images of one size in one batch, at several scales, and mirrored.

On a processor each thread computes a batch of its own: torch lets all threads share every operation, and those of a
small network are so short that threads spend much of the time waiting for each other (benchmarks/speed/make_cams.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pseudolabel.artefacts import Images, MapsWriter
from pseudolabel.data import Dataset, Record, image_size, read_image
from pseudolabel.data.augmentation import network_size, resized
from pseudolabel.errors import DatasetError, InputError
from pseudolabel.runtime.parallel import cores
from pseudolabel.runtime.progress import Progress


@dataclass(frozen=True)
class Plan:
    """Which images are seen together, and at which size.

    Attributes:
        images: Ids and sizes of the photographs, in list order.
        batches: Indices of the images of each batch.
        sizes: (height, width) at scale 1 of each batch, multiples of the network's stride.
        unreadable: Index to reason of images whose header cannot be read.
        at_once: How many batches are computed at the same time.
    """

    images: Images
    batches: tuple[tuple[int, ...], ...]
    sizes: tuple[tuple[int, int], ...]
    unreadable: dict[int, str]
    at_once: int


def make_plan(
    dataset: Dataset,
    *,
    long_side: int | None,
    multiple: int,
    batch_size: int,
    device: torch.device,
    skip: bool,
    skipped: Mapping[str, str] | None = None,
    tile: int | None = None,
) -> Plan:
    """Read every image's size and put images of equal network size together, in a fixed order.

    Args:
        dataset: The images.
        long_side: Of the network's input at scale 1, pixels; None: of the image itself.
        multiple: Both sides of the input become multiples of it.
        batch_size: Most images at the same time: in one batch or, on a processor, in one a thread.
        device: Where the network computes.
        skip: Record unreadable images instead of stopping at them.
        skipped: Id to reason of images that an earlier stage could not use, and that are not looked at.
        tile: Longest side of what the network sees at once, pixels; a larger image is alone in its batch, and where
            there is one, a processor computes one image at a time. None: it sees whole images.

    Raises:
        DatasetError: An image is unreadable and ``skip`` is not set.
        InputError: There is no image.
    """
    if not dataset.records:
        raise InputError(f"split {dataset.split} of {dataset.root} is empty; pass another --split")
    sizes: list[tuple[int, int]] = []
    unreadable: dict[int, str] = {}
    groups: dict[tuple[int, int], list[int]] = {}
    for index, record in enumerate(dataset.records):
        if skipped and record.id in skipped:
            sizes.append((0, 0))
            unreadable[index] = skipped[record.id]
            continue
        try:
            sizes.append(image_size(record.image))
        except DatasetError as error:
            if not skip:
                raise
            sizes.append((0, 0))
            unreadable[index] = str(error)
            continue
        groups.setdefault(network_size(*sizes[-1], long_side or max(sizes[-1]), multiple), []).append(index)
    large = {size for size in groups if tile is not None and max(size) > tile}
    at_once = min(batch_size, torch.get_num_threads()) if device.type == "cpu" and not large else 1
    batches, seen = [], []
    for size in sorted(groups):
        members = groups[size]
        most = 1 if size in large or (large and device.type == "cpu") else batch_size // at_once
        for start in range(0, len(members), most):
            batches.append(tuple(members[start : start + most]))
            seen.append(size)
    table = np.asarray(sizes, dtype=np.int32).reshape(-1, 2)
    images = Images(tuple(record.id for record in dataset.records), table[:, 0], table[:, 1])
    return Plan(images, tuple(batches), tuple(seen), unreadable, at_once)


Compute = Callable[[Tensor, list[Record]], list[dict[int, np.ndarray]]]
"""Photographs uint8 (B, H, W, 3) of one size and their records to the maps of each: class index to array (h, w).

It is called in several threads at the same time."""


class Batch(NamedTuple):
    """One decoded batch.

    Attributes:
        number: In the plan.
        pixels: uint8 (B, H, W, 3), the photographs that could be read.
        records: Of these.
        indices: Theirs, in the data set.
        failed: Index to reason of the others.
    """

    number: int
    pixels: Tensor
    records: list[Record]
    indices: list[int]
    failed: dict[int, str]


def compute_maps(
    writer: MapsWriter,
    dataset: Dataset,
    plan: Plan,
    compute: Compute,
    *,
    device: torch.device,
    skip: bool,
    workers: int | None,
    progress: Progress,
) -> int:
    """Run a network over all batches that are not wholly written yet.

    Args:
        writer: Where the maps go; what an interrupted run wrote is not computed again, but for a half-written batch.
        dataset: The images of the plan.
        plan: Which images are seen together.
        compute: The network.
        device: Where it computes.
        skip: Record images that cannot be decoded instead of stopping at the first.
        workers: Processes that decode. None is one a core for an accelerator; on a processor, which the network itself
            keeps busy, one for four cores.
        progress: Where to report.

    Returns:
        How many images were handled in this run.

    Raises:
        DatasetError: An image cannot be decoded and ``skip`` is not set.
    """
    if not writer.done:
        for index, reason in plan.unreadable.items():
            writer.skip(index, reason)
        writer.commit()
    done = writer.done
    workers = cores() // (4 if device.type == "cpu" else 1) if workers is None else workers
    ends = len(plan.unreadable) + np.cumsum([len(members) for members in plan.batches])
    numbers = [number for number, end in enumerate(ends) if end > done]
    batches = _decode(dataset, plan, numbers, workers)
    with (
        progress.track(len(dataset.records), "images", done=done) as advance,
        closing(_computed(compute, batches, plan.at_once)) as results,
    ):
        for batch, maps in results:
            members = plan.batches[batch.number]
            found = dict(zip(batch.indices, maps, strict=True))
            written = max(0, done - int(ends[batch.number]) + len(members))  # of this batch, by an interrupted run
            for index in members[written:]:
                if index in found:
                    writer.add(index, found[index])
                elif skip:
                    writer.skip(index, batch.failed[index])
                else:
                    raise DatasetError(batch.failed[index])
            advance(len(members) - written)
    return len(dataset.records) - done


def _computed(
    compute: Compute, batches: Iterator[Batch], at_once: int
) -> Generator[tuple[Batch, list[dict[int, np.ndarray]]], None, None]:
    """Every batch with its maps, in order; ``at_once`` of them are computed at the same time, each in one thread."""
    if at_once == 1:
        for batch in batches:
            yield batch, compute(batch.pixels, batch.records)
        return
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(at_once, initializer=_compute_alone)  # which sets what is set for all, too
    pending: deque[tuple[Batch, Future[list[dict[int, np.ndarray]]]]] = deque()
    try:
        for batch in batches:
            pending.append((batch, pool.submit(compute, batch.pixels, batch.records)))
            if len(pending) > at_once:  # one more than are computed, so that none has to wait to be decoded
                first, result = pending.popleft()
                yield first, result.result()
        for first, result in pending:
            yield first, result.result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def _compute_alone() -> None:
    torch.set_num_threads(1)
    torch.get_num_threads()  # settles it: a thread takes the number for all at its first question, and then keeps it


class _Decoder:
    """Reads and resizes the photographs of a batch; runs in loader processes."""

    def __init__(self, records: Sequence[Record], plan: Plan, numbers: Sequence[int]) -> None:
        self._records, self._plan, self._numbers = records, plan, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, position: int) -> tuple[int, list[np.ndarray | str]]:
        number = self._numbers[position]
        found: list[np.ndarray | str] = []
        for index in self._plan.batches[number]:
            try:
                record = self._records[index]
                found.append(resized(read_image(record.image, record.decoding), self._plan.sizes[number]))
            except DatasetError as error:
                found.append(str(error))
        return number, found


def _decode(dataset: Dataset, plan: Plan, numbers: Sequence[int], workers: int) -> Iterator[Batch]:
    """Decode batches in worker processes, in order."""
    loader: DataLoader[Any] = DataLoader(
        _Decoder(dataset.records, plan, numbers),  # type: ignore[arg-type]  # has the two methods that are used
        batch_size=None,
        num_workers=workers,
        prefetch_factor=2 if workers else None,
    )
    for number, found in loader:
        members = plan.batches[number]
        arrays = {i: item for i, item in zip(members, found, strict=True) if not isinstance(item, str)}
        failed = {i: item for i, item in zip(members, found, strict=True) if isinstance(item, str)}
        empty = np.zeros((0, *plan.sizes[number], 3), dtype=np.uint8)
        pixels = torch.from_numpy(np.stack(list(arrays.values())) if arrays else empty)
        yield Batch(number, pixels, [dataset.records[index] for index in arrays], list(arrays), failed)
