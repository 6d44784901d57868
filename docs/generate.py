"""Write the generated parts of the documents from the live command line.

    python docs/generate.py           # rewrites them
    python docs/generate.py --check   # changes nothing; exit code 1 if any is stale

A generated part stands between ``<!-- generated: NAME -->`` and ``<!-- /generated -->``. NAME is a command, such as
``train-cam`` or ``data check``, or a key of TABLES.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import typer

from pseudolabel.artefacts.schema import KINDS
from pseudolabel.cli.app import app
from pseudolabel.cli.help import PANELS
from pseudolabel.pairwise.crf import PRESETS

REPOSITORY = Path(__file__).resolve().parents[1]
HEADINGS = ("Arguments", "Options", *PANELS.values())
PART = re.compile(r"(<!-- generated: (?P<name>[^\n]+?) -->\n).*?(<!-- /generated -->)", re.DOTALL)


def main(arguments: list[str] | None = None, repository: Path = REPOSITORY) -> int:
    """Rewrite or check all documents and return the exit code.

    Args:
        arguments: Words of the command line; None takes those of this process.
        repository: Folder that holds ``README.md`` and ``docs``.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 if any part is stale")
    check = parser.parse_args(arguments).check
    stale = []
    for path in documents(repository):
        text = path.read_text(encoding="utf-8")
        fresh = rewritten(text)
        if fresh != text:
            stale.append(path.relative_to(repository).as_posix())
            if not check:
                path.write_text(fresh, encoding="utf-8")
    if check and stale:
        print(f"stale: {', '.join(stale)}; run 'python docs/generate.py'", file=sys.stderr)
        return 1
    print(f"rewritten: {', '.join(stale)}" if stale else "every generated part is up to date")
    return 0


def documents(repository: Path = REPOSITORY) -> list[Path]:
    """The documents that may have generated parts."""
    return [repository / "README.md", *sorted((repository / "docs").rglob("*.md"))]


def rewritten(text: str) -> str:
    """A document with every generated part made anew."""
    return PART.sub(lambda part: f"{part[1]}\n{generated(part['name'])}\n\n{part[3]}", text)


def names_in(text: str) -> list[str]:
    """The names of a document's generated parts."""
    return [part["name"] for part in PART.finditer(text)]


def generated(name: str) -> str:
    """What stands in the part of this name."""
    known = commands()
    if name not in known and name not in TABLES:
        raise SystemExit(f"nothing is generated under the name {name!r}; known: {', '.join([*known, *TABLES])}")
    return TABLES[name]() if name in TABLES else command_part(name, known[name])


def commands() -> dict[str, Any]:
    """Every command of the live app by its words, groups left out."""

    def leaves(group: Any, words: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        """Those of a group, whose own words these are."""
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from leaves(command, (*words, name))
            else:
                yield " ".join((*words, name)), command

    return dict(leaves(typer.main.get_command(app), ()))


def command_part(name: str, command: Any) -> str:
    """Help, usage, example and options of one command."""
    parameters = [parameter for parameter in command.params if getattr(parameter, "help", None) is not None]
    positional = [parameter.metavar for parameter in parameters if is_argument(parameter)]
    parts = [
        command.help,
        f"Usage: `{' '.join(['pseudolabel', name, *positional, '[OPTIONS]'])}`",
        f"```sh\n{command.epilog.removeprefix('Example: ')}\n```",
    ]
    for heading in HEADINGS:
        rows = [row_of(parameter) for parameter in parameters if heading_of(parameter) == heading]
        if rows:
            parts += [f"**{heading}**", table(("name", "value", "meaning"), rows)]
    return "\n\n".join(parts)


def is_argument(parameter: Any) -> bool:
    """Whether a parameter is given by its position."""
    return bool(parameter.param_type_name == "argument")


def heading_of(parameter: Any) -> str:
    """The heading under which a parameter stands."""
    return "Arguments" if is_argument(parameter) else str(parameter.rich_help_panel or "Options")


def row_of(parameter: Any) -> tuple[str, str, str]:
    """Name, kind of value and meaning of a parameter."""
    text = parameter.help
    if isinstance(parameter.default, Path | str):  # the stages' help texts name theirs already
        text += f" (default: {parameter.default})"
    if is_argument(parameter):
        return code(parameter.metavar), "", text
    flags = " / ".join(code(flag) for flag in (*parameter.opts, *parameter.secondary_opts))
    return flags, "" if parameter.is_flag else code(parameter.metavar), text


def crf_presets() -> str:
    """The table of the dense CRF's presets."""
    rows = [
        (
            code(name),
            f"{crf.iterations}",
            f"{crf.spatial_xy:g}, {crf.spatial_weight:g}",
            f"{crf.bilateral_xy:g}, {crf.bilateral_rgb:g}, {crf.bilateral_weight:g}",
            crf.unary if crf.unary == "soft" else f"hard, {crf.gt_prob:g}",
        )
        for name, crf in PRESETS.items()
    ]
    return table(("preset", "iterations", "spatial xy, weight", "bilateral xy, rgb, weight", "unary"), rows)


def pipelines() -> str:
    """The table of the packaged pipelines, each with the first sentence of the comment that its file begins with."""
    rows = []
    for path in sorted((REPOSITORY / "configs").glob("*/*.yaml")):
        comment = takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
        first = " ".join(line.lstrip("# ") for line in comment).partition(". ")[0]
        rows.append((code(f"{path.parent.name}/{path.stem}"), first.rstrip(".")))
    return table(("name", "what it is"), rows)


def datasets(kind: str) -> str:
    """The table of the datasets that artefacts of a kind have."""
    rows = []
    for array in KINDS[kind]:
        shape = {None: "any shape", (): "one value"}.get(array.shape) or " x ".join(map(str, array.shape or ()))
        bounds = [f"at least {array.low:g}"] if array.low is not None and array.high is None else []
        bounds += [f"{array.low:g} to {array.high:,.0f}"] if array.high is not None and not array.lazy else []
        bounds += ["or NaN"] if array.nan else []
        need = "MUST" if array.required else "MAY"
        name = code("/" + array.name.replace("*", "NAME"))
        rows.append((name, need, " or ".join(array.types), shape, " ".join(bounds), array.meaning))
    return table(("dataset", "be there", "type", "length", "values", "meaning"), rows)


TABLES: dict[str, Callable[[], str]] = {
    "crf-presets": crf_presets,
    "pipelines": pipelines,
    **{f"datasets of {kind}": partial(datasets, kind) for kind in KINDS},
}
"""What is generated besides the commands."""


def code(text: str) -> str:
    """Text as a code span."""
    return f"`{text}`"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; a ``|`` within a cell is escaped."""
    cells = [list(head), *([text.replace("|", "\\|") for text in row] for row in rows)]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join([lines[0], "|---" * len(cells[0]) + "|", *lines[1:]])


if __name__ == "__main__":
    sys.exit(main())
