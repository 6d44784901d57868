"""Which samples a training sees, in which order, and how loader processes make them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, default_collate

from pseudolabel.data import Record
from pseudolabel.errors import PseudolabelError
from pseudolabel.options import TrainingOptions
from pseudolabel.runtime.parallel import cores
from pseudolabel.training.group import Group

Batch = Mapping[str, Any]


class Samples(Protocol):
    """Training samples; sample (epoch, index) is the same whenever and wherever it is made."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: tuple[int, int]) -> Mapping[str, Any]: ...


class _Told:
    """Samples, or why there is none: an error raised in a loader process would come with that process's traceback."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, key: tuple[int, int]) -> Mapping[str, Any] | PseudolabelError:
        try:
            return self._samples[key]
        except PseudolabelError as error:
            return error


def load_batches(
    samples: Samples,
    options: TrainingOptions,
    *,
    seed: int,
    steps: range,
    workers: int | None,
    pin: bool,
    group: Group = Group(),  # noqa: B008 - has no state
) -> Iterator[list[Batch]]:
    """For every step, this process's micro batches.

    Args:
        samples: To choose from.
        options: Batch sizes.
        seed: Of the order.
        steps: Numbers of the optimiser steps.
        workers: Loader processes; None for one a core.
        pin: Put batches into memory that a GPU can read from.
        group: The processes that share every batch, in equal parts.

    Raises:
        PseudolabelError: A sample cannot be made.
    """
    part = min(options.batch_size, len(samples)) // group.size
    micro = min(options.micro_batch or part, part)
    keys: list[list[tuple[int, int]]] = []
    for step in steps:
        epoch, position = divmod(step, steps_per_epoch(samples, options))
        order = epoch_order(len(samples), seed, epoch)
        begin = position * options.batch_size + group.rank * part
        chosen = order[begin : begin + part]
        pairs = [(epoch, int(index)) for index in chosen]
        keys.extend(pairs[start : start + micro] for start in range(0, len(pairs), micro))
    count = cores() // group.size if workers is None else workers
    loader: DataLoader[Any] = DataLoader(
        _Told(samples),  # type: ignore[arg-type]  # keys are pairs, not numbers
        batch_sampler=keys,
        num_workers=count,
        prefetch_factor=4 if count else None,
        pin_memory=pin,
        collate_fn=_collate,
        generator=torch.Generator(),  # or making the loader would draw from the generator that dropout uses
    )
    found: list[Batch] = []
    size = 0
    for batch in loader:
        if isinstance(batch, PseudolabelError):
            raise batch
        found.append(batch)
        size += len(batch["id"])
        if size >= part:
            yield found
            found, size = [], 0


def steps_per_epoch(samples: Samples, options: TrainingOptions) -> int:
    """Optimiser steps in one pass; an incomplete last batch is left out."""
    return max(1, len(samples) // options.batch_size)


def total_steps(samples: Samples, options: TrainingOptions) -> int:
    """Optimiser steps of a whole training."""
    return options.steps or options.epochs * steps_per_epoch(samples, options)


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """The order of the samples in one epoch: a permutation int64 (count,) that depends on seed and epoch alone."""
    return np.random.default_rng((seed, 0, epoch)).permutation(count)


def sample_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The random numbers of one sample's view."""
    return np.random.default_rng((seed, 1, epoch, index))


def split_records(
    records: tuple[Record, ...], holdout: float, seed: int
) -> tuple[tuple[Record, ...], tuple[Record, ...]]:
    """Part records at random into those to train on and those held out, both in list order."""
    count = min(round(holdout * len(records)), len(records) - 1)
    chosen = set(np.random.default_rng((seed, 2)).permutation(len(records))[:count].tolist())
    kept = tuple(record for index, record in enumerate(records) if index not in chosen)
    return kept, tuple(record for index, record in enumerate(records) if index in chosen)


def _collate(samples: Sequence[Mapping[str, Any] | PseudolabelError]) -> Batch | PseudolabelError:
    errors = (sample for sample in samples if isinstance(sample, PseudolabelError))
    batch: Batch | PseudolabelError = next(errors, None) or default_collate(list(samples))
    return batch
