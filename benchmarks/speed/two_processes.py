"""Summing gradients over two processes: DistributedDataParallel against one summation after the backward pass.

    python -m benchmarks.speed.two_processes

Steps of a CAM network without weights on random images, in two processes of a processor, with and without accumulation:

    during  as trainings do it: gradients are summed in buckets while the backward pass still runs
    after   all gradients as one vector, summed when it is over, and copied back

The targets: gradients are the same, bit by bit; during takes no longer than after.
"""

from __future__ import annotations

import os
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.common import alternate, conditions, make_parser, report, summary, target

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pseudolabel.models.cam import CamNetwork

SIZE = 2
CLASSES = 20


def main() -> None:
    """Measure and report."""
    from torch.multiprocessing.spawn import spawn

    parser = make_parser(__doc__, __file__)
    parser.add_argument("--backbone", default="vit_tiny_patch16_224")
    parser.add_argument("--crop", type=int, default=224)
    parser.add_argument("--images", type=int, default=2, help="of a part, in each process (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=4, help="of a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    arguments.conditions = conditions()
    with tempfile.TemporaryDirectory() as folder:
        meeting = f"file://{Path(folder) / 'meeting'}"
        spawn(measured, (arguments, meeting), nprocs=SIZE)


def measured(rank: int, arguments: Namespace, meeting: str) -> None:
    """What each process does; the first one reports."""
    import torch
    import torch.distributed as dist

    from pseudolabel.models.backbone import Backbone
    from pseudolabel.models.cam import CamNetwork
    from pseudolabel.training import Group

    torch.set_num_threads(max(1, (os.cpu_count() or SIZE) // SIZE))
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=SIZE)
    torch.manual_seed(0)
    network = CamNetwork(Backbone(arguments.backbone), CLASSES, "gap")
    torch.manual_seed(rank)
    images = torch.randn(2, arguments.images, 3, arguments.crop, arguments.crop)
    module = Group(rank, SIZE).joint(network)
    figures, targets = {}, []
    for count in (1, 2):
        forms = {
            "during": partial(during, module, network, images[:count]),
            "after": partial(after, network, images[:count]),
        }
        gradients = {}
        for name, form in forms.items():
            form()
            found = [parameter.grad for parameter in network.parameters()]
            gradients[name] = [gradient.clone() for gradient in found if gradient is not None]
        same = all(map(torch.equal, gradients["during"], gradients["after"]))
        rounds = {name: partial(several, form, arguments.steps) for name, form in forms.items()}
        seconds = alternate(rounds, arguments.rounds)
        medians = {name: summary(times)["median"] / arguments.steps for name, times in seconds.items()}
        parts = f"{count} part{'s' * (count > 1)} a step"
        figures[parts] = {name: round(value, 4) for name, value in medians.items()}
        targets.append(target(f"gradients that are the same, {parts}", float(same), ">= 1"))
        targets.append(target(f"during over after, {parts}", medians["during"] / medians["after"], "<= 1"))
    size = sum(parameter.numel() for parameter in network.parameters())
    if rank == 0:
        everything = {"parameters": size, "seconds_per_step": figures}
        report(__file__, arguments, arguments.conditions, everything, targets)
    dist.destroy_process_group()


def several(step: partial[None], steps: int) -> None:
    """Several steps."""
    for _ in range(steps):
        step()


def losses(network: CamNetwork, images: Tensor) -> Iterator[dict[str, Tensor]]:
    """One loss a part (images are (parts, B, 3, H, W))."""
    for part in images:
        yield {"loss": network(part).logits.square().sum()}


def during(module: nn.Module, network: CamNetwork, images: Tensor) -> None:
    """A step's gradients as trainings sum them."""
    from pseudolabel.training.group import accumulating

    network.zero_grad(set_to_none=True)
    parts = losses(network, images)
    for number in range(1, len(images) + 1):
        with accumulating(module, more=number < len(images)):
            (module(parts)["loss"] * SIZE).backward()


def after(network: CamNetwork, images: Tensor) -> None:
    """A step's gradients, summed as one vector in the end."""
    import torch
    import torch.distributed as dist

    network.zero_grad(set_to_none=True)
    for part in losses(network, images):
        part["loss"].backward()
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    together = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(together)
    begin = 0
    for gradient in gradients:
        gradient.copy_(together[begin : begin + gradient.numel()].view_as(gradient))
        begin += gradient.numel()


if __name__ == "__main__":
    main()
