"""The command line: one command a stage, generated from ``options.STAGES``, and those that look after whole runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from pseudolabel import __version__

from .catalogue import DATA, GROUPS, RUNS, STAGES, Entry
from .failures import exit_code, speaks_for_all, traced
from .help import PlainCommand, PlainGroup

_MODULES = {
    "run": "runs",
    "inspect": "runs",
    "demo": "runs",
    "compare": "comparisons",
    "report": "comparisons",
    "export-model": "exports",
}
"""Where the functions of the commands that are no stages lie; each is imported when its command is asked for."""


class Commands(Mapping[str, Any]):
    """Commands by name; each is built, flags and all, when it is first asked for.

    Args:
        entries: What is known of each before that.
        build: Builds one by its name.
    """

    def __init__(self, entries: Mapping[str, Entry], build: Callable[[str], Any]) -> None:
        self._entries, self._build = entries, build
        self._built: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._built:
            if name not in self._entries:
                raise KeyError(name)
            self._built[name] = self._build(name)
        return self._built[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


class RootGroup(PlainGroup):
    """``pseudolabel``."""

    panels = {  # noqa: RUF012 - never changed
        "Stages": {name: entry.line for name, entry in STAGES.items()},
        "Runs": {name: entry.line for name, entry in RUNS.items()} | GROUPS,
    }

    def __init__(self, **settings: Any) -> None:
        groups = {name: Entry(text, "") for name, text in GROUPS.items()}
        super().__init__(**settings | {"commands": Commands(STAGES | RUNS | groups, _build)})


class DataGroup(PlainGroup):
    """``pseudolabel data``."""

    panels = {"Commands": {name: entry.line for name, entry in DATA.items()}}  # noqa: RUF012 - never changed

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings | {"commands": Commands(DATA, _build_data)})


def _version(wanted: bool) -> None:  # noqa: FBT001 - Typer calls it so
    if wanted:
        print(f"pseudolabel {__version__}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")]

app = typer.Typer(
    cls=RootGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Weak labels in, pixel masks out, and honest scores.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _root(*, version: Version = False) -> None:
    pass


def _build(name: str) -> Any:
    """A command of the root group."""
    if name in GROUPS:
        group = typer.Typer(
            cls=DataGroup,
            callback=lambda: None,
            help=GROUPS[name],
            add_completion=False,
            rich_markup_mode=None,
        )
        return typer.main.get_command(group)
    if name in STAGES:
        return _single(name, _stage_command(name), STAGES[name])
    module = import_module(f"{__package__}.{_MODULES[name]}")
    return _single(name, getattr(module, name.replace("-", "_")), RUNS[name])


def _build_data(name: str) -> Any:
    """A command of the group ``data``."""
    from .data import command

    return _single(name, command(name), DATA[name])


def _single(name: str, function: Callable[..., None], entry: Entry) -> Any:
    """What Typer makes of a function."""
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    single.command(name, cls=PlainCommand, help=entry.text, epilog=f"Example: {entry.example}")(function)
    return typer.main.get_command(single)


def _stage_command(stage: str) -> Callable[..., None]:
    """A function that runs one stage with the settings of a command line: defaults < --config < --set < flags."""
    from pseudolabel.options import stages

    from .flags import sign

    def command(config: Path | None, assignments: list[str] | None, **words: Any) -> None:
        as_json, quiet, trace = (words.pop(name) for name in ("as_json", "quiet", "trace"))
        with traced(trace):
            options = stages.build_options(stage, _settings(stage, config, assignments or [], words))
            from pseudolabel.runs.runner import run_stage
            from pseudolabel.runtime.progress import RichProgress, Silence

            from .render import show_result

            if not speaks_for_all():
                run_stage(stage, options, Silence())
                return
            show_result(stage, run_stage(stage, options, RichProgress(quiet=quiet)), as_json=as_json)

    return sign(command, stages.STAGES[stage])


def _settings(stage: str, config: Path | None, assignments: list[str], words: dict[str, Any]) -> dict[str, Any]:
    flags = {name: value for name, value in words.items() if value is not None}
    if config is None and not assignments:
        return flags
    from pseudolabel.options.settings import parse_assignments, read_yaml
    from pseudolabel.options.stages import check_names

    settings = check_names(stage, read_yaml(config), where=str(config)) if config else {}
    return settings | check_names(stage, parse_assignments(assignments), where="--set") | flags


def main(arguments: list[str] | None = None) -> int:
    """Run one command line and return its exit code: 0 done, 1 failed, 2 wrong input, 130 or 143 ended by a signal."""
    return exit_code(typer.main.get_command(app), arguments)
