"""A run: a folder of artefacts, and which of them was made from which, by what their headers say.

Nothing is concluded from file names. An artefact is found by the digest that its successor has recorded, first where it
lay and then anywhere in the folder, so that a folder may have moved. Inputs that lie outside the folder belong to the
run if they are still what was read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pseudolabel.artefacts import Header, Input, read_header, read_input
from pseudolabel.artefacts.checks import REQUIRED
from pseudolabel.artefacts.header import path_from
from pseudolabel.errors import ArtefactError, InputError


@dataclass(frozen=True, eq=False)
class Node:
    """One artefact of a run.

    Attributes:
        path: Where it lies.
        name: Its path from the run's folder, with ``/``.
        header: What it says about itself.
        inside: Whether it lies in the folder.
    """

    path: Path
    name: str
    header: Header
    inside: bool = True

    @property
    def kind(self) -> str:
        """The kind of artefact."""
        return self.header.kind


@dataclass(frozen=True)
class RunFolder:
    """A folder of artefacts.

    Attributes:
        name: For tables; unique among the runs that are looked at together.
        folder: The folder.
        nodes: Its artefacts and theirs outside, each after what it was made from.
        unreadable: Files of HDF5 that are no artefacts, by name, and why.
    """

    name: str
    folder: Path
    nodes: Sequence[Node]
    unreadable: Mapping[str, str]
    _parents: Mapping[Node, Mapping[Input, Node]] = field(repr=False)

    def parents(self, node: Node) -> list[Node]:
        """The artefacts that it was made from, the main one first, as far as they are there."""
        return list(self._parents[node].values())

    def ancestors(self, node: Node) -> set[Node]:
        """Everything that it was made from, however indirectly."""
        found: set[Node] = set()
        waiting = self.parents(node)
        while waiting:
            ancestor = waiting.pop()
            if ancestor not in found:
                found.add(ancestor)
                waiting += self.parents(ancestor)
        return found

    def of_kind(self, *kinds: str) -> list[Node]:
        """The artefacts of these kinds."""
        return [node for node in self.nodes if node.kind in kinds]

    def parent(self, node: Node, item: Input) -> Node | None:
        """One thing that an artefact was made from, if it is still there."""
        return self._parents[node].get(item)

    def fate(self, node: Node, item: Input) -> str:
        """What became of an input that is not there any more, or is no artefact, in words."""
        if item.kind not in REQUIRED:
            return f"{item.kind} {item.path}"
        place = _place(node, item)
        changed = place.is_file()
        return f"{path_from(self.folder, place)} {'was made again since' if changed else 'is missing'}"


def read_runs(folders: Sequence[Path]) -> list[RunFolder]:
    """Read the headers of all artefacts in some folders.

    Args:
        folders: One a run. Where one holds several routes that share nothing, each is a run of its own.

    Raises:
        InputError: A folder is missing, named twice, or holds no artefact.
    """
    places = [folder.resolve() for folder in folders]
    for index, place in enumerate(places):
        if place in places[:index]:
            raise InputError(f"{folders[index]} is named twice; name each run once")
    return [
        route
        for folder, name in zip(folders, _names(places), strict=True)
        for route in routes_of(read_folder(folder, name))
    ]


def routes_of(run: RunFolder) -> list[RunFolder]:
    """The routes in a folder that have no artefact in common, as runs of their own.

    A route is what hangs together by what was made from what, and has a checkpoint and scores. What belongs to none,
    for instance because what it was made from was deleted, cannot be assigned: it is reported with the first. Where
    that has happened to a route, it may be the rest of another one, and nothing is told apart.

    Args:
        run: A whole folder.

    Returns:
        The run itself, if there is one route or none; else one for each, named after its first checkpoint.
    """
    groups = _connected(run)
    routes = [group for group in groups if {"checkpoint", "scores"} <= {node.kind for node in group}]
    if len(routes) < 2 or any(_cut_off(run, node) for group in routes for node in group):
        return [run]
    others = [node.name for group in groups if group not in routes for node in group]
    lost = {name: "it hangs together with none of the routes in this folder" for name in others}
    found = []
    for number, group in enumerate(routes):
        first = next(node for node in group if node.kind == "checkpoint")
        parents = {node: run._parents[node] for node in group}
        unreadable = {} if number else {**run.unreadable, **lost}
        found.append(RunFolder(f"{run.name}: {first.name}", run.folder, group, unreadable, parents))
    return found


def _cut_off(run: RunFolder, node: Node) -> bool:
    """Whether something that an artefact of the folder was made from is gone, initial weights aside."""
    lost = [item for item in node.header.inputs if item.kind in REQUIRED and run.parent(node, item) is None]
    return node.inside and any((node.kind, item.kind) != ("checkpoint", "checkpoint") for item in lost)


def _connected(run: RunFolder) -> list[list[Node]]:
    """Artefacts that hang together, in their order; groups by their first artefacts."""
    group = {node: number for number, node in enumerate(run.nodes)}
    for node in run.nodes:  # parents come first
        for parent in run.parents(node):
            low, high = sorted((group[parent], group[node]))
            group.update({other: low for other, number in group.items() if number == high})
    found: dict[int, list[Node]] = {}
    for node in run.nodes:
        found.setdefault(group[node], []).append(node)
    return list(found.values())


def read_folder(folder: Path, name: str) -> RunFolder:
    """Read the headers of all artefacts in a folder and in the folders below it.

    Args:
        folder: What ``pseudolabel run`` has filled, or any other folder of artefacts.
        name: For tables.

    Raises:
        InputError: The folder is missing or holds no artefact.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise InputError(f"{folder} {what}; wanted the folder of a run, as 'pseudolabel run CONFIG' leaves it")
    found: dict[Path, Node] = {}
    unreadable: dict[str, str] = {}
    for path in sorted(folder.rglob("*.h5")):
        place = path.relative_to(folder).as_posix()
        try:
            found[_normal(path)] = Node(path, place, read_header(path))
        except ArtefactError as error:
            unreadable[place] = str(error)
    if not found:
        more = f" (the first of {len(unreadable)} .h5 files: {next(iter(unreadable.values()))})" if unreadable else ""
        raise InputError(
            f"{folder} holds no artefact{more}; wanted the folder of a run, as 'pseudolabel run' leaves it"
        )
    parents = _link(found, folder)
    return RunFolder(name, folder, _in_order(parents), unreadable, parents)


def _link(found: dict[Path, Node], folder: Path) -> dict[Node, dict[Input, Node]]:
    """Each artefact's inputs; those outside the folder join ``found``."""
    by_digest: dict[str, Node] = {}
    for node in found.values():
        by_digest.setdefault(node.header.digest, node)
    parents: dict[Node, dict[Input, Node]] = {}
    waiting = list(found.values())
    while waiting:
        node = waiting.pop(0)
        parents[node] = {}
        for item in node.header.inputs:
            if item.kind not in REQUIRED:  # a data set or weights: recorded, not followed
                continue
            place = _place(node, item)
            there = found.get(place)
            if there is None or there.header.digest != item.digest:
                there = by_digest.get(item.digest) or _outside(place, item, folder)
            if there is not None:
                parents[node][item] = there
                if there not in parents and there not in waiting:
                    waiting.append(there)
                    by_digest.setdefault(item.digest, there)
    return parents


def _outside(place: Path, item: Input, folder: Path) -> Node | None:
    """An input that lies outside the folder, if it is still what was read."""
    header = read_input(place, item.digest)
    if header is None:
        return None
    return Node(place, path_from(folder, place), header, inside=False)


def _in_order(parents: Mapping[Node, Mapping[Input, Node]]) -> list[Node]:
    """Artefacts in the order of their making, each after its inputs."""
    placed: dict[Node, None] = {}

    def place(node: Node, above: tuple[Node, ...]) -> None:
        if node in placed or node in above:  # forged files may name each other
            return
        for parent in parents[node].values():
            place(parent, (*above, node))
        placed[node] = None

    for node in sorted(parents, key=lambda node: (node.header.created, node.name)):
        place(node, ())
    return list(placed)


def _names(places: Sequence[Path]) -> Iterator[str]:
    """The last parts of each path, as many as it takes to tell them apart."""
    for place in places:
        others = [other for other in places if other != place]
        count = 1
        while any(other.parts[-count:] == place.parts[-count:] for other in others):
            count += 1
        yield "/".join(place.parts[-count:])


def _place(node: Node, item: Input) -> Path:
    return _normal(node.path.parent / item.path)


def _normal(path: Path) -> Path:
    return Path(os.path.normpath(path.absolute()))
