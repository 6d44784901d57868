"""The training loop that every training stage shares: schedule, averaging, mixed precision, resuming.

What a step computes depends on the seed, the step's number and the weights alone, never on the number of workers or on
whether the training was interrupted: a resumed training ends with the same weights as an uninterrupted one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pseudolabel.artefacts import (
    Header,
    StalePartialError,
    open_artefact,
    write_artefact,
)
from pseudolabel.artefacts.header import CostMeter, made_differently
from pseudolabel.averaging import update_average
from pseudolabel.devices import autocast, seed_everything
from pseudolabel.errors import ArtefactError, InputError, PseudolabelError
from pseudolabel.models.checkpoint import read_weights, weight_arrays
from pseudolabel.options import TrainingOptions
from pseudolabel.progress import Progress
from pseudolabel.samples import Batch, Samples, load_batches, steps_per_epoch

Curves = dict[str, list[float]]


@dataclass
class Run:
    """One training: what it trains on and where it stands.

    Attributes:
        network: The network, on its device.
        samples: Yields dictionaries of arrays and an ``id``.
        loss: Network and batch to named losses; ``loss`` is the one that is descended.
        options: The stage's settings, as far as trainings share them; the state to resume from lies beside ``out``.
        header: Of the checkpoint to be made.
        device: Where to compute.
        dtype: Number format of the forward pass.
        validate: Called with the network after every epoch; its numbers join the curves.
    """

    network: nn.Module
    samples: Samples
    loss: Callable[[Any, Batch], dict[str, Tensor]]
    options: TrainingOptions
    header: Header
    device: torch.device
    dtype: torch.dtype
    validate: Callable[[Any], dict[str, float]] | None = None
    step: int = 0
    curves: Curves = field(default_factory=dict)

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in one pass; an incomplete last batch is left out."""
        return steps_per_epoch(self.samples, self.options)

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole training."""
        return self.steps_per_epoch * self.options.epochs


def train(run: Run, progress: Progress, cost: CostMeter, *, overwrite: bool) -> dict[str, Tensor]:
    """Train, or go on where a killed training stopped.

    Args:
        run: The training; its ``step`` and ``curves`` are filled in.
        progress: Where to report loss, rate and validation.
        cost: The stage's meter; what the killed training had spent at its last saved state is added to it.
        overwrite: Start anew even if a state to resume from is there.

    Returns:
        The weights to keep: the average's where there is one, else the network's own.

    Raises:
        StalePartialError: The state to resume from was made with other options or inputs.
        DatasetError: A photograph cannot be read.
        PseudolabelError: The loss is no longer finite; the last saved state is kept.
    """
    options = run.options
    _announce(run, progress)
    seed_everything(run.header.seed)
    optimiser = make_optimiser(run.network, options)
    average = {name: tensor.clone() for name, tensor in run.network.state_dict().items()} if options.ema else None
    state = state_path(run.options.out)
    if state.exists() and not overwrite:
        cost.resume(_restore(run, state, optimiser, average))
        progress.log(f"going on from step {run.step} of {run.total_steps} ({state})")
    started, first = time.perf_counter(), run.step
    with progress.track(run.total_steps, "steps", done=run.step) as advance:
        for batches in load_batches(
            run.samples,
            options,
            seed=run.header.seed,
            steps=range(run.step, run.total_steps),
            workers=options.workers,
            pin=run.device.type == "cuda",
        ):
            values = _step(run, optimiser, batches)
            run.step += 1
            if average is not None:
                update_average(average, run.network, options.ema or 0.0, run.step)
            for name, value in values.items():
                run.curves.setdefault(name, []).append(value)
            advance(1)
            if run.step % run.steps_per_epoch == 0:
                rate = (run.step - first) * options.batch_size / (time.perf_counter() - started)
                _end_epoch(run, average, progress, rate)
            if run.step % options.save_every == 0 and run.step < run.total_steps:
                _save(run, state, optimiser, average, cost)
    return average if average is not None else run.network.state_dict()


def save_checkpoint(
    run: Run, weights: Mapping[str, Tensor], cost: CostMeter, *, skipped: Mapping[str, str] | None = None, **facts: Any
) -> dict[str, Any]:
    """Write the checkpoint of a finished training and forget the state to resume from.

    Args:
        run: After ``train``.
        weights: What ``train`` returned.
        cost: The stage's meter.
        skipped: Id to reason, of images that could not be used.
        **facts: What the checkpoint says beside its architecture.

    Returns:
        ``out``, ``loss`` (mean of the last epoch), ``images`` and ``steps``: how every training's result begins.
    """
    arrays = weight_arrays(weights)
    arrays |= {f"curves/{name}": np.asarray(values, dtype=np.float32) for name, values in run.curves.items()}
    if skipped:
        arrays["skipped/id"] = np.array(list(skipped), dtype=object)
        arrays["skipped/reason"] = np.array(list(skipped.values()), dtype=object)
    header = replace(run.header, facts={**run.header.facts, **facts})
    write_artefact(run.options.out, header, arrays, cost, images=run.total_steps * run.options.batch_size)
    state_path(run.options.out).unlink(missing_ok=True)
    recent = run.curves["loss"][-run.steps_per_epoch :]
    loss = sum(recent) / len(recent)
    return {"out": str(run.options.out), "loss": loss, "images": len(run.samples), "steps": run.total_steps}


def training_mode(network: nn.Module) -> None:
    """Set training mode, but for batch normalisations whose weights are frozen: they keep their statistics, too."""
    network.train()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not getattr(module.weight, "requires_grad", True):
            module.eval()


def state_path(out: Path) -> Path:
    """Where a training keeps the state it can resume from, until its checkpoint is written."""
    return out.with_name(out.name + ".training")


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


def _announce(run: Run, progress: Progress) -> None:
    options = run.options
    micro = options.micro_batch or options.batch_size
    progress.log(
        f"{len(run.samples)} images, {options.epochs} epochs, {run.total_steps} steps; effective batch "
        f"{options.batch_size} = {options.batch_size // micro} x {micro}; {run.device}, {str(run.dtype)[6:]}"
    )
    if options.recipe_batch is not None and options.recipe_batch != options.batch_size:
        progress.warn(
            f"effective batch {options.batch_size} differs from the recipe's {options.recipe_batch}, for which the "
            f"learning rate {options.learning_rate:g} was chosen; results will differ"
        )


@contextmanager
def _enough_to_normalise(images: int) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):  # torch's batch normalisation of a single value
            raise
        raise InputError(
            f"batch normalisation cannot learn from a forward pass of {images} image; "
            "raise --batch-size or --micro-batch to 2 or more, or choose another --backbone or --decoder"
        ) from error


def _step(run: Run, optimiser: torch.optim.AdamW, batches: list[Batch]) -> dict[str, float]:
    """One optimiser step over the micro batches of an effective batch; returns mean losses and the rate."""
    options = run.options
    factor = rate_factor(run.step, run.total_steps, warmup=options.warmup, power=options.decay_power)
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * factor
    training_mode(run.network)
    optimiser.zero_grad(set_to_none=True)
    count = sum(len(batch["id"]) for batch in batches)
    sums: dict[str, float] = {}
    for batch in batches:
        share = len(batch["id"]) / count
        on_device = {k: v.to(run.device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in batch.items()}
        with autocast(run.device, run.dtype), _enough_to_normalise(len(batch["id"])):
            losses = run.loss(run.network, on_device)
        (losses["loss"] * share).backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + share * float(value.detach())
    if not math.isfinite(sums["loss"]):
        ids = ", ".join(str(name) for batch in batches for name in batch["id"])
        raise PseudolabelError(
            f"the loss is {sums['loss']} at step {run.step + 1} (images {ids}); the last good state is "
            f"{state_path(run.options.out)}: lower --learning-rate or pass --precision float32"
        )
    optimiser.step()
    return sums | {"rate": options.learning_rate * factor}


def _end_epoch(run: Run, average: dict[str, Tensor] | None, progress: Progress, rate: float) -> None:
    epoch = run.step // run.steps_per_epoch
    recent = run.curves["loss"][-run.steps_per_epoch :]
    message = f"epoch {epoch}/{run.options.epochs}: loss {sum(recent) / len(recent):.4f}, {rate:.1f} images/s"
    if run.validate is not None:
        own = {name: tensor.clone() for name, tensor in run.network.state_dict().items()} if average else None
        if average:
            run.network.load_state_dict(average)
        run.network.eval()
        for name, value in run.validate(run.network).items():
            run.curves.setdefault(f"epoch/{name}", []).append(value)
            message += f", {name.replace('_', ' ')} {value:.4f}"
        if own:
            run.network.load_state_dict(own)
    progress.log(message)


def _save(
    run: Run, state: Path, optimiser: torch.optim.AdamW, average: dict[str, Tensor] | None, cost: CostMeter
) -> None:
    arrays = weight_arrays(run.network.state_dict())
    for index, entry in optimiser.state_dict()["state"].items():
        arrays |= {f"optimiser/{index}/{name}": value.cpu().numpy() for name, value in entry.items()}
    arrays |= weight_arrays(average or {}, "average")
    arrays |= {f"curves/{name}": np.asarray(values) for name, values in run.curves.items()}
    arrays["random/cpu"] = torch.get_rng_state().numpy()
    if run.device.type == "cuda":
        arrays["random/cuda"] = torch.cuda.get_rng_state(run.device).numpy()
    arrays["step"] = np.asarray(run.step)
    header = replace(run.header, kind="training-state")
    write_artefact(state, header, arrays, cost, images=run.step * run.options.batch_size)


def _restore(
    run: Run, state: Path, optimiser: torch.optim.AdamW, average: dict[str, Tensor] | None
) -> Mapping[str, Any]:
    """Fill in what a killed training has saved; returns what it had spent by then."""
    with open_artefact(state, "training-state") as artefact:
        changed = made_differently(artefact.header.options, artefact.header.inputs, run.header)
        if changed:
            raise StalePartialError(
                f"{state} was begun with another {changed}; pass --overwrite to start anew, or another --out"
            )
        file = artefact.file
        run.network.load_state_dict(read_weights(artefact))
        if average is not None:
            average.update({k: v.to(run.device) for k, v in read_weights(artefact, "average").items()})
        known = optimiser.state_dict()
        known["state"] = {
            int(index): {name: torch.from_numpy(np.asarray(value[()])) for name, value in entry.items()}
            for index, entry in file["optimiser"].items()
        }
        optimiser.load_state_dict(known)
        _read_curves(run, file["curves"])
        torch.set_rng_state(torch.from_numpy(file["random/cpu"][:]))
        if run.device.type == "cuda" and "random/cuda" in file:
            torch.cuda.set_rng_state(torch.from_numpy(file["random/cuda"][:]), run.device)
        run.step = int(file["step"][()])
    if run.step > run.total_steps:
        raise ArtefactError(
            f"{state} is {run.step} steps into a training of {run.total_steps}; pass --overwrite to start anew"
        )
    return artefact.header.cost


def _read_curves(run: Run, group: Any, prefix: str = "") -> None:
    for name, item in group.items():
        if hasattr(item, "items"):
            _read_curves(run, item, f"{prefix}{name}/")
        else:
            run.curves[prefix + name] = [float(value) for value in item[:]]
