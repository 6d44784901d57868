"""One data set, whatever its layout: class names, records, image tags, and ground truth where there is any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from pseudolabel.artefacts.conformity import folded
from pseudolabel.data.decoding import Decoding
from pseudolabel.data.faults import Fault, passing_on, stop
from pseudolabel.data.ground_truth import require_objects
from pseudolabel.data.layouts import coco, folder, photographs, synthetic, voc
from pseudolabel.data.records import IGNORE, WEAK, Dataset, MaskValues
from pseudolabel.data.weak.labels import attach
from pseudolabel.errors import DatasetError, InputError
from pseudolabel.options import DatasetOptions
from pseudolabel.runtime.files import absolute
from pseudolabel.runtime.formatting import counted

LAYOUTS: Mapping[str, ModuleType] = {"voc": voc, "coco": coco, "folder": folder, "synthetic": synthetic}
"""The module that reads each layout."""

_VALUES = ("mask_values", "ignore_value")
_SPEC = ("dataset", "root", "split", "tag_source", "tags_file", "alpha", "photo_range", *WEAK, *_VALUES)


def open_dataset(options: DatasetOptions) -> Dataset:
    """Open the data set that a stage's own options name.

    Raises:
        DatasetError: Something of the layout is missing or inconsistent; the message names file and cause.
    """
    return load_dataset({name: getattr(options, name) for name in _SPEC if hasattr(options, name)})


def open_photographs(paths: Sequence[Path], classes: Sequence[str], like: Mapping[str, Any]) -> Dataset:
    """Open new photographs.

    Args:
        paths: Folders and files.
        classes: Names of the classes that they may show, background first.
        like: The ``spec()`` of the data set whose photographs were decoded as these are to be.

    Raises:
        InputError: One of the paths does not exist.
        DatasetError: There are no photographs, or two would have the same mask.
    """
    root, files = photographs.find(paths)
    about = {"dataset": photographs.NAME, "root": root.as_posix(), "split": "all", "tag_source": "none"}
    named = {"classes": list(classes), "files": list(files)}
    return load_dataset({**about, **named, **Decoding.of(like).spec()})


def restated(spec: Mapping[str, Any], options: object) -> dict[str, Any]:
    """A stored ``spec()`` with what a stage's options say about the values in masks; what they do not say stays."""
    given = {name: value for name in _VALUES if (value := getattr(options, name)) is not None}
    return {**spec, **given}


def folder_of(spec: Mapping[str, Any], root: Path | None = None) -> Path:
    """The folder of a data set, absolute.

    Args:
        spec: ``dataset`` and ``root``.
        root: Folder to use instead of the spec's.

    Raises:
        InputError: None is named.
        DatasetError: There is none. The synthetic set is made where it is missing.
    """
    if not (root or spec.get("root")):
        raise InputError(f"--root is required for --dataset {spec['dataset']}: the folder that holds the data set")
    place = absolute(Path(root or spec["root"]))
    if spec["dataset"] != "synthetic" and not place.is_dir():
        raise DatasetError(f"data set folder {place} does not exist; pass --root with the folder's place now")
    return place


def load_dataset(
    spec: Mapping[str, Any], *, split: str | None = None, root: Path | None = None, fault: Fault = stop
) -> Dataset:
    """Open a data set from a stored ``spec()``, perhaps another split of it, perhaps in another place.

    Args:
        spec: ``dataset``, ``root``, ``split``, ``tag_source``, ``tags_file``, ``scribbles``, ``points``, ``boxes``,
            ``mask_values``, ``ignore_value``, and ``alpha`` and ``photo_range`` where photographs are not read as
            usual.
        split: List to use instead of the spec's.
        root: Folder to use instead of the spec's, also for weak labels and the CSV of tags that lie inside it.
        fault: Told of everything wrong with single images, which are then left out. The default raises the first.

    Raises:
        DatasetError: As ``open_dataset``.
    """
    return _load(spec, split, root, _table_of(spec, root), _weak_places(spec, root), fault)


def _load(
    spec: Mapping[str, Any],
    split: str | None,
    root: Path | None,
    tags_file: Path | None,
    places: Mapping[str, Path],
    fault: Fault,
) -> Dataset:
    """As ``load_dataset``, with the CSV of tags and the weak labels at these places."""
    if not spec.get("dataset"):
        raise InputError("the artefact names no data set (it was imported without one); pass --dataset and --root")
    name, place = spec["dataset"], folder_of(spec, root)
    if name == photographs.NAME:
        return _photographs(spec, place, fault)
    source = spec.get("tag_source") or "auto"
    if source == "weak" and not places:
        raise InputError(
            "--tag-source weak needs scribbles, points or boxes, and none are given; "
            "'pseudolabel data tags' takes them and writes a table for --tags-file"
        )
    if source == "weak" and tags_file:
        raise InputError("--tags-file is not read with --tag-source weak; leave one of them out")
    if name == "folder" and "scribbles" in places:
        folder.require_apart(place, places["scribbles"])
    # Without need of tags there is none of weak labels either: evaluation should not fail where they are gone.
    tags_only = "none" if source == "weak" else source
    values, decoding = _mask_values(spec), Decoding.of(spec)
    stated = {} if values is None else {"values": values}
    dataset: Dataset = LAYOUTS[name].load(place, split or spec["split"], tags_only, tags_file, fault, **stated)
    with passing_on(fault):
        _require_distinct(dataset)
    dataset = replace(dataset, mask_values=values)
    if decoding != dataset.decoding:
        records = tuple(replace(record, decoding=decoding) for record in dataset.records)
        dataset = replace(dataset, records=records, decoding=decoding)
    if dataset.tag_source == "masks" and not any(record.tags for record in dataset.records):
        with passing_on(fault):
            dataset = _without_classes(dataset)
    if not places or source == "none":
        return dataset
    if source == "weak":
        dataset = replace(dataset, records=tuple(replace(record, tags=None) for record in dataset.records))
    return attach(dataset, places, fault)


def _photographs(spec: Mapping[str, Any], place: Path, fault: Fault) -> Dataset:
    """New photographs again, as their spec has them."""
    dataset = photographs.load(place, spec.get("classes", ("background",)), spec.get("files", ()), fault)
    with passing_on(fault):
        _require_distinct(dataset)
    decoding = Decoding.of(spec)
    records = tuple(replace(record, decoding=decoding) for record in dataset.records)
    return replace(dataset, records=records, decoding=decoding)


def reopen_dataset(
    spec: Mapping[str, Any], *, split: str | None = None, root: Path | None = None, boxes: Path | None = None
) -> Dataset:
    """Open the data set that an artefact was made from, as ``load_dataset`` does, without what is gone since.

    A later stage may need neither weak labels nor tags. Where weak labels, or the CSV of tags, are no longer there, the
    images are without them, and without the tags that they gave or helped to give; ``gone`` says so to whoever does
    need them.

    Args:
        spec: As of ``load_dataset``.
        split: As of ``load_dataset``.
        root: As of ``load_dataset``.
        boxes: Boxes to use instead of the spec's, where they are now.

    Raises:
        DatasetError: As ``load_dataset``, but for what is gone.
    """
    weak, table = _weak_places(spec, root), _table_of(spec, root)
    if boxes is not None:
        weak["boxes"] = absolute(boxes)
    gone = {kind: path for kind, path in weak.items() if not path.exists()}
    if table is not None and not table.exists():
        gone["tags_file"] = table
    if not gone:
        return _load(spec, split, root, table, weak, stop)
    source = "none" if "tags_file" in gone or spec["tag_source"] == "weak" else spec["tag_source"]
    own = _load({**spec, "tag_source": source}, split, root, None if "tags_file" in gone else table, {}, stop)
    there = {kind: path for kind, path in weak.items() if kind not in gone}
    found = own
    if there and spec["tag_source"] != "none":
        found = attach(own, there, stop)
    stated = {kind: how for kind, how in spec.get("simulated", {}).items() if kind in gone}
    return replace(
        found,
        # what is left of the weak labels would imply too few tags
        records=tuple(replace(one, tags=before.tags) for one, before in zip(found.records, own.records, strict=True)),
        tag_source=spec["tag_source"],
        tags_file=table,
        weak=weak,
        simulated={**stated, **found.simulated},
        gone=tuple(gone.values()),
    )


def _without_classes(dataset: Dataset) -> Dataset:
    """A data set in whose masks no class was found, with a note, once it is sure that they hold background alone.

    Raises:
        DatasetError: They hold ignored pixels, which may stand for a class.
    """
    tagged = [record for record in dataset.records if record.tags is not None]
    if not tagged or any((dataset.read_mask(record) == IGNORE).any() for record in tagged):
        require_objects(dataset, tagged)
        return dataset
    note = (
        f"the {counted(len(tagged), 'mask')} of split {dataset.split} of {dataset.root} "
        f"{'holds' if len(tagged) == 1 else 'hold'} background alone, so that its images have none of the classes"
    )
    return replace(dataset, notes=(*dataset.notes, note))


def _require_distinct(dataset: Dataset) -> None:
    """Refuse ids that some file systems take for one, and that no artefact may hold therefore.

    Raises:
        DatasetError: Two are alike.
    """
    seen: dict[str, str] = {}
    for record in dataset.records:
        other = seen.setdefault(folded(record.id), record.id)
        if other != record.id:
            raise DatasetError(
                f"ids {other!r} and {record.id!r} of split {dataset.split} of {dataset.root} differ by case or Unicode "
                "form only, and would be one file in some places; rename one of the photographs"
            )


def _mask_values(spec: Mapping[str, Any]) -> MaskValues | None:
    """What is said about the values in mask files."""
    named, ignored = (spec.get(name) for name in _VALUES)
    if named is None and ignored is None:
        return None
    if spec["dataset"] == "coco":
        raise InputError(
            "--mask-values and --ignore-value are for masks that lie in files; --dataset coco draws its ground truth "
            "from the annotations"
        )
    return MaskValues(tuple(named or ()), None if ignored is None else tuple(ignored))


def _weak_places(spec: Mapping[str, Any], root: Path | None) -> dict[str, Path]:
    """Where weak labels are."""
    return {kind: _moved(absolute(Path(spec[kind])), spec, root) for kind in WEAK if spec.get(kind)}


def _table_of(spec: Mapping[str, Any], root: Path | None) -> Path | None:
    """Where the CSV of tags is, if there is one."""
    return _moved(Path(spec["tags_file"]), spec, root) if spec.get("tags_file") else None


def _moved(path: Path, spec: Mapping[str, Any], root: Path | None) -> Path:
    """Where a path is now: what lies inside the data set's folder has moved with it."""
    if not (root and spec.get("root")):
        return path
    before = absolute(Path(spec["root"]))
    return absolute(root) / path.relative_to(before) if path.is_relative_to(before) else path
