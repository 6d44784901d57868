"""Samples of two images: one with a mask, and one without it, in a weak view and in strong ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pseudolabel.scribble.training_data import LabelledCrops
from pseudolabel.semi.views import mixed_region, paste, strong_view
from pseudolabel.training.samples import epoch_order


@dataclass(frozen=True)
class Wanted:
    """What a method asks of the image without a mask.

    Attributes:
        weak: Whether its weak view is needed at all.
        strong: V, strong views of it.
        cutmix: Probability that a strong view shows another image in a region.
        channels: D, features whose random numbers are drawn, to drop some; 0: none are.
    """

    weak: bool
    strong: int
    cutmix: float
    channels: int = 0


class PairedCrops:
    """An image with a mask and one without; sample (epoch, index) is always the same.

    An epoch is a pass over the images without masks. The others are taken in turn, in an order that is drawn anew
    whenever all of them were seen.

    Args:
        masked: The images with masks.
        others: Those without.
        wanted: Of the latter.
        seed: Of partners, views and regions.
        grid: Rows, and columns, of the network's map of a view.
    """

    def __init__(self, masked: LabelledCrops, others: LabelledCrops, wanted: Wanted, seed: int, grid: int) -> None:
        self.masked, self.others, self.wanted = masked, others, wanted
        self._seed, self._grid = seed, (grid, grid)
        masked.grid = others.grid = grid

    def __len__(self) -> int:
        return len(self.others)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, index = key
        turn, place = divmod(epoch * len(self) + index, len(self.masked))
        chosen = int(epoch_order(len(self.masked), self._seed, turn)[place])
        masked = self.masked[turn, chosen]
        pair = {"masked_id": masked["id"], "image": masked["image"], "labels": masked["labels"]}
        if not self.wanted.weak:
            return {"id": masked["id"], **pair}
        other = self.others[key]
        names = {"id": f"{masked['id']} + {other['id']}", "other_id": other["id"]}
        found: dict[str, Any] = {**names, **pair, "weak": other["image"], "weak_labels": other["labels"]}
        found |= {name: other[name] for name in other.keys() & {"allowed", "present", "objectness"}}
        if self.wanted.channels:
            rng = np.random.default_rng((self._seed, 5, *key))
            found["noise"] = rng.random(self.wanted.channels, dtype=np.float32)
        return {**found, **self._strong(key, other["image"])} if self.wanted.strong else found

    def _strong(self, key: tuple[int, int], view: np.ndarray) -> dict[str, Any]:
        """The strong views uint8 (V, H, W, 3); with CutMix regions bool (V, h, w), and what is inside of them."""
        rng = np.random.default_rng((self._seed, 3, *key))
        if not self.wanted.cutmix:
            return {"strong": np.stack([strong_view(view, rng) for _ in range(self.wanted.strong)])}
        epoch, index = key
        step = int(rng.integers(1, len(self))) if len(self) > 1 else 0
        partner = self.others[epoch, (index + step) % len(self)]
        views, regions = [], []
        for _ in range(self.wanted.strong):
            own, other = strong_view(view, rng), strong_view(partner["image"], rng)
            region = mixed_region(self._grid, rng) & (rng.random() < self.wanted.cutmix)
            views.append(paste(own, other, region))
            regions.append(region)
        return {
            "strong": np.stack(views),
            "regions": np.stack(regions),
            "partner": partner["image"],
            "partner_labels": partner["labels"],
            "partner_allowed": partner["allowed"],
        }
