"""From class activation maps and thresholds to label maps: the one place where that rule is written.

A pixel belongs to the class whose map exceeds its own threshold by most; where none does, to the background. With one
threshold for all classes this is the usual rule: the strongest class where it reaches the threshold, else background.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pseudolabel.artefacts import Artefact, Header, open_artefact
from pseudolabel.artefacts.maps import at_size, bands
from pseudolabel.data.records import IGNORE
from pseudolabel.errors import InputError


@dataclass(frozen=True)
class Thresholds:
    """Thresholds by class index; entry 0, the background's, is unused.

    Attributes:
        value: float64 (C + 1,), in [0, 1]: at or above it a pixel is foreground.
        low: float64 (C + 1,) or None: below it a pixel is surely background.
        high: float64 (C + 1,) or None: at or above it a pixel is surely foreground.
    """

    value: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None

    def arrays(self) -> Mapping[str, np.ndarray]:
        """The datasets of a ``thresholds`` artefact; NaN stands for None."""
        absent = np.full_like(self.value, np.nan)
        low = absent if self.low is None else self.low
        high = absent if self.high is None else self.high
        return {"thresholds/value": self.value, "thresholds/low": low, "thresholds/high": high}


def read_thresholds(path: Path) -> tuple[Thresholds, Header]:
    """Read a ``thresholds`` artefact.

    Raises:
        ArtefactError: It is not one.
    """
    with open_artefact(path, "thresholds") as artefact:
        low, high = (_present(artefact, name) for name in ("low", "high"))
        return Thresholds(artefact.file["thresholds/value"][:], low, high), artefact.header


def assign(labels: np.ndarray, maps: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    """Label every pixel.

    Args:
        labels: int (P,), the class index of each map, from 1.
        maps: float32 (P, H, W) in [0, 1].
        threshold: float (C + 1,) by class index.

    Returns:
        uint8 (H, W): a class index, or 0 where every map is below its threshold.
    """
    if not len(labels):
        return np.zeros(maps.shape[1:], dtype=np.uint8)
    margin = maps - threshold[labels].astype(np.float32)[:, None, None]
    best = margin.argmax(axis=0)
    reached = np.take_along_axis(margin, best[None], axis=0)[0] >= 0
    return np.where(reached, labels[best], 0).astype(np.uint8)


def assign_confident(labels: np.ndarray, maps: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Label only sure pixels, as CoSA does: the class at or above ``high``, background below ``low``, else 255.

    Args:
        labels: int (P,), the class index of each map, from 1.
        maps: float32 (P, H, W) in [0, 1].
        low: float (C + 1,) by class index.
        high: float (C + 1,) by class index.

    Returns:
        uint8 (H, W) with 255 where a pixel is neither.
    """
    sure = assign(labels, maps, high)
    doubtful = (sure == 0) & (assign(labels, maps, low) > 0)
    return np.where(doubtful, IGNORE, sure).astype(np.uint8)


def probabilities(labels: np.ndarray, maps: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    """Class probabilities whose argmax is ``assign``'s label: scores over {threshold} + maps over their sum. [ours]

    Args:
        labels: int (P,), the class index of each map, from 1.
        maps: float32 (P, H, W) in [0, 1].
        threshold: float (C + 1,) by class index.

    Returns:
        float32 (P + 1, H, W), background first, summing to 1 at every pixel.
    """
    if not len(labels):
        return np.ones((1, *maps.shape[1:]), dtype=np.float32)
    own = threshold[labels].astype(np.float32)
    background = max(float(own.mean()), 1e-3)  # a threshold of 0 must not make the sum vanish
    scores = np.clip(maps - own[:, None, None] + background, 0, None)
    scores = np.concatenate([np.full((1, *maps.shape[1:]), background, dtype=np.float32), scores])
    return np.asarray(scores / scores.sum(axis=0), dtype=np.float32)


def softmax_probabilities(labels: np.ndarray, maps: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    """Class probabilities whose argmax is ``assign``'s label: the softmax of the same scores, as in AFA, ToCo and CoSA.

    Args:
        labels: int (P,), the class index of each map, from 1.
        maps: float32 (P, H, W) in [0, 1].
        threshold: float (C + 1,) by class index; with one for all, the scores are {threshold} + maps.

    Returns:
        float32 (P + 1, H, W), background first, summing to 1 at every pixel.
    """
    own = threshold[labels].astype(np.float32)
    powers = np.exp(maps - own[:, None, None])
    powers = np.concatenate([np.ones((1, *maps.shape[1:]), dtype=np.float32), powers])
    return np.asarray(powers / powers.sum(axis=0), dtype=np.float32)


def from_soft(labels: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """The label map that soft labels stand for: the most probable class, the lowest index among equals.

    Args:
        labels: int (P,), the class index of each map, 0 for background; 255 for a map that is above one half where a
            pixel is unlabelled, whatever the others say.
        maps: uint8 or float (P, H, W), all of one scale: 0-255 if uint8, else 0-1.

    Returns:
        uint8 (H, W): a class index, or 255 where unlabelled.
    """
    classes = np.flatnonzero(labels != IGNORE)
    found: np.ndarray = labels[classes][maps[classes].argmax(axis=0)].astype(np.uint8)
    half = 127 if maps.dtype == np.uint8 else 0.5
    for index in np.flatnonzero(labels == IGNORE):
        found[maps[index] > half] = IGNORE
    return found


def label_map(
    stored: Mapping[int, np.ndarray], size: tuple[int, int], thresholds: Thresholds | None = None
) -> np.ndarray:
    """The label map of an image, at its size, of maps that are stored at another: part by part if it is large.

    Args:
        stored: Class index to map (h, w), as ``MapsReader.maps`` returns them.
        size: (H, W) of the image.
        thresholds: Of CAMs; None: the maps are soft labels.

    Returns:
        uint8 (H, W): a class index, or 255 where unlabelled.
    """
    parts = []
    for columns in bands(len(stored), size):
        labels, maps = at_size(stored, size, columns)
        parts.append(from_soft(labels, maps) if thresholds is None else assign(labels, maps, thresholds.value))
    return np.concatenate(parts, axis=1)


def quantise(probabilities: np.ndarray) -> np.ndarray:
    """Probabilities as 8-bit numbers, p as round(255 p); the most probable class stays the only largest one.

    Where rounding makes another class equal to it, it gets one step more, so that the label map loses nothing.

    Args:
        probabilities: float32 (K, H, W) in [0, 1], summing to 1 at every pixel.

    Returns:
        uint8 (K, H, W).
    """
    steps: np.ndarray = np.rint(probabilities * 255).astype(np.uint8)
    best = probabilities.argmax(axis=0)[None]
    most = np.take_along_axis(steps, best, axis=0)
    tied = (steps == most).sum(axis=0, dtype=np.uint8) > 1
    np.put_along_axis(steps, best, most + tied, axis=0)  # two equal ones are at most 128, so nothing overflows
    return steps


def matching_thresholds(path: Path | None, cams: Path, header: Header) -> tuple[Thresholds, Header]:
    """The thresholds to use with CAMs.

    Args:
        path: A ``thresholds`` artefact; None where the user gave none.
        cams: Where the CAMs lie, for the message.
        header: The header of the CAMs.

    Raises:
        InputError: There is none, or it is for other classes.
    """
    search = f"pseudolabel search-threshold {cams} --out threshold.h5"
    if path is None:
        raise InputError(f"{cams} holds CAMs, which need --threshold; run '{search}'")
    thresholds, own = read_thresholds(path)
    if own.classes != header.classes:
        raise InputError(
            f"{path} has thresholds for other classes ({len(own.classes) - 1} of them) than {cams} "
            f"({len(header.classes) - 1}); run '{search}'"
        )
    return thresholds, own


def _present(artefact: Artefact, name: str) -> np.ndarray | None:
    values = artefact.file[f"thresholds/{name}"][:]
    return None if np.isnan(values[1:]).all() else values
