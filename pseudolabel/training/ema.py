"""Exponential moving averages (EMA) that start from nothing: of a network's weights, and of a number.

An average with decay d spans about 1 / (1 - d) steps. Where fewer have been taken, the decay is lower, so
that short runs forget where they began. [ours]

The classes that libraries have for it differ: torch's AveragedModel averages counts in buffers, too, and replaces the
first weights at the first step; timm's ModelEmaV3 warms up by another formula; both keep a second network, where a
state dictionary is all that a resumed training and a checkpoint need. So torch's update of lists is used, and no class.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TypeVar

from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

Network = TypeVar("Network", bound=nn.Module)


def make_teacher(network: Network) -> Network:
    """A copy that starts equal to the network, takes no gradient and stays in evaluation mode."""
    teacher = copy.deepcopy(network)
    return teacher.requires_grad_(requires_grad=False).eval()


def warmed_decay(decay: float, step: int) -> float:
    """The decay of an average's ``step``-th update: min(decay, step / (step + 10)); 0 at step 0, which replaces."""
    return min(decay, step / (step + 10))


def update_ema(average: Mapping[str, Tensor], network: nn.Module, decay: float, step: int) -> None:
    """Move an average of parameters and buffers towards a network, in place: theta' <- d theta' + (1 - d) theta.

    Buffers of whole numbers, like batch normalisation's counts, are copied.

    Args:
        average: By the names of the network's state.
        network: What is averaged.
        decay: d once it is warmed up, in (0, 1).
        step: Steps that the network has taken, from 1; d is ``warmed_decay`` of it.
    """
    state = network.state_dict()
    numbers = [name for name, tensor in state.items() if tensor.is_floating_point()]
    move = get_ema_multi_avg_fn(warmed_decay(decay, step))
    move([average[name] for name in numbers], [state[name] for name in numbers], step)
    for name in state.keys() - set(numbers):
        average[name].copy_(state[name])
