"""``pseudolabel data``: look at a data set, write its tags, draw a list, simulate weak labels, make a synthetic set."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer
from pydantic import BaseModel

from pseudolabel.options.data import (
    DataCheckOptions,
    DataShowOptions,
    DataSplitOptions,
    DataTagsOptions,
    SimulateBoxesOptions,
    SimulateOptions,
    SimulatePointsOptions,
    SimulateScribblesOptions,
    SynthOptions,
)

from .flags import command_of

if TYPE_CHECKING:
    from pseudolabel.runtime.progress import RichProgress


def _check(options: DataCheckOptions, progress: RichProgress, *, as_json: bool) -> None:
    from pseudolabel.data.check import check_dataset
    from pseudolabel.runtime.terminal import printable_line

    from .checks import show_check
    from .render import print_json

    result = check_dataset(options, progress)
    problems = result["problems"]
    if as_json:
        print_json(result)
    else:
        for problem in problems:
            print(printable_line(problem))
        show_check(result)
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


def _split(options: DataSplitOptions, progress: RichProgress, *, as_json: bool) -> None:
    from pseudolabel.data.balanced_lists import draw_list

    from .render import show_result

    show_result("data split", draw_list(options, progress), as_json=as_json)


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


_ACTIONS: dict[str, tuple[type[BaseModel], Callable[..., None]]] = {
    "check": (DataCheckOptions, _check),
    "tags": (DataTagsOptions, _tags),
    "show": (DataShowOptions, _show),
    "split": (DataSplitOptions, _split),
    "scribbles": (SimulateScribblesOptions, _simulate("scribbles")),
    "points": (SimulatePointsOptions, _simulate("points")),
    "boxes": (SimulateBoxesOptions, _simulate("boxes")),
    "synth": (SynthOptions, _synth),
}


def command(name: str) -> Callable[..., None]:
    """The function of one command, whose flags are a model's fields."""
    return command_of(f"data {name}", *_ACTIONS[name])
