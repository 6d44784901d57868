"""The optimiser and its rate."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from pseudolabel.options import TrainingOptions


def make_optimiser(network: Any, options: TrainingOptions) -> torch.optim.AdamW:
    """AdamW with a higher rate for the heads, and decay of weights alone (``decaying``)."""
    heads = {id(parameter) for head in network.heads() for parameter in head.parameters()}
    decays = decaying(network)
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((id(parameter) in heads, name in decays), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "peak": options.learning_rate * (options.head_rate if is_head else 1),
                "weight_decay": options.weight_decay if decay else 0.0,
            }
            for (is_head, decay), parameters in groups.items()
        ],
        lr=options.learning_rate,
        fused=True,  # a third of a small network's step on a processor was the unfused update
    )


def decaying(network: nn.Module) -> set[str]:
    """The names of the parameters that decay.

    Neither vectors (biases, the weights of norms) do, nor what a timm model declares: position embeddings, class and
    register tokens. [code: timm]
    """
    declared = [
        f"{prefix}.{name}" if prefix else name
        for prefix, module in network.named_modules()
        if callable(declares := getattr(module, "no_weight_decay", None))
        for name in declares()
    ]
    return {
        name
        for name, parameter in network.named_parameters()
        if parameter.ndim > 1 and not any(fnmatchcase(name, pattern) for pattern in declared)
    }


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
