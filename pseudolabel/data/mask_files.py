"""Ground truth that lies one file an image: what the values in its masks mean, and reading it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pseudolabel.data.images import read_label_png
from pseudolabel.data.records import IGNORE, MaskValues, Record
from pseudolabel.errors import DatasetError, InputError
from pseudolabel.options.fields import nearest

_NOTHING = -1  # the meaning of a value that stands for nothing


@dataclass(frozen=True)
class MaskFiles:
    """Reader of ground truth; can be sent to worker processes.

    Attributes:
        classes: How many object classes the data set has.
        meaning: Label of each of the 256 values, -1 where it has none; None where values are class indices and 255 is
            ignored.
    """

    classes: int
    meaning: tuple[int, ...] | None = None

    def __call__(self, record: Record) -> np.ndarray:
        """Ground truth of one image.

        Returns:
            uint8 (H, W): 0 background, 1 to ``classes``, 255 ignore.

        Raises:
            DatasetError: The image has no mask, or the mask is unreadable or holds a value without a meaning.
        """
        return self.labels(record, self.values(record))

    def values(self, record: Record) -> np.ndarray:
        """What the file itself holds: uint8 (H, W).

        Raises:
            DatasetError: The image has no mask, or the mask is unreadable.
        """
        if record.mask is None:
            raise DatasetError(f"{record.image} has no ground-truth mask; evaluation and tags from masks need one")
        return read_label_png(record.mask)

    def labels(self, record: Record, values: np.ndarray) -> np.ndarray:
        """The labels that the values of a mask mean, as of a call.

        Raises:
            DatasetError: A value has no meaning.
        """
        if self.meaning is None:
            if int((values + np.uint8(1)).max()) > self.classes + 1:  # 255 wraps to 0: one pass over the pixels
                wrong = np.unique(values[(values > self.classes) & (values != IGNORE)])
                raise DatasetError(
                    f"{record.mask} holds label {wrong[0]}; wanted 0 to {self.classes}, or 255 for ignore; "
                    "--mask-values and --ignore-value say what other values mean"
                )
            return values
        meaning = np.array(self.meaning, dtype=np.int16)
        present = np.bincount(values.ravel(), minlength=256).nonzero()[0]
        wrong = present[meaning[present] == _NOTHING]
        if len(wrong):
            known = ", ".join(str(value) for value in np.flatnonzero(meaning != _NOTHING)[:20])
            raise DatasetError(
                f"{record.mask} holds value {wrong[0]}, which --mask-values and --ignore-value give no meaning; "
                f"those that have one: {known}"
            )
        found: np.ndarray = meaning.astype(np.uint8)[values]
        return found

    def label_of(self, value: int) -> int | None:
        """What one value means: a class index, 0, 255, or None where it means nothing."""
        if self.meaning is not None:
            return None if self.meaning[value] == _NOTHING else self.meaning[value]
        return value if value <= self.classes or value == IGNORE else None


def mask_reader(classes: Sequence[str], values: MaskValues | None) -> MaskFiles:
    """The reader of a data set's masks.

    Args:
        classes: Names, background first; background alone where nobody knows the others, and no mask can be read.
        values: What the user says the values mean.

    Raises:
        InputError: That names no class of the data set, or contradicts itself.
    """
    if values is None or len(classes) == 1:
        return MaskFiles(len(classes) - 1)
    ignored = values.ignored
    named = dict(_parts(item) for item in values.named)
    if ignored is None:
        ignored = () if IGNORE in named else (IGNORE,)
    both = sorted(named.keys() & set(ignored))
    if both:
        raise InputError(f"--mask-values and --ignore-value both name {both[0]}; a value is a class or ignored")
    meaning = [_NOTHING] * 256
    meaning[0] = 0
    if not named:
        meaning[: len(classes)] = range(len(classes))
    for value, name in named.items():
        if name not in classes:
            known = list(classes)
            raise InputError(
                f"--mask-values {value}={name}: no such class{nearest(name, known)}; "
                f"known: {', '.join(known[:6])}{' ...' if len(known) > 6 else ''}"
            )
        meaning[value] = classes.index(name)
    for value in ignored:
        meaning[value] = IGNORE
    return MaskFiles(len(classes) - 1, tuple(meaning))


def _parts(item: str) -> tuple[int, str]:
    """Value and class name of one ``VALUE=CLASS``."""
    value, _, name = item.partition("=")
    return int(value), name.strip()
