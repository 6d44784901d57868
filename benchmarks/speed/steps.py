"""What benchmarks of a training step share: the command line, the batches and the step itself."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.common import make_parser

if TYPE_CHECKING:
    import torch

    from pseudolabel.training import Run


def step_parser(doc: str, script: str) -> argparse.ArgumentParser:
    """As ``make_parser``, with the arguments of a training step's benchmark."""
    parser = make_parser(doc, script)
    parser.add_argument("--root", type=Path, required=True, help="data set in VOC layout")
    parser.add_argument("--weights", type=Path, required=True, help="of the backbone")
    parser.add_argument("--backbone", default="vit_tiny_patch16_224")
    parser.add_argument("--crop", type=int, default=224)
    parser.add_argument("--batch", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    return parser


def step_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The training options that ``step_parser``'s arguments stand for; nothing is to be written."""
    return {
        "root": arguments.root,
        "backbone": arguments.backbone,
        "weights": arguments.weights,
        "crop": arguments.crop,
        "batch_size": arguments.batch,
        "log": False,
        "out": Path("nowhere.h5"),
    }


def make_batches(run: Run, size: int, count: int) -> list[dict[str, Any]]:
    """The first images' views as ``count`` batches, on the device."""
    from torch.utils.data import default_collate

    keys = [[(0, start + index) for index in range(size)] for start in range(0, count * size, size)]
    batches = [default_collate([run.samples[key] for key in part]) for part in keys]
    return [{k: v if isinstance(v, list) else v.to(run.device) for k, v in batch.items()} for batch in batches]


def take(run: Run, optimiser: torch.optim.Optimizer, batch: dict[str, Any]) -> float:
    """One step; returns the loss, so that a GPU has finished."""
    from pseudolabel.runtime.devices import autocast
    from pseudolabel.training import Step

    run.network.train()
    optimiser.zero_grad(set_to_none=True)
    with autocast(run.device, run.dtype):
        losses = next(run.objective.losses(run.network, [batch], Step(run.step, len(batch["id"]))))
    losses["loss"].backward()
    optimiser.step()
    run.step += 1
    run.objective.after_step(run.network, run.step)
    return float(losses["loss"].detach())
