"""The optimiser and its rate."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pseudolabel.options import TrainingOptions


def make_optimiser(network: Any, options: TrainingOptions) -> torch.optim.AdamW:
    """AdamW with a higher rate for the heads and no decay of vectors: biases and the weights of norms."""
    heads = {id(parameter) for head in network.heads() for parameter in head.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in network.parameters():
        if parameter.requires_grad:
            groups.setdefault((id(parameter) in heads, parameter.ndim > 1), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "peak": options.learning_rate * (options.head_rate if is_head else 1),
                "weight_decay": options.weight_decay if decays else 0.0,
            }
            for (is_head, decays), parameters in groups.items()
        ],
        lr=options.learning_rate,
        fused=True,  # a third of a small network's step on a processor was the unfused update
    )


def rate_factor(step: int, total: int, *, warmup: float, power: float) -> float:
    """Linear warm-up over a share of the steps, then polynomial decay to zero: the factor on the peak rate.

    Args:
        step: Number of the step, from 0.
        total: Number of steps.
        warmup: Share of the steps in which the rate rises.
        power: Of the decay.
    """
    rising = int(warmup * total)
    if step < rising:
        return (step + 1) / (rising + 1)
    return float((1 - (step - rising) / max(1, total - rising)) ** power)
