"""Trainings that have diverged: the loss, or the weights of the network or of what is kept of it, are not finite.

A step's loss judges the weights from before it. What the last step has made is judged by nothing but its own check, and
so is what is validated: a classifier of NaN has scores, and a segmenter of NaN predicts background.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pseudolabel.errors import PseudolabelError
from pseudolabel.models.checkpoint import GROUPS, weight_arrays
from pseudolabel.runtime.devices import autocast
from pseudolabel.training.run import Batch, Run, Step, state_path


def diverged(run: Run, found: str) -> PseudolabelError:
    """The error of a training that has diverged.

    Args:
        run: The training.
        found: What is not finite, and where.
    """
    state = state_path(run.options.out)
    kept = f"the last good state is {state}" if state.exists() else "no state was saved yet"
    return PseudolabelError(f"{found}; {kept}: lower --learning-rate or pass --precision float32")


def names_of(batches: Sequence[Batch]) -> str:
    """The images of a step, for a message."""
    return ", ".join(str(name) for batch in batches for name in batch["id"])


def not_finite(arrays: Mapping[str, np.ndarray]) -> str | None:
    """The first array of weights with a value that is not finite, by its name; None if there is none.

    Args:
        arrays: Of a checkpoint or a state; only those in the groups of weights are looked at, as curves have gaps.
    """
    groups = (*set(GROUPS.values()), "average")
    for name, array in arrays.items():
        weights = any(part in groups for part in name.split("/")[:2])
        if weights and array.dtype.kind == "f" and not np.isfinite(array).all():
            return name
    return None


def require_finite_weights(run: Run, arrays: Mapping[str, np.ndarray]) -> None:
    """Refuse arrays of a state or a checkpoint in which weights are not finite.

    Raises:
        PseudolabelError: They are not; the last saved state is kept.
    """
    name = not_finite(arrays)
    if name is not None:
        raise diverged(run, f"the weights are not finite after step {run.step} (first: {name})")


def require_finite(run: Run, batches: Sequence[Batch]) -> None:
    """Refuse what a step has made, if it is of no use; all processes of a group call it.

    Looks at all weights, and at the losses of the step's own images, of the network as it is kept and of any other
    that is kept with it. Neither random numbers nor statistics of batch normalisations change.

    Args:
        run: After ``after_step``.
        batches: This process's micro batches of that step.

    Raises:
        PseudolabelError: A weight or a loss is not finite; the last saved state is kept.
    """
    for arrays in (weight_arrays(run.network.state_dict()), run.objective.checkpoint(run.network)):
        require_finite_weights(run, arrays)
    with run.objective.evaluated(run.network) as kept:
        losses = [_loss(run, kept, batches)]
        if kept is not run.network:
            run.network.eval()
            losses.append(_loss(run, run.network, batches))
    for loss in losses:
        if not math.isfinite(loss):
            raise diverged(run, f"the loss is {loss} after step {run.step} (images {names_of(batches)})")


@torch.no_grad()
def _loss(run: Run, network: Any, batches: Sequence[Batch]) -> float:
    """The whole batch's loss in evaluation mode."""
    with autocast(run.device, run.dtype):
        step = Step(run.step - 1, run.images_per_step)
        parts = [losses["loss"].float() for losses in run.objective.losses(network, run.moved(batches), step)]
    return float(run.group.total(torch.stack(parts).sum()))
