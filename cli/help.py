"""How help is laid out: plain text in panels, the names on the left, a wide column of text on the right."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

PANELS = {"input": "Inputs and output", "option": "Settings", "execution": "Execution", "rare": "Rarely changed"}
"""Headings of a command's help, in their order, by the panel of what stands there."""
_UNBROKEN = re.compile(r"(default:|[<>]=?) ")
"""Where a line would break badly: within a default or a bound."""
_INDENT = 2
_NAMES = 24  # columns of the names; a longer name has a line of its own, so that the text keeps 50 of 80 columns


class PlainCommand(TyperCommand):
    """A command whose help is plain text, so that Rich need not be imported for it."""

    def get_help_option(self, ctx: Any) -> Any:
        """The option ``--help``, among those that all commands share."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.rich_help_panel = PANELS["execution"]
        return option

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the parameters, panel by panel."""
        write_parameters(self.get_params(ctx), formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the example on one line, as it can be copied."""
        formatter.write(f"\n{self.epilog}\n" if self.epilog else "")


class PlainGroup(TyperGroup):
    """A group whose help lists its commands by panel, and builds none of them for it."""

    panels: Mapping[str, Mapping[str, str]] = {}
    """Heading to name to what the command does."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the group's own parameters, then its commands."""
        write_parameters(self.get_params(ctx), formatter)
        for panel, lines in self.panels.items():
            write_rows(panel, lines.items(), formatter)

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters; a switch that is not given is False: for None, Typer would import and build a validator."""
        parameters: list[Any] = super().get_params(ctx)
        for parameter in parameters:
            if parameter.is_flag and parameter.default is None:
                parameter.default = False
        return parameters

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take no words at all as a call for help."""
        return super().parse_args(ctx, args if args or ctx.resilient_parsing else ["--help"])

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of the commands."""
        return list(self.commands)


def write_parameters(parameters: Iterable[Any], formatter: Any) -> None:
    """Write parameters under the headings of their panels: arguments, those without a panel, then PANELS in order."""
    panels: dict[str, list[tuple[str, str]]] = {name: [] for name in ("Arguments", "Options", *PANELS.values())}
    for parameter in parameters:
        argument = parameter.param_type_name == "argument"
        panel = "Arguments" if argument else parameter.rich_help_panel or "Options"
        panels[panel].append((_name(parameter), parameter.help or ""))
    for panel, rows in panels.items():
        if rows:
            write_rows(panel, rows, formatter)


def write_rows(heading: str, rows: Iterable[tuple[str, str]], formatter: Any) -> None:
    """Write a heading and rows of a name and its text, wrapped between words to the formatter's width."""
    formatter.write(f"\n{typer.style(f'{heading}:', bold=True)}\n")
    left = _INDENT + _NAMES + 2
    for name, text in rows:
        whole = _UNBROKEN.sub("\\1\0", text)
        found = textwrap.wrap(whole, formatter.width - left, break_on_hyphens=False, break_long_words=False)
        lines = [line.replace("\0", " ") for line in found] or [""]
        if len(name) > _NAMES:
            formatter.write(f"{' ' * _INDENT}{typer.style(name, bold=True)}\n")
            name = ""
        lines[0] = f"{' ' * _INDENT}{typer.style(name, bold=True)}{' ' * (_NAMES - len(name))}  {lines[0]}"
        formatter.write("".join(f"{line}\n" for line in [lines[0], *(" " * left + line for line in lines[1:])]))


def _name(parameter: Any) -> str:
    """How a parameter is given: its flags, the shortest first, and what stands behind them."""
    if parameter.param_type_name == "argument":
        return str(parameter.metavar)
    flags = ", ".join(sorted(parameter.opts, key=len))
    off = f" / {', '.join(parameter.secondary_opts)}" if parameter.secondary_opts else ""
    return f"{flags}{off}" if parameter.is_flag or parameter.metavar is None else f"{flags} {parameter.metavar}"
