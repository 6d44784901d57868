"""The optimiser and its rate."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import torch
from timm.optim import param_groups_layer_decay  # type: ignore[attr-defined]  # it has no __all__
from torch import nn

from pseudolabel.errors import InputError
from pseudolabel.options import TrainingOptions

_FIRST = 1e-6  # factor on the rate of the first step of a warm-up


def make_optimiser(network: Any, options: TrainingOptions) -> torch.optim.AdamW:
    """AdamW with a higher rate for the heads, perhaps a lower one for early layers, and decay of weights alone.

    Raises:
        InputError: Rates by layer are wanted of a network without layers.
    """
    heads = {id(parameter) for head in network.heads() for parameter in head.parameters()}
    scales = {} if options.layer_decay is None else layer_scales(network, options.layer_decay)
    decays = {name for name, _ in network.named_parameters()} if options.decay_all else decaying(network)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            scale = options.head_rate if id(parameter) in heads else scales.get(name, 1.0)
            groups.setdefault((scale, name in decays), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "peak": options.learning_rate * scale,
                "weight_decay": options.weight_decay if decay else 0.0,
            }
            for (scale, decay), parameters in groups.items()
        ],
        lr=options.learning_rate,
        fused=True,  # a third of a small network's step on a processor was the unfused update
    )


def fill_gradients(optimiser: torch.optim.Optimizer) -> None:
    """A gradient of zero for every parameter that a step does not train, so that it decays and Adam counts the step.

    As where a loss has a weight of 0 in the released code of CoSA. [code: training-steps]
    """
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)


def layer_scales(network: nn.Module, decay: float) -> dict[str, float]:
    """The factors on the rates of a backbone's parameters: decay^k, k layers before the last one, as timm has them.

    Args:
        network: With a timm model inside, which says what its layers are.
        decay: In (0, 1).

    Returns:
        By the parameters' names; those that are frozen have none, nor has what is outside the timm model.

    Raises:
        InputError: The model does not say it.
    """
    models = [module for module in network.modules() if callable(getattr(module, "group_matcher", None))]
    if not models:
        raise InputError(
            "--layer-decay: timm does not say what the layers of this encoder are; "
            "use --decoder largefov, or leave it out"
        )
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    scales: dict[str, float] = {}
    for model in models:  # two of a pair, or one and what is inside of it, which the outer one has spoken for
        for group in param_groups_layer_decay(model, layer_decay=decay):
            for parameter in group["params"]:
                scales.setdefault(names[id(parameter)], group["lr_scale"])
    return scales


def decaying(network: nn.Module) -> set[str]:
    """The names of the parameters that decay.

    Neither vectors (biases, the weights of norms) do, nor what a timm model declares: position embeddings, class and
    register tokens.
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

    As ToCo and CoSA release it [code: schedule]: the decay counts from the first step of all, so that its first step is
    already below the peak.

    Args:
        step: Number of the step, from 0.
        total: Number of steps.
        warmup: Share of the steps in which the rate rises.
        power: Of the decay.
    """
    rising = int(warmup * total)
    if step < rising:
        return 1 - (1 - step / rising) * (1 - _FIRST)
    return float((1 - step / total) ** power)
