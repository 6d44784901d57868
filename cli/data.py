"""``pseudolabel data``: look at a data set, write its tags, simulate weak labels, or make a synthetic set."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import typer
from pydantic import BaseModel

from pseudolabel.options import (
    DataCheckOptions,
    DataShowOptions,
    DataTagsOptions,
    SimulateBoxesOptions,
    SimulateOptions,
    SimulatePointsOptions,
    SimulateScribblesOptions,
    SynthOptions,
)
from pseudolabel.runtime.progress import RichProgress

from .flags import command_of
from .help import PlainCommand, PlainGroup

app = typer.Typer(
    help="Check a data set, show its weak labels, write its tags, simulate weak labels, or make a synthetic set.",
    no_args_is_help=True,
    cls=PlainGroup,
)


def _check(options: DataCheckOptions, progress: RichProgress, *, as_json: bool) -> None:
    from pseudolabel.data.check import check_dataset

    from .render import print_json
    from .tables import console, key_values

    result = check_dataset(options, progress)
    problems = result["problems"]
    if as_json:
        print_json(result)
    else:
        for problem in problems:
            print(problem)
        console().print(key_values(result | {"problems": len(problems)}, title="data check"))
    if problems:
        raise typer.Exit(2)


def _tags(options: DataTagsOptions, progress: RichProgress, *, as_json: bool) -> None:
    from pseudolabel.data.opening import load_dataset
    from pseudolabel.data.tags import save_table, write_table
    from pseudolabel.data.weak.labels import check_tags

    from .render import print_json
    from .tables import console, key_values

    dataset = load_dataset(options.model_dump())
    for record in dataset.records:
        check_tags(record, dataset.classes)
    for reason in dataset.oracle:
        progress.warn(f"oracle: {reason}")
    if options.out is None and not as_json:
        write_table(dataset, sys.stdout)
        return
    result: dict[str, Any] = {"tag_source": dataset.tag_source, "oracle": list(dataset.oracle)}
    if options.out is None:
        tagged = {record.id: record.tags for record in dataset.records if record.tags is not None}
        print_json(result | {"tags": {name: [dataset.classes[tag] for tag in tags] for name, tags in tagged.items()}})
        return
    result = {"out": str(options.out), "images": save_table(dataset, options.out)} | result
    if as_json:
        print_json(result)
    else:
        console().print(key_values(result, title="data tags"))


def _synth(options: SynthOptions, progress: RichProgress, *, as_json: bool) -> None:
    from pseudolabel.data.layouts.synthetic import synth

    from .render import show_result

    show_result("data synth", synth(options, progress), as_json=as_json)


def _show(options: DataShowOptions, progress: RichProgress, *, as_json: bool) -> None:
    from pseudolabel.export.weak_labels import show_labels

    from .render import show_result

    show_result("data show", show_labels(options, progress), as_json=as_json)


def _simulate(kind: str) -> Callable[..., None]:
    def action(options: SimulateOptions, progress: RichProgress, *, as_json: bool) -> None:
        from pseudolabel.data.simulate import labels as simulate

        from .render import show_result

        result = getattr(simulate, f"simulate_{kind}")(options, progress)
        show_result(f"data {kind}", result, as_json=as_json)

    return action


def _command(name: str, model: type[BaseModel], action: Callable[..., None], example: str) -> None:
    """Add a command whose flags are a model's fields."""
    command = command_of(f"data {name}", model, action)
    app.command(name, cls=PlainCommand, epilog=f"Example: pseudolabel data {name} {example}")(command)


_command("check", DataCheckOptions, _check, "--dataset voc --root VOCdevkit/VOC2012 --split val")
_command("tags", DataTagsOptions, _tags, "--dataset coco --root coco --split train2014 --out tags.csv")
_command("show", DataShowOptions, _show, "--root VOCdevkit/VOC2012 --scribbles scribbles --count 12 --out work/shown")
_SIMULATIONS: dict[str, type[BaseModel]] = {
    "scribbles": SimulateScribblesOptions,
    "points": SimulatePointsOptions,
    "boxes": SimulateBoxesOptions,
}
for _kind, _model in _SIMULATIONS.items():
    _example = f"--from masks --root VOCdevkit/VOC2012 --split train --out work/{_kind}"
    _command(_kind, _model, _simulate(_kind), _example)
_command("synth", SynthOptions, _synth, "--out work/synthetic --train 600")
