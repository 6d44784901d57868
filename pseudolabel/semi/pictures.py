"""What a training on few masks sees: images with masks, and strong views of images without, with their targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pseudolabel.scribble.pictures import training_grid

_ROWS = 2  # of each kind


class Shown(NamedTuple):
    """A few images of a step; N rows.

    Attributes:
        photographs: uint8 (N, H, W, 3), as the network saw them.
        labels: uint8 (N, H, W): masks, or targets that were sure enough, of cells; 255 elsewhere.
        predictions: (N, h, w), the most probable class.
        names: Of the images.
    """

    photographs: np.ndarray
    labels: np.ndarray
    predictions: np.ndarray
    names: list[str]

    @classmethod
    def of(cls, batch: Mapping[str, Any], masked: Tensor, other: Tensor | None, targets: Tensor | None) -> Shown:
        """The first images of a batch.

        Args:
            batch: Of ``training_data.PairedCrops``.
            masked: Logits float (B, K, h, w) of the images with masks.
            other: Logits float (B V, K, h, w) of the views that are compared; None: there are none.
            targets: Labels uint8 (B, V, h, w) of those; None with ``other``.
        """
        images, labels, found = (part[:_ROWS].cpu().numpy() for part in (batch["image"], batch["labels"], masked))
        names = list(batch.get("masked_id", batch["id"]))[:_ROWS]
        predictions = found.argmax(axis=1)
        if other is None or targets is None:
            return cls(images, labels, predictions, names)
        views = targets.shape[1]
        shown = batch["strong"][:, 0] if "strong" in batch else batch["weak"]
        size = labels.shape[1:]
        cells = torch.nn.functional.interpolate(targets[:_ROWS, :1].float(), size).byte()[:, 0]
        return cls(
            np.concatenate([images, shown[:_ROWS].cpu().numpy()]),
            np.concatenate([labels, cells.cpu().numpy()]),
            np.concatenate([predictions, other[: _ROWS * views : views].argmax(dim=1).cpu().numpy()]),
            names + list(batch["other_id"])[:_ROWS],
        )


def pair_grid(shown: Shown, classes: Sequence[str]) -> np.ndarray:
    """A row an image: photograph, what is labelled, prediction; uint8 (H', W', 3).

    Args:
        shown: The images.
        classes: Names by class index, background first.
    """
    return training_grid(
        shown.photographs, shown.labels, shown.predictions, shown.names, classes, rows=len(shown.names)
    )
