"""The training loop: schedule, mixed precision, accumulation, validation, resuming."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from pseudolabel.artefacts.header import CostMeter
from pseudolabel.artefacts.journal import claimed
from pseudolabel.errors import InputError
from pseudolabel.runtime.devices import autocast, pins_memory, seed_everything
from pseudolabel.runtime.files import stands
from pseudolabel.runtime.formatting import counted
from pseudolabel.runtime.progress import Progress
from pseudolabel.training.curves import Curves, CurveWriter, log_folder
from pseudolabel.training.finite import diverged, names_of, require_finite, require_finite_weights
from pseudolabel.training.group import accumulating, apart
from pseudolabel.training.run import Arrays, Batch, Best, Losses, Run, Step, state_path
from pseudolabel.training.samples import load_batches
from pseudolabel.training.schedule import fill_gradients, make_optimiser, rate_factor
from pseudolabel.training.state import require_state, restore_state, share_cost, state_arrays, write_state


def train(run: Run, progress: Progress, cost: CostMeter, *, overwrite: bool) -> None:
    """Train, or go on where a killed training stopped.

    Args:
        run: The training; its ``step``, ``curves`` and ``best`` are filled in.
        progress: Where to report loss, rate and validation.
        cost: The stage's meter; what the killed training had spent at its last saved state is added to it.
        overwrite: Start anew even if a state to resume from is there.

    Raises:
        InputError: The batch cannot be shared among the processes, or batch normalisation, or there are no layers to
            set rates by.
        StalePartialError: The state to resume from was made with other options or inputs.
        InputError: What has the name of the state is something else, or another run is writing the same output.
        DatasetError: A photograph cannot be read.
        PseudolabelError: The processes have found different images or states; the loss is no longer finite, or weights
            are not after the last step or before a validation; the last saved state is kept.
    """
    options, state = run.options, state_path(run.options.out)
    _announce(run, progress)
    if run.group.size > 1:
        run.header = replace(run.header, environment={**run.header.environment, "processes": run.group.size})
    seed_everything(run.header.seed)
    if options.sync_batchnorm:
        run.network = run.group.synchronised(run.network, run.device)
    optimiser = make_optimiser(run.network, options)
    if overwrite and run.group.leads and stands(state):
        require_state(state)
    if state.exists() and not overwrite:
        cost.resume(restore_state(run, optimiser))
        for change in run.header.facts.get("changed", ()):
            progress.warn(f"this training was begun with another {change}")
        progress.log(f"going on from step {run.step} of {run.total_steps} ({state})")
    run.group.require_same({"images": len(run.samples), "first step": run.step}, run.device)
    module = run.group.joint(run.network)
    started, first = time.perf_counter(), run.step
    batches_of_steps = load_batches(
        run.samples,
        options,
        seed=run.header.seed,
        steps=range(run.step, run.total_steps),
        workers=options.workers,
        pin=pins_memory(run.device),
        group=run.group,
    )
    curves: Curves | None = None
    waiting: Arrays | None = None
    with apart(run.group), ExitStack() as stack, progress.track(run.total_steps, "steps", done=run.step) as advance:
        for batches in batches_of_steps:
            values = _step(run, module, optimiser, batches)
            if curves is None:  # a training that cannot take a step leaves nothing behind, and changes nothing
                if run.group.leads:
                    stack.enter_context(claimed(run.options.out))
                if overwrite and run.group.leads:
                    state.unlink(missing_ok=True)
                curves = stack.enter_context(_curves(run))
            if waiting is not None:
                write_state(run, waiting, cost)
                waiting = None
            run.step += 1
            _record(run, curves, values | run.objective.after_step(run.network, run.step))
            advance(1)
            ends = run.step == run.total_steps
            if ends or (run.validate is not None and run.step % run.steps_per_epoch == 0):
                require_finite(run, batches)
            if ends or run.step % run.steps_per_epoch == 0:
                rate = (run.step - first) * run.images_per_step / (time.perf_counter() - started)
                _end_epoch(run, progress, curves, rate)
            if run.step % options.save_every == 0 and run.step < run.total_steps:
                share_cost(run, cost)
                if run.group.leads:
                    waiting = state_arrays(run, optimiser)  # it is good once a step from it has a finite loss
                    require_finite_weights(run, waiting)
    if run.validate is not None and run.group.leads and not run.measured:  # gone on with from its last step
        _validate(run)
    share_cost(run, cost)


def _curves(run: Run) -> Curves:
    wanted = run.options.log and run.group.leads
    return CurveWriter(log_folder(run.options.out), first=run.step) if wanted else Curves()


def training_mode(network: nn.Module) -> None:
    """Set training mode, but for batch normalisations whose weights are frozen: they keep their statistics, too."""
    network.train()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not getattr(module.weight, "requires_grad", True):
            module.eval()


def _announce(run: Run, progress: Progress) -> None:
    options, size, batch = run.options, run.group.size, run.images_per_step
    if batch % size:
        raise InputError(f"{batch} images a step cannot be shared by {size} processes; set --batch-size")
    micro = min(options.micro_batch or batch, batch // size)
    shared = f" x {size} processes" if size > 1 else ""
    progress.log(
        f"{len(run.samples)} images, {counted(run.total_steps / run.steps_per_epoch, 'epoch')}, "
        f"{counted(run.total_steps, 'step')}; "
        f"effective batch {batch} = {batch // size // micro} x {micro}{shared}; {run.device}, {str(run.dtype)[6:]}, "
        f"channels {'last' if run.channels_last else 'first'} in memory"
    )
    if options.recipe_batch is not None and options.recipe_batch != batch:
        progress.warn(
            f"effective batch {batch} differs from the recipe's {options.recipe_batch}, for which the "
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


def _step(run: Run, module: nn.Module, optimiser: torch.optim.AdamW, batches: list[Batch]) -> dict[str, float]:
    """One optimiser step over the micro batches of an effective batch; returns the losses and the rate."""
    options = run.options
    factor = rate_factor(run.step, run.total_steps, warmup=options.warmup, power=options.decay_power)
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * factor
    training_mode(run.network)
    optimiser.zero_grad(set_to_none=True)
    sums: dict[str, Tensor] = {}
    parts = _parts(run, batches)
    for number, batch in enumerate(batches, start=1):
        with accumulating(module, more=number < len(batches)):
            with autocast(run.device, run.dtype), _enough_to_normalise(len(batch["id"])):
                losses = module(parts)
            (losses["loss"] * run.group.size).backward()  # a share of the whole batch's, which is then averaged
        for name, value in losses.items():
            sums[name] = sums[name] + value.detach() if name in sums else value.detach()
    summed = run.group.total(torch.stack([value.float() for value in sums.values()]))
    values = dict(zip(sums, summed.tolist(), strict=True))
    if not math.isfinite(values["loss"]):
        raise diverged(run, f"the loss is {values['loss']} at step {run.step + 1} (images {names_of(batches)})")
    if options.clip_gradients is not None:  # of the whole batch: parts and processes are summed by now
        norm = nn.utils.clip_grad_norm_(run.network.parameters(), options.clip_gradients)
        values["gradient_norm"] = float(norm)
    if options.decay_all:
        fill_gradients(optimiser)
    optimiser.step()
    run.group.share_statistics(run.network)
    return values | {"rate": options.learning_rate * factor}


def _parts(run: Run, batches: list[Batch]) -> Iterator[Losses]:
    """The losses of each micro batch, to be computed in mixed precision."""
    drawn = run.options.log and run.group.leads and run.picture_every and (run.step + 1) % run.picture_every == 0
    return run.objective.losses(run.network, run.moved(batches), Step(run.step, run.images_per_step, bool(drawn)))


def _record(run: Run, curves: Curves, values: dict[str, float]) -> None:
    """Append to the curves, one value a step: not a number where nothing was measured; and what is to be seen."""
    known = {name for name in run.curves if not name.startswith("epoch/")}
    for name in known | values.keys():
        run.curves.setdefault(name, [math.nan] * (run.step - 1)).append(values.get(name, math.nan))
    curves.scalars(run.step, values)
    for name, picture in run.objective.pictures().items():
        curves.picture(run.step, name, picture)


def _end_epoch(run: Run, progress: Progress, curves: Curves, rate: float) -> None:
    """Validate, choose and report."""
    values: dict[str, float] = {}
    epochs = math.ceil(run.total_steps / run.steps_per_epoch)
    epoch = math.ceil(run.step / run.steps_per_epoch)
    recent = run.curves["loss"][-run.steps_per_epoch :]
    message = f"epoch {epoch}/{epochs}: loss {sum(recent) / len(recent):.4f}, {rate:.1f} images/s"
    if run.validate is not None and run.group.leads:
        values = _validate(run)
        for name, value in values.items():
            curve = run.curves.setdefault(f"epoch/{name}", [])
            curve += [math.nan] * (epoch - 1 - len(curve))  # of epochs in which it was not measured
            curve.append(value)
            message += f", {name.replace('_', ' ')} {value:.4f}"
    progress.log(message)
    curves.scalars(run.step, {f"epoch/{name}": value for name, value in values.items()})
    for name, (counts, edges) in run.objective.histograms().items():
        curves.histogram(run.step, name, counts, edges)


def _validate(run: Run) -> dict[str, float]:
    """Measure the network as it is now, and keep this state if one is to be chosen and it is the best so far."""
    assert run.validate is not None  # asked for by who calls
    with run.objective.evaluated(run.network) as network:
        values = run.measured = run.validate(network)
    if run.choose and values[run.choose] > run.best.value:
        kept = {name: array.copy() for name, array in run.objective.checkpoint(run.network).items()}
        run.best = Best(values[run.choose], run.step, kept, values)
    return values
