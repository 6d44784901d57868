"""Several processes that train one network, as torchrun starts them.

Each process takes its part of every batch. Losses are shares of the whole batch's, so that gradients are summed over
processes, never averaged: N processes learn what one would from the same batch, to rounding. torch's
DistributedDataParallel does the summing, while the backward pass still runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm  # type: ignore[attr-defined]  # it has no __all__
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

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

    def require_same(self, what: dict[str, int], device: torch.device) -> None:
        """Refuse to go on where processes have found different things, as they would wait for each other for ever.

        Args:
            what: Numbers by what they are of, with the same names in all processes.
            device: Where tensors are exchanged.

        Raises:
            PseudolabelError: Some number is another one in some process.
        """
        if self.size == 1:
            return
        table = torch.zeros(self.size, len(what), dtype=torch.int64, device=device)
        table[self.rank] = torch.tensor(list(what.values()))
        for name, found in zip(what, self.total(table).T.tolist(), strict=True):
            if len(set(found)) > 1:
                raise PseudolabelError(
                    f"the processes differ in their {name}: {', '.join(map(str, found))}; "
                    "let all of them read the same files, and start them again"
                )

    def joint(self, network: nn.Module) -> nn.Module:
        """A network as ``PartLosses``, whose backward pass averages gradients over processes where there are several.

        Args:
            network: On its device, as it is before the first step, with the same weights in all processes.
        """
        module = PartLosses(network)
        if self.size == 1:
            return module
        # a step may need other parameters than the last one did, as the first after CoSA's warm-up
        return DistributedDataParallel(module, find_unused_parameters=True, gradient_as_bucket_view=True)

    def synchronised(self, network: nn.Module, device: torch.device) -> nn.Module:
        """A network whose batch normalisations see the images of all processes, where there are several.

        Args:
            network: Changed in place; its parameters, buffers and their names stay.
            device: Where it is.

        Raises:
            InputError: The processes have no GPUs.
        """
        if self.size == 1:
            return network
        if device.type != "cuda":
            raise InputError(
                f"--sync-batchnorm needs a GPU for each of the {self.size} processes, found --device {device.type}; "
                "leave it out"
            )
        # timm's function, as torch's would lose the activations inside timm's normalisations
        found: nn.Module = convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return found

    def share_statistics(self, network: nn.Module) -> None:
        """Average what batch normalisations have seen, so that the networks of all processes stay the same."""
        if self.size > 1:
            for buffer in network.buffers():
                if buffer.is_floating_point():
                    self.total(buffer).div_(self.size)


class PartLosses(nn.Module):
    """The losses of a step's parts as a forward pass, whichever methods of a network they call.

    DistributedDataParallel awaits the gradients that a forward pass asks for, and knows no other way into a network.
    This has the network's parameters and none of its buffers, which would be replaced by the first process's.

    Args:
        network: Whose gradients are wanted.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        # nothing uses the last one: without any like it, torch warns that looking for them is a waste
        self.trained = nn.ParameterList([*trained, trained[0].new_zeros(1)])

    def forward(self, parts: Iterator[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The next part's losses, of which ``loss`` alone has a gradient."""
        return {name: value if name == "loss" else value.detach() for name, value in next(parts).items()}


def accumulating(module: nn.Module, *, more: bool) -> AbstractContextManager[None]:
    """Where forward and backward pass of a part belong: only those of a step's last part reach other processes.

    Args:
        module: Of ``Group.joint``.
        more: Whether more parts follow in the step.
    """
    return module.no_sync() if isinstance(module, DistributedDataParallel) and more else nullcontext()


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
