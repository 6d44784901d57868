"""Settings of the dense CRF to try, how one image judges them, and the choice as later stages read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pseudolabel.artefacts import Header, read_header
from pseudolabel.artefacts.maps import at_size
from pseudolabel.data import Record
from pseudolabel.data.inputs import read_photograph
from pseudolabel.data.records import IGNORE
from pseudolabel.errors import InputError
from pseudolabel.labels.assignment import Thresholds, probabilities
from pseudolabel.labels.inputs import MapsTask
from pseudolabel.metrics.agreement import area_agreement, edge_agreement
from pseudolabel.metrics.confusion import PixelCounter, class_counts
from pseudolabel.options import RefineCrfOptions
from pseudolabel.pairwise import (
    PRESETS,
    CrfSettings,
    dense_crf,
    describe,
    memory_free,
    memory_of_crf,
    require_memory,
    resolve,
)

Task = tuple[MapsTask, Record]
"""One image's maps, CAMs or soft labels, and its record."""

ITERATIONS = (1, 10)
RANGES = {
    "spatial_xy": (0.5, 6.0),
    "spatial_weight": (0.5, 8.0),
    "bilateral_xy": (20.0, 160.0),
    "bilateral_rgb": (2.0, 20.0),
    "bilateral_weight": (1.0, 16.0),
}
"""Smallest and largest value of each number, drawn evenly in its logarithm: wider than what published settings span."""

GT_PROB = (0.5, 0.9)
FIELDS = tuple(field.name for field in fields(CrfSettings))


@dataclass(frozen=True)
class Trial:
    """Settings to try.

    Attributes:
        name: A preset's, or ``random`` and a number.
        settings: The CRF's.
    """

    name: str
    settings: CrfSettings


def draw_trials(count: int, seed: int) -> list[Trial]:
    """Every preset, then random settings; a larger count only adds to a smaller one's.

    Args:
        count: How many random ones.
        seed: Of the draws.
    """
    random = np.random.default_rng(seed)
    drawn = [Trial(f"random {number}", _draw(random)) for number in range(1, count + 1)]
    return [*(Trial(name, settings) for name, settings in PRESETS.items()), *drawn]


@dataclass(frozen=True)
class Verdict:
    """What one image says of T trials, and in row 0 of its maps without a CRF.

    Attributes:
        parts: float64 (T + 1, 2), edge and area agreement.
        counts: float64 (T + 1, K, 3), hits, true and predicted pixels by class; K = 0 where no mask was read.
    """

    parts: np.ndarray
    counts: np.ndarray

    def pack(self) -> tuple[list[tuple[int, ...]], list[bytes]]:
        """The shapes and the bytes of both, for a journal."""
        arrays = (self.parts, self.counts)
        return [array.shape for array in arrays], [array.tobytes() for array in arrays]

    @classmethod
    def unpack(cls, shapes: Sequence[Sequence[int]], parts: Sequence[bytes]) -> Verdict:
        """What ``pack`` was given."""
        return cls(*(np.frombuffer(part).reshape(shape) for shape, part in zip(shapes, parts, strict=True)))


def judge(
    task: Task,
    *,
    trials: Sequence[Trial],
    thresholds: Thresholds | None,
    read_mask: Callable[[Record], np.ndarray] | None,
    classes: int,
) -> Verdict:
    """Refine one image with every trial's settings and judge the labels; runs in a worker process.

    Args:
        task: The image; its maps are CAMs where ``thresholds`` are given.
        trials: The settings.
        thresholds: By class index.
        read_mask: The data set's; None to read no mask.
        classes: K.

    Raises:
        DatasetError: The photograph is unreadable, of another size or too large.
    """
    item, record = task
    image = read_photograph(record, item.size)
    require_memory(
        record.image, "dense CRF", memory_of_crf(item.size[0] * item.size[1], len(item.maps) + 1), memory_free()
    )
    labels, scores = at_size(item.maps, item.size)
    if thresholds is None:
        labels, scores = labels[labels != IGNORE], scores[labels != IGNORE]
        scores = scores / scores.sum(axis=0)
    else:
        labels, scores = np.concatenate([[0], labels]), probabilities(labels, scores, thresholds.value)
    names = labels.astype(np.uint8)
    start = names[scores.argmax(axis=0)]
    counter = PixelCounter(classes, boundary=None, ignored="background")
    truth = read_mask(record) if read_mask else None
    parts, counts = [], []
    refined = (names[dense_crf(image, scores, trial.settings).probabilities.argmax(axis=0)] for trial in trials)
    for found in chain([start], refined):
        parts.append((edge_agreement(image, found), area_agreement(start, found)))
        if truth is not None:
            counts.append(class_counts(counter.table(truth, found), "background"))
    return Verdict(np.array(parts), np.array(counts, dtype=np.float64).reshape(len(parts), -1, 3))


def trial_arrays(trials: Sequence[Trial]) -> dict[str, np.ndarray]:
    """Names and settings of the trials as datasets of a ``crf-search`` artefact, an entry a trial."""
    names = np.array([trial.name for trial in trials], dtype=object)
    columns = {name: np.array([getattr(trial.settings, name) for trial in trials]) for name in FIELDS}
    return {"trials/name": names, **{f"settings/{name}": column for name, column in columns.items()}}


def as_options(settings: CrfSettings) -> dict[str, Any]:
    """Settings under the names of refine-crf's options; what has no effect is left out."""
    values = asdict(settings)
    return values if settings.unary == "hard" else {name: values[name] for name in values if name != "gt_prob"}


@dataclass(frozen=True)
class Choice:
    """The CRF that refine-crf's options ask for.

    Attributes:
        settings: Its numbers.
        words: What a score must state.
        parents: The ``crf-search`` artefact that they come from, if any, by path.
    """

    settings: CrfSettings
    words: str
    parents: Mapping[Path, Header]


def chosen_crf(options: RefineCrfOptions) -> Choice:
    """The preset's settings or those that search-crf has found, with the numbers that the options give in their place.

    Raises:
        ArtefactError: ``options.settings`` is no artefact of search-crf.
        InputError: There is a preset beside it.
    """
    if options.settings is None:
        return Choice(resolve(options), describe(options), {})
    if "preset" in options.model_fields_set:
        raise InputError(f"--settings {options.settings} takes the place of --preset {options.preset}; leave one out")
    header = read_header(options.settings, "crf-search")
    found = CrfSettings(**header.facts["settings"])
    given = {name: getattr(options, name) for name in FIELDS}
    changes = {name: value for name, value in given.items() if value not in (None, getattr(found, name))}
    words = [f"search-crf ({header.facts['crf']})", *(f"{_spoken(name)} {value}" for name, value in changes.items())]
    words += [f"engine {options.engine}"] if options.engine != "lattice" else []
    return Choice(replace(found, **changes), ", ".join(words), {options.settings: header})


def in_words(trial: Trial) -> str:
    """The preset's name, or every number, for instance ``iterations 7, spatial xy 2.31, ...``."""
    if trial.name in PRESETS:
        return trial.name
    return ", ".join(f"{_spoken(name)} {value}" for name, value in as_options(trial.settings).items())


def _draw(random: np.random.Generator) -> CrfSettings:
    low, high = ITERATIONS
    iterations = int(random.integers(low, high, endpoint=True))
    numbers = {name: _short(float(np.exp(random.uniform(*np.log(bounds))))) for name, bounds in RANGES.items()}
    unary: Literal["soft", "hard"] = "hard" if random.random() < 0.5 else "soft"
    return CrfSettings(iterations, **numbers, unary=unary, gt_prob=_short(random.uniform(*GT_PROB)))


def _short(number: float) -> float:
    """Three significant digits, so that what is written down is what was tried."""
    return float(f"{number:.3g}")


def _spoken(name: str) -> str:
    return name.replace("_", " ")
