"""Co-training as what a training descends: the teacher, the thresholds, and the order of a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pseudolabel.cosa.agreement import agreement, joint_counts
from pseudolabel.cosa.pictures import training_grid
from pseudolabel.cosa.step import Assigned, Method, assign, classification_losses, student_losses, totals
from pseudolabel.cosa.teacher import teacher_forward, update_teacher
from pseudolabel.cosa.thresholds import DynamicThreshold, count_scores
from pseudolabel.data.records import IGNORE
from pseudolabel.models.checkpoint import weight_arrays
from pseudolabel.models.cosa import CosaNetwork
from pseudolabel.pairwise.loss_modules import GatedDenseEnergy
from pseudolabel.training import Batch, Group, Losses, Step
from pseudolabel.training.ema import make_teacher
from pseudolabel.training.run import Arrays


@dataclass(frozen=True)
class Teaching:
    """How the teacher sees a batch and is updated.

    Attributes:
        starts: Optimiser steps in which only image tags are learnt; the teacher follows, but does not teach.
        decay: Of its exponential average, once warmed up.
        scales: Of the views that its CAMs are summed over; 1 is among them.
        flip: Whether it looks at mirrored views, too.
        propagate: Steps of attention affinity propagation of its maps; 0 unless it is a plain ViT.
        cam_fusion: Where the maps of its scales are fused.
        spl_scales: Whether its segmentation labels are of scale 1 or of all scales.
    """

    starts: int
    decay: float
    scales: tuple[float, ...]
    flip: bool
    propagate: int = 0
    cam_fusion: Literal["grid", "image"] = "grid"
    spl_scales: Literal["one", "all"] = "one"


class CoTraining:
    """CoSA's losses, step by step; an ``Objective`` of a training.

    A batch holds ``weak`` and ``strong`` uint8 (B, H, W, 3), views of one geometry, ``tags`` float32 (B, C), ``inside``
    bool (B, H, W), False where it is padding, and ``noise`` float32 (B, h, w), drawn for each image.

    Args:
        student: On its device, as it is before the first step.
        method: What is switched on.
        teaching: How the teacher sees a batch and is updated.
        threshold: Of the CAM labels.
        fixed: Leave the threshold as it is.
        prepare: Views uint8 (B, H, W, 3) to the network's input float32 (B, 3, H, W).
        group: The processes that train together.
        classes: Names, background first.
    """

    def __init__(
        self,
        student: CosaNetwork,
        method: Method,
        teaching: Teaching,
        threshold: DynamicThreshold,
        *,
        fixed: bool,
        prepare: Callable[[Tensor], Tensor],
        group: Group,
        classes: Sequence[str],
    ) -> None:
        self.teacher = make_teacher(student)
        self.method, self.teaching, self.threshold = method, teaching, threshold
        self._fixed, self._prepare, self._group = fixed, prepare, group
        self._classes = classes
        self._energy = GatedDenseEnergy()
        self._counts: Tensor | None = None
        self._joint = torch.zeros(0)
        self._shown: tuple[Batch, Assigned, Tensor] | None = None

    def losses(self, network: CosaNetwork, batches: Sequence[Batch], step: Step) -> Iterator[Losses]:
        """The classification losses alone at first, then all of them; see ``training.Objective``."""
        self._counts = None
        if step.number < self.teaching.starts:
            for batch in batches:
                output = network(self._prepare(batch["strong"]))
                yield classification_losses(output.logits, output.auxiliary_logits, batch["tags"], images=step.images)
            return
        parts = [self._assign(batch) for batch in batches]
        total = self._group.total(torch.stack([totals(part) for part in parts]).sum(dim=0))
        counts = torch.stack([count_scores(part.cams, part.cells) for part in parts]).sum(dim=0)
        self._counts = self._group.total(counts)
        joint = [joint_counts(part.main.labels, part.targets.argmax(dim=1), part.targets.shape[1]) for part in parts]
        self._joint = self._group.total(torch.stack(joint).sum(dim=0))
        for batch, part in zip(batches, parts, strict=True):
            yield self._losses_of_part(network, batch, part, total, step)

    def _assign(self, batch: Batch) -> Assigned:
        seen = teacher_forward(
            self.teacher,
            self._prepare(batch["weak"]),
            scales=self.teaching.scales,
            flip=self.teaching.flip,
            times=self.teaching.propagate,
            inside=batch["inside"],
            cam_fusion=self.teaching.cam_fusion,
            spl_scales=self.teaching.spl_scales,
        )
        return assign(
            seen,
            batch["tags"],
            self.method,
            low=self.threshold.low,
            high=self.threshold.high,
            size=tuple(batch["weak"].shape[1:3]),
            inside=batch["inside"],
        )

    def _losses_of_part(self, network: CosaNetwork, batch: Batch, part: Assigned, total: Tensor, step: Step) -> Losses:
        output = network.outputs(self._prepare(batch["strong"]))
        tags = classification_losses(output.logits, output.auxiliary_logits, batch["tags"], images=step.images)
        swapped = student_losses(
            output,
            part,
            self.method,
            total=total,
            images=step.images,
            photographs=batch["strong"].permute(0, 3, 1, 2),
            noise=batch["noise"],
            energy=self._energy,
        )
        if step.drawn and self._shown is None:
            self._shown = (batch, part, output.segmentation.detach())
        labelled = (part.main.labels != IGNORE).float().mean(dim=(1, 2)).sum() / step.images
        return {**tags, **swapped, "loss": tags["loss"] + swapped["loss"], "labelled": labelled}

    def after_step(self, network: CosaNetwork, step: int) -> dict[str, float]:
        """Let the teacher follow and the thresholds move; the thresholds that the step used join the curves."""
        update_teacher(self.teacher, network, decay=self.teaching.decay, step=step)
        if self._counts is None:
            return {}
        used = {"low": self.threshold.low, "high": self.threshold.high}
        if not self._fixed:
            self.threshold.update(self._counts)
        agreed = agreement(self._joint).share
        return {**used, "collapsed": float(self.threshold.collapsed), "agreement": agreed, **self._components()}

    def _components(self) -> dict[str, float]:
        """The mixture's components, as far as there is one."""
        mixture = None if self._fixed else self.threshold.mixture
        if mixture is None:
            return {}
        names = ("low", "high") if len(mixture.mean) == 2 else ("low", "middle", "high")
        return {
            f"mixture/{name}_{what}": float(values[index])
            for what, values in (("mean", mixture.mean), ("deviation", mixture.deviation), ("share", mixture.weight))
            for index, name in enumerate(names)
        }

    def pictures(self) -> dict[str, np.ndarray]:
        """The first micro batch of the last step, if it was to be drawn."""
        if self._shown is None:
            return {}
        (batch, part, logits), self._shown = self._shown, None
        grid = training_grid(
            batch["weak"].cpu().numpy(),
            part.cams.cpu().numpy(),
            part.main.labels.cpu().numpy(),
            part.targets.argmax(dim=1).cpu().numpy(),
            logits.argmax(dim=1).cpu().numpy(),
            batch["tags"].cpu().numpy(),
            self._classes,
        )
        return {"batch": grid}

    def histograms(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """The teacher's scores that the mixture is fitted to."""
        return {"scores": (self.threshold.counts, self.threshold.edges)} if self.threshold.counts.any() else {}

    @contextmanager
    def evaluated(self, network: CosaNetwork) -> Iterator[CosaNetwork]:
        """The teacher, which is what masks are predicted with by default."""
        yield self.teacher

    def checkpoint(self, network: CosaNetwork) -> Arrays:
        """Both networks, the thresholds, and what they were fitted to."""
        mixture = self.threshold.mixture
        table = [] if mixture is None else [mixture.weight, mixture.mean, mixture.deviation]
        return {
            **weight_arrays(network.state_dict()),
            **weight_arrays(self.teacher.state_dict(), "teacher"),
            "threshold/low": np.asarray(self.threshold.low),
            "threshold/high": np.asarray(self.threshold.high),
            "threshold/counts": self.threshold.counts.copy(),
            "threshold/edges": self.threshold.edges,
            "threshold/mixture": np.array(table, dtype=np.float64).reshape(len(table), -1 if table else 0),
        }

    def state(self) -> Arrays:
        """What a resumed training needs beside the student."""
        kept = {f"threshold/{name}": array for name, array in self.threshold.state_dict().items()}
        return {**weight_arrays(self.teacher.state_dict(), "teacher"), **kept}

    def restore(self, network: Any, state: Arrays) -> None:
        """Go on from what ``state`` gave."""
        self.teacher.load_state_dict({name: torch.from_numpy(array) for name, array in _below("teacher", state)})
        if not self._fixed:
            self.threshold.load_state_dict(dict(_below("threshold", state)))


def _below(group: str, arrays: Arrays) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of a group, by their names in it."""
    return ((name.removeprefix(f"{group}/"), array) for name, array in arrays.items() if name.startswith(f"{group}/"))
