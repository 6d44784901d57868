"""Several processes that train one network, as torchrun starts them.

Each process takes its part of every batch. Losses are shares of the whole batch's, so that gradients are summed over
processes, never averaged: N processes learn what one would from the same batch, to rounding.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pseudolabel.errors import InputError, PseudolabelError
from pseudolabel.runtime.devices import group_backend, pick_device

_PATIENCE = timedelta(hours=2)  # while the first process validates and writes, the others wait


@dataclass(frozen=True)
class Group:
    """This process among those that train together; by default it is alone.

    Attributes:
        rank: Its number, from 0. The first one validates, reports and writes.
        size: How many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that validates, reports and writes."""
        return self.rank == 0

    def total(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def sum_gradients(self, network: nn.Module) -> None:
        """Sum the gradients of all processes; every process has them for the same parameters."""
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        if self.size == 1 or not gradients:
            return
        together = self.total(torch.cat([gradient.flatten() for gradient in gradients]))
        begin = 0
        for gradient in gradients:
            gradient.copy_(together[begin : begin + gradient.numel()].view_as(gradient))
            begin += gradient.numel()

    def share_statistics(self, network: nn.Module) -> None:
        """Average what batch normalisations have seen, so that the networks of all processes stay the same."""
        if self.size > 1:
            for buffer in network.buffers():
                if buffer.is_floating_point():
                    self.total(buffer).div_(self.size)


@contextmanager
def apart(group: Group) -> Iterator[None]:
    """Mark errors in work that is not the same in all processes, so that each says what it has met."""
    try:
        yield
    except PseudolabelError as error:
        error.alone = group.size > 1
        raise


@contextmanager
def joined(device: str) -> Iterator[tuple[Group, torch.device]]:
    """Join the processes that torchrun has started, if it has.

    Args:
        device: Value of ``--device``; each process of a group takes the accelerator of its own number on its machine.

    Yields:
        The group and the device.

    Raises:
        InputError: One accelerator was named for several processes, or there are fewer of them than processes.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Group(), pick_device(device)
        return
    kind, one, _ = device.partition(":")
    if one:
        raise InputError(f"--device {device} is one accelerator for {size} processes; use --device {kind}")
    found = pick_device(device)
    if found.type == "mps":
        raise InputError(f"--device {device} is one accelerator (mps) for {size} processes; use --device cpu")
    if found.type != "cpu":
        with apart(Group(size=size)):  # the first process has its accelerator
            found = pick_device(f"{found.type}:{os.environ.get('LOCAL_RANK', '0')}")
        torch.get_device_module(found).set_device(found)
    dist.init_process_group(group_backend(found), timeout=_PATIENCE)
    try:
        yield Group(dist.get_rank(), size), found
        dist.barrier()  # nobody leaves before the first process has written
    finally:
        dist.destroy_process_group()
