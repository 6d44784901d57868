"""A step of train-cosa against the plain form of the same step, and where its time goes.

    python -m benchmarks.speed.cosa_step --root voc-mini --weights vit_tiny_patch16_224.safetensors

Real photographs and tags, batch 5, crops of 224, ViT-Tiny; every part of the method on, the swapped losses from the
first step. Both forms start from the same student and teacher and see the same batches:

    fast    as train-cosa computes it: the number format that the machine is quick in, mirrored views in one batch
    exact   the same in float32
    plain   float32; the teacher looks at one scale and one mirroring at a time, with all of its heads at each; maps are
            resized by torch's own function
    spare   the same, with the segmentation head where it is needed, at scale 1

The targets: plain takes at least twice as long as fast on two cores (three times on a GPU); each loss within 1e-2 of
plain's, in float32 within 1e-5; the threshold search takes at most 1 % of the fast step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from benchmarks.common import alternate, conditions, report, summary, target
from benchmarks.speed.steps import make_batches, step_parser, step_settings, take

if TYPE_CHECKING:
    import torch

    from pseudolabel.cosa.cotraining import CoTraining
    from pseudolabel.cosa.teacher import Seen
    from pseudolabel.models.cosa import CosaNetwork
    from pseudolabel.training import Run

Look = Callable[..., "Seen"]
BATCHES = 6
LOSSES = ("main", "auxiliary", "c2s", "s2c", "regulariser", "contrastive")


def main() -> None:
    """Measure and report."""
    arguments = step_parser(__doc__, __file__).parse_args()
    found = conditions()
    runs = {"fast": make_run(arguments, "auto"), "exact": make_run(arguments, "float32")}
    runs |= {name: make_run(arguments, "float32") for name in PLAIN}
    batches = make_batches(runs["fast"], arguments.batch, BATCHES)
    values = {name: losses_of(run, batches[0], PLAIN.get(name)) for name, run in runs.items()}
    functions = {name: stepper(run, batches, PLAIN.get(name)) for name, run in runs.items()}
    for function in functions.values():
        function()  # compiles, allocates, fits the first mixture
    seconds = alternate(functions, arguments.rounds)
    medians = {name: summary(times)["median"] / BATCHES for name, times in seconds.items()}
    profile = profiled(runs["fast"], batches)
    on_gpu = runs["fast"].device.type == "cuda"
    furthest = {name: max(abs(values[name][k] - values["plain"][k]) for k in LOSSES) for name in values}
    targets = [
        target("plain over fast", medians["plain"] / medians["fast"], ">= 3" if on_gpu else ">= 2"),
        target("furthest loss, fast to plain", furthest["fast"], "<= 0.01"),
        target("furthest loss, float32 to plain", furthest["exact"], "<= 0.00001"),
        target("threshold search over step", profile["threshold search"] / profile["step"], "<= 0.01"),
    ]
    figures = {
        "device": str(runs["fast"].device),
        "dtype": str(runs["fast"].dtype).removeprefix("torch."),
        "spare_over_fast": round(medians["spare"] / medians["fast"], 4),
        "seconds_per_step": {name: round(value, 4) for name, value in medians.items()},
        "seconds": {name: summary(times) for name, times in seconds.items()},
        "losses": values,
        "profile_share_of_step": {name: round(value / profile["step"], 4) for name, value in profile.items()},
    }
    report(__file__, arguments, found, figures, targets)


def make_run(arguments: Any, precision: str) -> Run:
    """A training that begins with co-training; nothing is written."""
    from pseudolabel.data import open_dataset
    from pseudolabel.options import TrainCosaOptions
    from pseudolabel.runtime.devices import pick_device
    from pseudolabel.stages.train_cosa import make_run as build
    from pseudolabel.training import Group

    settings = {**step_settings(arguments), "precision": precision, "classification": 0.0, "holdout": 0.0}
    options = TrainCosaOptions(**settings)
    dataset = open_dataset(options)
    return build(options, dataset, dataset.records, (), [], Group(), pick_device(arguments.device))


def stepper(run: Run, batches: list[dict[str, Any]], look: Look | None) -> Callable[[], object]:
    """A step on each batch, in a plain form if one is given."""
    from pseudolabel.training.schedule import make_optimiser

    optimiser = make_optimiser(run.network, run.options)

    def once() -> object:
        """All of them."""
        with plainly(look):
            return [take(run, optimiser, batch) for batch in batches]

    return once


def losses_of(run: Run, batch: dict[str, Any], look: Look | None) -> dict[str, float]:
    """Each loss of the first batch, before any step."""
    import torch

    from pseudolabel.runtime.devices import autocast
    from pseudolabel.training import Step

    with plainly(look), autocast(run.device, run.dtype), torch.no_grad():
        found = next(run.objective.losses(run.network, [batch], Step(0, len(batch["id"]))))
    return {name: round(float(found[name]), 7) for name in LOSSES}


@contextmanager
def plainly(look: Look | None) -> Iterator[None]:
    """Let the teacher look, and maps be resized, in a plain form for a while; None: as it is."""
    from torch.nn import functional

    from pseudolabel.cosa import assignments, cotraining, losses
    from pseudolabel.cosa import step as cosa_step
    from pseudolabel.pairwise import loss_modules

    if look is None:
        yield
        return

    def resize(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """As torch does it."""
        return functional.interpolate(maps, list(size), mode="bilinear")

    with ExitStack() as stack:
        stack.enter_context(patch.object(cotraining, "teacher_forward", look))
        for place in (assignments, losses, loss_modules, cosa_step):
            stack.enter_context(patch.object(place, "resize", resize))
        yield


def plain_look(
    teacher: CosaNetwork,
    images: torch.Tensor,
    *,
    scales: tuple[float, ...],
    flip: bool,
    times: int,
    inside: torch.Tensor | None,
    cam_fusion: str = "grid",
    spl_scales: str = "one",
    everywhere: bool = True,
) -> Seen:
    """What ``pseudolabel.cosa.teacher.teacher_forward`` computes, a forward pass a scale and mirror; no propagation.

    ``everywhere``: all heads at each scale, or the segmentation head at scale 1 alone.
    """
    assert (times, cam_fusion, spl_scales) == (0, "grid", "one")
    import torch

    from pseudolabel.cosa.teacher import Seen
    from pseudolabel.models.multiscale import activation, scaled_inputs

    stride = teacher.backbone.stride
    grid = (images.shape[2] // stride, images.shape[3] // stride)
    sums: dict[str, list[torch.Tensor]] = {"maps": [], "auxiliary": []}
    segmentation = []
    with torch.no_grad():
        views = scaled_inputs(images, scales, flip=False, multiple=stride)
        for scale, view in zip(scales, views, strict=True):
            network = teacher.outputs if everywhere or scale == 1 else teacher
            outputs = [network(one) for one in ([view, view.flip(3)] if flip else [view])]
            for name, found in sums.items():
                maps = [getattr(output, name) for output in outputs]
                both = torch.cat([maps[0], maps[1]]) if flip else maps[0]
                found.append(activation(both, grid, flip=flip))
            if scale == 1:
                logits = [output.segmentation.float() for output in outputs]
                segmentation = [(logits[0] + logits[1].flip(3)) / 2 if flip else logits[0]]
    main, auxiliary = (torch.stack(maps).sum(dim=0) for maps in sums.values())
    return Seen(main, auxiliary, segmentation[0], grid)


PLAIN: dict[str, Look] = {"plain": plain_look, "spare": partial(plain_look, everywhere=False)}
"""The plain forms by their names."""


def profiled(run: Run, batches: list[dict[str, Any]]) -> dict[str, float]:
    """Seconds of a fast step's parts, on average."""
    import torch

    from pseudolabel.cosa import cotraining
    from pseudolabel.training.schedule import make_optimiser

    spent: dict[str, float] = {}
    objective: CoTraining = run.objective  # type: ignore[assignment]

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose seconds are added up under a name."""

        def call(*words: Any, **settings: Any) -> Any:
            """As the function."""
            wait(run.device)
            begin = time.perf_counter()
            result = function(*words, **settings)
            wait(run.device)
            spent[name] = spent.get(name, 0.0) + time.perf_counter() - begin
            return result

        return call

    captions = {
        "teacher_forward": "teacher's pass",
        "assign": "assignments",
        "student_losses": "swapped losses, forward",
        "update_teacher": "teacher follows",
    }
    optimiser = make_optimiser(run.network, run.options)
    places: list[tuple[Any, str, str]] = [
        *((cotraining, name, caption) for name, caption in captions.items()),
        (run.network, "outputs", "student, forward"),
        (objective.threshold, "update", "threshold search"),
        (torch.Tensor, "backward", "backward"),
        (optimiser, "step", "optimiser"),
    ]
    whole = timed("step", take)
    with ExitStack() as stack:
        for place, name, caption in places:
            stack.enter_context(patch.object(place, name, timed(caption, getattr(place, name))))
        for batch in batches:
            whole(run, optimiser, batch)
    return dict(sorted(((name, value / len(batches)) for name, value in spent.items()), key=lambda item: -item[1]))


def wait(device: torch.device) -> None:
    """Until a GPU has done what it was given."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
