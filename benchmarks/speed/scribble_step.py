"""A training step with each regularised loss, against one with the partial cross entropy alone.

    python -m benchmarks.speed.scribble_step --root voc-mini --weights vit_tiny.safetensors --scribbles strokes

Real photographs, batch 5, crops of 224, ViT-Tiny; every loss at its full strength. The steps of all losses alternate,
on the same batches; the time of loading is not in them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.common import alternate, conditions, report, summary
from benchmarks.speed.steps import make_batches, step_parser, step_settings, take

if TYPE_CHECKING:
    from collections.abc import Callable

    from pseudolabel.training import Run

BATCHES = 6
LOSSES = ("none", "densecrf", "normalised-cut", "kernel-cut", "gated-crf", "dfr")


def main() -> None:
    """Measure and report."""
    parser = step_parser(__doc__, __file__)
    parser.add_argument("--scribbles", type=Path, required=True, help="folder of scribbles of its train split")
    arguments = parser.parse_args()
    found = conditions()
    runs = {name: make_run(arguments, name) for name in LOSSES}
    functions = {name: stepper(run, arguments.batch) for name, run in runs.items()}
    for function in functions.values():
        function()  # compiles and allocates
    seconds = {name: summary(times) for name, times in alternate(functions, arguments.rounds).items()}
    alone = seconds["none"]["median"]
    figures = {
        "device": str(runs["none"].device),
        "dtype": str(runs["none"].dtype).removeprefix("torch."),
        "step_over_partial_cross_entropy": {name: round(each["median"] / alone, 2) for name, each in seconds.items()},
        "seconds": seconds,
    }
    report(__file__, arguments, found, figures, [])


def make_run(arguments: Any, regulariser: str) -> Run:
    """A training whose regulariser is at its full strength from the first step; nothing is written."""
    from pseudolabel.data import open_dataset
    from pseudolabel.options import TrainScribbleOptions
    from pseudolabel.runtime.devices import pick_device
    from pseudolabel.scribble.training_data import LabelledCrops
    from pseudolabel.stages.train_scribble import make_run as build
    from pseudolabel.training import Group

    loss = {"scribbles": arguments.scribbles, "regulariser": regulariser, "start": 0.0, "ramp": 0.0}
    options = TrainScribbleOptions(**step_settings(arguments), **loss)
    dataset = open_dataset(options)
    views = LabelledCrops(dataset, frozenset(), None, options).of(dataset.records)
    return build(options, dataset, views, (), [], Group(), pick_device(arguments.device))


def stepper(run: Run, size: int) -> Callable[[], object]:
    """A step on each batch."""
    from pseudolabel.training.schedule import make_optimiser

    optimiser, batches = make_optimiser(run.network, run.options), make_batches(run, size, BATCHES)
    return lambda: [take(run, optimiser, batch) for batch in batches]


if __name__ == "__main__":
    main()
