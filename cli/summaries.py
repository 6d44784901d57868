"""Tables and trees of ``run`` and ``inspect``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.text import Text
from rich.tree import Tree

from pseudolabel.runtime.formatting import duration, short, size

from .scores import show_scores, show_summary
from .tables import console, make_table

_STATES = {"missing": "red", "changed": "red", "above": "dim", "recorded": "dim"}
_IN_WORDS = {"recorded": "recorded, not checked"}


def show_plan(rows: list[dict[str, str]]) -> None:
    """The table of ``run --dry-run``, and the commands of what is not fresh."""
    output = console()
    table = make_table(["stage", "state", "reason"])
    for row in rows:
        table.add_row(row["key"], row["state"], Text(row["reason"]))
    output.print(table)
    for row in rows:
        if row["state"] != "fresh":
            output.print(Text(f"{row['key']}: {row['command']}"), soft_wrap=True)


def show_run(result: Mapping[str, Any]) -> None:
    """What each stage cost, and the scores."""
    show_stages(result)
    if result["scores"]:
        show_summary(result["scores"])


def show_stages(result: Mapping[str, Any]) -> None:
    """What each stage of a run cost."""
    output = console()
    rows = result["stages"]
    if not result["made"]:
        output.print(f"all {len(rows)} stages are fresh: nothing to do")
    table = make_table(["stage", "command", "state"], ["time", "images/s", "memory", "disk"], title=result["name"])
    for row in rows:
        rate = row["images_per_second"]
        table.add_row(
            row["key"],
            row["stage"],
            row["state"],
            duration(row["wall_seconds"]),
            "-" if rate is None else f"{rate:.1f}",
            size(row["peak_memory_bytes"]),
            size(row["bytes"]),
        )
    table.add_section()
    table.add_row("all", "", "", duration(result["stage_seconds"]), "", "", size(result["bytes"]))
    table.add_row("this run", "", "", duration(result["wall_seconds"]), "", "", "")
    output.print(table)


def show_artefact(described: Mapping[str, Any]) -> None:
    """The tree of ``inspect``."""
    tree = Tree(Text(f"{described['path']}: {described['kind']}, {size(described['bytes'])}", style="bold"))
    made = tree.add("made")
    for key in ("stage", "created", "version", "seed", "oracle", "digest"):
        made.add(_line(key, described[key]))
    if described.get("verified"):
        made.add(Text("the digest was recomputed and is right", style="green"))
    if not described["sealed"]:
        words = "format version 1: nothing covers its attributes, such as oracle, protocol, inputs and options"
        made.add(Text(words, style="yellow"))
    facts = ("facts",) if described["kind"] != "scores" else ()  # these are shown as a table, below
    for key in ("options", "protocol", "network", "dataset", *facts, "environment"):
        if described[key]:
            branch = tree.add(key)
            for name, value in described[key].items():
                branch.add(_line(name, value))
    _add_inputs(tree.add("inputs"), described)
    cost = described["cost"]
    tree.add(
        _line(
            "cost",
            f"{duration(cost.get('wall_seconds'))}, {duration(cost.get('cpu_seconds'))} of processor, "
            f"{size(cost.get('peak_memory_bytes'))} of memory, {short(cost.get('images_per_second'))} images/s",
        )
    )
    _add_contents(tree.add("contents"), described)
    console(width=10_000).print(tree)  # a path that is cut in two cannot be copied
    if not facts:
        show_scores(described["facts"])


def _add_inputs(branch: Tree, described: Mapping[str, Any]) -> None:
    if "lineage" not in described:
        for item in described["inputs"]:
            branch.add(Text(f"{item['kind']}: {item['path']}  {item['digest'][:12]}"))
        return
    branch.label = "lineage"
    _follow(branch, described["lineage"])


def _follow(branch: Tree, node: Mapping[str, Any]) -> None:
    for item in node["inputs"]:
        stage = f" by {item['stage']}" if "stage" in item else ""
        state = "" if item["state"] == "found" else f"  ({_IN_WORDS.get(item['state'], item['state'])})"
        label = Text(f"{item['kind']}: {item['path']}{stage}  {item['digest'][:12]}{state}")
        label.stylize(_STATES.get(item["state"], ""))
        _follow(branch.add(label), item)


def _add_contents(branch: Tree, described: Mapping[str, Any]) -> None:
    for key in ("images", "maps", "regions"):
        if key in described:
            branch.add(_line(key, described[key]))
    for name, reason in list(described["skipped"].items())[:5]:
        branch.add(Text(f"skipped {name}: {reason}"))
    if described["skipped"]:
        branch.add(_line("skipped", len(described["skipped"])))
    branch.add(_line("classes", described["classes"]))
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for array in described["arrays"]:
        groups.setdefault(array["name"].split("/")[0], []).append(array)
    for name, arrays in groups.items():
        stored, plain = (sum(array[key] for array in arrays) for key in ("stored_bytes", "bytes"))
        child = branch.add(Text(f"/{name}: {size(stored)} on disk, {size(plain)} in memory"))
        if len(arrays) > 12:
            child.add(f"{len(arrays)} arrays")
            continue
        for array in arrays:
            shape = " x ".join(map(str, array["shape"])) or "one value"
            child.add(Text(f"{array['name'].partition('/')[2] or array['name']}: {shape} {array['type']}"))


def _line(name: str, value: Any) -> Text:
    return Text.assemble((f"{name.replace('_', ' ')}: ", "bold"), short(value))
