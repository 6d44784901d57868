"""From an options model to the parameters of a command: names, types, ranges, choices, defaults and help texts.

Every flag is passed on as the text that was given, or None where it was not: pydantic alone says what is valid.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic import BaseModel

from pseudolabel.options.fields import (
    as_word,
    default_of,
    flag_of,
    is_optional,
    is_positional,
    is_repeated,
    panel_of,
    type_of,
    validated,
)

from .failures import traced
from .help import PANELS

FIRST = (
    "images", "dataset", "root", "split", "out", "scribbles", "points", "boxes", "threshold",
    "backbone", "decoder", "epochs", "batch_size", "learning_rate", "crop", "regulariser",
    "method", "tags", "size", "scales", "flip", "crf", "preset",
)  # fmt: skip
"""What people change first leads its panel, in this order; the rest follows in the models' order."""
_WIDEST = 60  # characters of a list of choices that stands with the flag; the name of the choices has a line of its own
_LIMITS = {"ge": ">= ", "gt": "> ", "le": "<= ", "lt": "< "}
_METAVARS: dict[Any, str] = {int: "INTEGER", float: "NUMBER", str: "TEXT", Path: "PATH"}


def _shared(flag: str, help: str, metavar: str | None = None) -> Any:
    return typer.Option(flag, help=help, metavar=metavar, rich_help_panel=PANELS["execution"])


Config = Annotated[Path | None, _shared("--config", "YAML file of settings. --set and flags override it.", "FILE")]
Assignments = Annotated[
    list[str] | None, _shared("--set", "A single setting; may be repeated. Flags override it.", "KEY=VALUE")
]
Json = Annotated[bool, _shared("--json", "Print the result as JSON.")]
Quiet = Annotated[bool, _shared("--quiet", "Print only warnings and errors to stderr.")]
Trace = Annotated[bool, _shared("--traceback", "Print the Python traceback of an error.")]


def sign(function: Callable[..., None], model: type[BaseModel], *, layered: bool = True) -> Callable[..., None]:
    """Give a function of keywords the signature that Typer makes a command line from.

    Args:
        function: Takes ``as_json``, ``quiet``, ``trace`` and every setting by its name; if layered also ``config`` and
            ``assignments``.
        model: The settings; positional ones come first, then a panel after the other, each as FIRST says.
        layered: Whether settings may also come from --config and --set.
    """
    names = sorted(model.model_fields, key=lambda name: _place(model, name))
    annotations = {name: _annotation(model, name) for name in names}
    annotations |= {"config": Config, "assignments": Assignments} if layered else {}
    annotations |= {"as_json": Json, "quiet": Quiet, "trace": Trace}
    signature = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=_default(annotation), annotation=annotation)
        for name, annotation in annotations.items()
    ]
    function.__signature__ = inspect.Signature(signature)  # type: ignore[attr-defined]
    function.__annotations__ = annotations
    return function


def command_of(name: str, model: type[BaseModel], action: Callable[..., None]) -> Callable[..., None]:
    """A command whose flags are a model's fields, without settings from a file.

    Args:
        name: Its words, for errors.
        model: The settings.
        action: Takes the validated settings, where to report, and ``as_json``.
    """

    def command(**words: Any) -> None:
        as_json, quiet, trace = (words.pop(flag) for flag in ("as_json", "quiet", "trace"))
        with traced(trace):
            from pseudolabel.runtime.progress import RichProgress

            given = {key: value for key, value in words.items() if value is not None}
            action(validated(model, given, where=name), RichProgress(quiet=quiet), as_json=as_json)

    return sign(command, model, layered=False)


def _default(annotation: Any) -> bool | None:
    return False if annotation in (Json, Quiet, Trace) else None


def _annotation(model: type[BaseModel], name: str) -> Any:
    kind, limits = type_of(model, name)
    flag = flag_of(name)
    described: dict[str, Any] = {"help": _help(model, name, limits), "show_default": False}
    if is_positional(model, name):
        return Annotated[str | None, typer.Argument(metavar=name.upper(), **described)]
    described["rich_help_panel"] = PANELS[panel_of(model, name)]
    if kind is bool:
        return Annotated[bool | None, typer.Option(f"--{flag}/--no-{flag}", **described)]
    if is_repeated(model, name):
        described["callback"] = _none_if_empty
        return Annotated[list[str] | None, typer.Option(f"--{flag}", metavar="PATH", **described)]
    words = [as_word(word) for word in get_args(kind)] if get_origin(kind) is Literal else []
    several = "TEXT,..." if str in get_args(kind) else "NUMBER,..."
    metavar = "|".join(words) or _METAVARS.get(kind) or (several if ... in get_args(kind) else "LOW,HIGH")
    if len(metavar) > _WIDEST:
        metavar, described["help"] = "CHOICE", _help(model, name, limits, words)
    if words and is_optional(model, name):
        words.append("none")

    def complete(incomplete: str) -> list[str]:
        """The words that begin so."""
        return [word for word in words if word.startswith(incomplete)]

    option = typer.Option(f"--{flag}", metavar=metavar, autocompletion=complete if words else None, **described)
    return Annotated[str | None, option]


def _none_if_empty(values: list[str] | None) -> list[str] | None:
    """What was given of a flag that may be repeated; None where it was not."""
    return values or None


def _place(model: type[BaseModel], name: str) -> tuple[bool, int, int]:
    """What settings are sorted by: by position or not, panel, place within it."""
    rank = FIRST.index(name) if name in FIRST else len(FIRST)
    return not is_positional(model, name), list(PANELS).index(panel_of(model, name)), rank


def _help(model: type[BaseModel], name: str, limits: dict[str, float], words: Sequence[str] = ()) -> str:
    """The setting's own text; in brackets its choices, where they do not stand with the flag, its range and default."""
    text, default = str(model.model_fields[name].description), default_of(model, name)
    notes = [f"one of {', '.join(words)}"] if words else []
    if limits.keys() == {"ge", "le"}:
        notes.append(f"{as_word(limits['ge'])} to {as_word(limits['le'])}")
    else:
        notes += [_LIMITS[key] + as_word(limit) for key, limit in limits.items()]
    if default is ...:
        notes.append("required")
    elif default is not None:
        notes.append(f"default: {as_word(default)}")
    return f"{text} ({'; '.join(notes)})" if notes else text
