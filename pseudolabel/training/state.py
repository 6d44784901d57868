"""What a training writes: the state that a killed one resumes from, and the checkpoint at its end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pseudolabel.artefacts import Header, StalePartialError, open_artefact, read_header, write_artefact
from pseudolabel.artefacts.header import CostMeter, differences
from pseudolabel.data import Record
from pseudolabel.errors import ArtefactError, InputError
from pseudolabel.models.checkpoint import read_weights, weight_arrays
from pseudolabel.runtime.devices import random_state, set_random_state, wide_dtype
from pseudolabel.training.finite import not_finite, require_finite_weights
from pseudolabel.training.run import Arrays, Best, Run, state_path


def save_checkpoint(
    run: Run,
    cost: CostMeter,
    kept: Iterable[Record],
    held_out: Iterable[Record],
    *,
    skipped: Mapping[str, str] | None = None,
    **facts: Any,
) -> dict[str, Any]:
    """Write the checkpoint of a finished training and forget the state to resume from.

    Args:
        run: After ``train``.
        cost: The stage's meter.
        kept: The images that were trained on.
        held_out: Those that were held out.
        skipped: Id to reason, of images that could not be used.
        **facts: What the checkpoint says beside its architecture.

    Returns:
        ``out``, ``loss`` (mean of the last epoch), ``images`` and ``steps``: how every training's result begins.

    Raises:
        PseudolabelError: Weights are not finite, or the file cannot be written; the state is kept.
    """
    recent = run.curves["loss"][-run.steps_per_epoch :]
    result = {
        "out": str(run.options.out),
        "loss": sum(recent) / len(recent),
        "images": len(run.samples),
        "steps": run.total_steps,
    }
    if not run.group.leads:
        return result
    arrays = {**run.more, **(run.best.arrays if run.choose else run.objective.checkpoint(run.network))}
    require_finite_weights(run, arrays)
    arrays |= {f"curves/{name}": np.asarray(values, dtype=np.float32) for name, values in run.curves.items()}
    arrays["images/id"] = np.array([record.id for record in kept], dtype=object)
    if skipped:
        arrays["skipped/id"] = np.array(list(skipped), dtype=object)
        arrays["skipped/reason"] = np.array(list(skipped.values()), dtype=object)
    facts["held_out"] = [record.id for record in held_out]
    header = replace(run.header, facts={**run.header.facts, **facts})
    write_artefact(run.options.out, header, arrays, cost, images=run.total_steps * run.images_per_step)
    state_path(run.options.out).unlink(missing_ok=True)
    return result


def state_arrays(run: Run, optimiser: torch.optim.AdamW) -> Arrays:
    """Everything that a resumed training needs, as it is now: a copy, which further steps do not reach."""
    arrays = weight_arrays(run.network.state_dict())
    order = _order(run, optimiser)
    for index, entry in optimiser.state_dict()["state"].items():
        arrays |= {f"optimiser/{order[index]}/{name}": value.cpu().numpy() for name, value in entry.items()}
    arrays |= {f"objective/{name}": array for name, array in run.objective.state().items()}
    arrays |= {f"curves/{name}": np.asarray(values) for name, values in run.curves.items()}
    if run.best.arrays:
        arrays |= {f"best/{name}": array for name, array in run.best.arrays.items()}
        arrays |= {"chosen/value": np.asarray(run.best.value), "chosen/step": np.asarray(run.best.step)}
        arrays |= {f"chosen/measured/{name}": np.asarray(value) for name, value in run.best.measured.items()}
    arrays["random/cpu"] = torch.get_rng_state().numpy()
    state = random_state(run.device)
    if state is not None:
        arrays[f"random/{run.device.type}"] = state.numpy()
    arrays["step"] = np.asarray(run.step)
    return {name: array.copy() for name, array in arrays.items()}


def write_state(run: Run, arrays: Arrays, cost: CostMeter) -> None:
    """Write what ``state_arrays`` gave to where a killed training looks for it."""
    header = replace(run.header, kind="training-state")
    write_artefact(state_path(run.options.out), header, arrays, cost, images=int(arrays["step"]) * run.images_per_step)


def require_state(path: Path) -> None:
    """Refuse to start anew where that would remove something else than the state of a training.

    Raises:
        InputError: What has its name is no such file.
    """
    try:
        read_header(path, "training-state")
    except InputError as error:
        raise InputError(
            f"{path} is not the state of a training ({error}), and is not replaced; "
            "move it away, or choose another --out"
        ) from error


def share_cost(run: Run, cost: CostMeter) -> None:
    """Let the meter count what the other processes of the group have used; all of them call it."""
    if run.group.size > 1:
        table = torch.zeros(run.group.size, 2, dtype=wide_dtype(run.device), device=run.device)
        table[run.group.rank] = torch.tensor(cost.used(), dtype=table.dtype)
        used = run.group.total(table).tolist()
        cost.add([row for rank, row in enumerate(used) if rank != run.group.rank])


def restore_state(run: Run, optimiser: torch.optim.AdamW) -> Mapping[str, Any]:
    """Fill in what a killed training has saved; returns what it had spent by then.

    With ``--resume-changed`` other options or inputs are no hindrance: from here on the new ones hold, and the header's
    fact ``changed`` names them, with the step. Where pixel masks were used before, they were used.

    Raises:
        StalePartialError: The state was made with other options or inputs, or has other parameters frozen.
        ArtefactError: It is of a longer training, or of another network or optimiser, or has weights that are not
            finite.
    """
    state = state_path(run.options.out)
    with open_artefact(state, "training-state") as artefact:
        changed = differences(artefact.header.options, artefact.header.inputs, run.header)
        if changed and not run.options.resume_changed:
            raise StalePartialError(
                f"{state} was begun with another {changed[0]}; "
                "pass --overwrite to start anew, another --out, or --resume-changed to go on all the same"
            )
        if run.header.options.get("freeze") != artefact.header.options.get("freeze"):
            raise StalePartialError(
                f"{state} has an optimiser of other parameters, as it was begun with another --freeze; "
                "pass --overwrite to start anew, another --out, or the --freeze that it was begun with"
            )
        file = artefact.file
        stored = _arrays({name: file[name] for name in ("weights", "objective", "best") if name in file})
        spoilt = not_finite(stored)
        if spoilt is not None:
            raise ArtefactError(f"{state} has weights that are not finite ({spoilt}); pass --overwrite to start anew")
        _note(run, artefact.header, [f"{change} from step {int(file['step'][()])}" for change in changed])
        try:
            run.network.load_state_dict(read_weights(artefact))
        except RuntimeError as error:
            raise ArtefactError(f"{state} is of another network; pass --overwrite to start anew") from error
        known, order, parameters = optimiser.state_dict(), _order(run, optimiser), dict(run.network.named_parameters())
        if not set(file["optimiser"]) <= set(order):
            raise ArtefactError(f"{state} has an optimiser of other parameters; pass --overwrite to start anew")
        known["state"] = {
            order.index(name): {key: _laid_out(value, parameters[name]) for key, value in entry.items()}
            for name, entry in file["optimiser"].items()
        }
        optimiser.load_state_dict(known)
        try:
            run.objective.restore(run.network, _arrays(file.get("objective", {})))
        except ValueError as error:
            raise ArtefactError(f"{state}: {error}; pass --overwrite to start anew") from error
        run.curves.update({name: array.tolist() for name, array in _arrays(file["curves"]).items()})
        if "chosen" in file and _judged_alike(run, artefact.header):
            measured = {name: float(value) for name, value in _arrays(file.get("chosen/measured", {})).items()}
            step = int(file["chosen/step"][()])
            run.best = Best(float(file["chosen/value"][()]), step, _arrays(file["best"]), measured)
        torch.set_rng_state(torch.from_numpy(file["random/cpu"][:]))
        name = f"random/{run.device.type}"
        if run.device.type != "cpu" and name in file:
            set_random_state(run.device, torch.from_numpy(file[name][:]))
        run.step = int(file["step"][()])
    if run.step > run.total_steps:
        raise ArtefactError(
            f"{state} is {run.step} steps into a training of {run.total_steps}; pass --overwrite to start anew"
        )
    return artefact.header.cost


def _note(run: Run, begun: Header, changed: list[str]) -> None:
    """Let the training's header name what was changed in its course, and keep why it was an oracle before."""
    changes = [*begun.facts.get("changed", ()), *changed]
    if changes:
        oracle = tuple(dict.fromkeys((*begun.oracle, *run.header.oracle)))
        run.header = replace(run.header, facts={**run.header.facts, "changed": changes}, oracle=oracle)


def _judged_alike(run: Run, begun: Header) -> bool:
    """Whether the best state so far was chosen on the images, of the size, that choose from here on."""
    names = ("validate_on", "split", "holdout", "seed", "crop")
    return all(begun.options.get(name) == run.header.options.get(name) for name in names)


def _order(run: Run, optimiser: torch.optim.AdamW) -> list[str]:
    """The names of the parameters in the order of the optimiser, which depends on what its groups are."""
    names = {id(parameter): name for name, parameter in run.network.named_parameters()}
    return [names[id(parameter)] for group in optimiser.param_groups for parameter in group["params"]]


def _laid_out(values: Any, parameter: Tensor) -> Tensor:
    """A tensor of the optimiser in the memory order of its parameter: the fused step pairs them in that order."""
    found = torch.from_numpy(np.asarray(values[()]))
    return found if found.shape != parameter.shape else torch.empty_like(parameter, device="cpu").copy_(found)


def _arrays(group: Mapping[str, Any], prefix: str = "") -> Arrays:
    """All datasets below an HDF5 group, by their names in it."""
    found: Arrays = {}
    for name, item in group.items():
        if hasattr(item, "items"):
            found |= _arrays(item, f"{prefix}{name}/")
        else:
            found[prefix + name] = np.asarray(item[()])
    return found
