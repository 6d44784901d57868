"""What the stages of a run took, as their artefacts state it, and what they left on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pseudolabel.options import STAGES
from pseudolabel.runs.lineage import Node, RunFolder

WHERE = ("machine", "cores", "device", "dtype", "processes")
"""What of its environment a stage's cost depends on."""


def cost_data(run: RunFolder, segmenter: Node | None) -> dict[str, Any]:
    """What each stage of a run took, and all of them.

    Returns:
        ``stages``, for each ``stage``, ``artefact``, ``wall_seconds``, ``cpu_seconds``, ``peak_memory_bytes``,
        ``bytes`` on disk, ``images_per_second``, ``environment``, ``outside`` (of the folder) and
        ``leads_to_segmenter``; ``total`` of all stages, ``to_segmenter`` of those that lead to the final segmenter and
        of its training (None if there is none): sums, the largest peak, ``stages`` and ``unstated`` (how many of them
        state no cost).
    """
    leading = run.ancestors(segmenter) | {segmenter} if segmenter else set()
    parts = {part for node in run.nodes for part in _own_parts(run, node)}
    rows = [
        {**stage_data(run, node), "leads_to_segmenter": bool(({node} | _own_parts(run, node)) & leading)}
        for node in run.nodes
        if node not in parts
    ]
    route = [row for row in rows if row["leads_to_segmenter"]]
    return {"stages": rows, "total": _total(rows), "to_segmenter": _total(route) if route else None}


def stage_data(run: RunFolder, node: Node) -> dict[str, Any]:
    """What the making of one artefact took."""
    cost = node.header.cost
    figures = {name: cost.get(name) for name in ("wall_seconds", "cpu_seconds", "peak_memory_bytes")}
    parts = _own_parts(run, node)
    computed = next((part for part in run.nodes if part in parts), node).header.environment
    return {
        "stage": node.header.stage,
        "artefact": node.name,
        **figures,
        "bytes": sum(path.stat().st_size for path in _files(run, node)),
        "images_per_second": cost.get("images_per_second"),
        "environment": {name: computed.get(name) for name in WHERE},
        "outside": not node.inside,
    }


def _total(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    def known(name: str) -> list[Any]:
        return [row[name] for row in rows if row[name] is not None]

    return {
        "wall_seconds": round(sum(known("wall_seconds")), 3),
        "cpu_seconds": round(sum(known("cpu_seconds")), 3),
        "peak_memory_bytes": max(known("peak_memory_bytes"), default=None),
        "bytes": sum(known("bytes")),
        "stages": len(rows),
        "unstated": sum(row["wall_seconds"] is None for row in rows),
    }


def _own_parts(run: RunFolder, node: Node) -> set[Node]:
    """Artefacts that a stage wrote on its way to masks whose cost includes theirs: soft labels of predictions."""
    if node.header.stage != "predict-masks" or node.kind != "masks":
        return set()
    found: set[Node] = set()
    waiting = [node]
    while waiting:
        soft = {parent for parent in run.parents(waiting.pop()) if parent.kind == "soft-labels"} - found
        found |= soft
        waiting += soft
    return found


def _files(run: RunFolder, node: Node) -> list[Path]:
    """What a stage has written: its folder, if it has one to itself but for scores, else its artefacts."""
    own = {node.path, *(part.path for part in _own_parts(run, node))}
    stage = STAGES.get(node.header.stage)
    if stage is not None and stage.writes_folder:
        below = {path for path in node.path.parent.rglob("*") if path.is_file()}
        others = [other for other in run.nodes if other.path in below - own]
        if all(other.kind == "scores" for other in others):
            own = below - {other.path for other in others}
    return sorted(own)
