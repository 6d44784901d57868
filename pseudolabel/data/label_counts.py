"""What ``data check`` has seen of labels: images by class in tags and in masks, values in masks, files left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pseudolabel.data.ground_truth import named, without_objects
from pseudolabel.data.image_files import SUFFIXES
from pseudolabel.data.instances import InstanceMasks
from pseudolabel.data.lists import files_below
from pseudolabel.data.mask_files import MaskFiles
from pseudolabel.data.records import IGNORE, Dataset, Record

_NOTHING = (
    "void", "unlabeled", "unlabelled", "unknown", "undefined", "ignore", "ignored", "none", "nothing", "nan", "null",
    "n/a", "no finding",
)  # fmt: skip
_LABEL_FOLDERS = ("mask", "labels", "label", "annotations", "gt", "ground_truth", "SegmentationClass", "segmentation")


class SeenMask(NamedTuple):
    """One image's ground truth.

    Attributes:
        values: Values in the file, or labels where ground truth is drawn; empty where it could not be read.
        left_out: Why it is not used, in words; None where it is.
    """

    values: tuple[int, ...] = ()
    left_out: str | None = None


class LabelCounts:
    """Counts over the images of a data set.

    Args:
        dataset: Whose images are added.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        reader = dataset.read_mask
        self._reader = reader if isinstance(reader, MaskFiles) else MaskFiles(len(dataset.classes) - 1)
        self._drawn = isinstance(reader, InstanceMasks)
        self._masks: list[tuple[Record, frozenset[int], SeenMask]] = []

    def add(self, record: Record, seen: SeenMask) -> None:
        """Add an image that has ground truth."""
        means = (self._reader.label_of(value) for value in seen.values)
        self._masks.append((record, frozenset(label for label in means if label is not None), seen))

    def table(self) -> dict[str, Any]:
        """The counts as JSON data.

        Returns:
            ``tagged``; ``images_of`` and ``masks_of``: how many images have a class in tags and in masks, by its name,
            in masks background first; ``mask_values``: how many masks hold a value and what it means, by value;
            ``masks`` and the kinds of weak labels given: how many images have them; ``left_out``: by kind of label
            files, how many are not used, by reason.
        """
        dataset, records = self._dataset, self._dataset.records
        labels = Counter(label for _, found, _ in self._masks for label in found)
        values = Counter(value for _, _, seen in self._masks for value in seen.values)
        return {
            "images": len(records),
            "tagged": sum(record.tags is not None for record in records),
            "images_of": {
                name: sum(label in (record.tags or ()) for record in records)
                for label, name in enumerate(dataset.classes[1:], start=1)
            },
            "masks": sum(self._drawn or record.mask is not None for record in records),
            "masks_of": {name: labels[label] for label, name in enumerate(dataset.classes)} if self._masks else {},
            "mask_values": {
                str(value): {"means": self._meaning(value), "images": count} for value, count in sorted(values.items())
            },
            **{kind: sum(bool(getattr(record, kind)) for record in records) for kind in dataset.weak},
            "left_out": {kind: dict(reasons) for kind, reasons in self._left_out().items() if reasons},
        }

    def problems(self) -> Iterator[str]:
        """What cannot be meant: masks without any class, though their images should have some."""
        expected = [record for record, _, _ in self._masks if record.tags != ()]
        seen = set().union(*(found for _, found, _ in self._masks))
        if expected and seen and not seen - {0, IGNORE}:
            tagged = sum(record.tags is not None for record in expected)
            more = f" (by their tags, {tagged} of them have one)" if tagged else ""
            yield without_objects(self._dataset, len(self._masks), seen) + more

    def warnings(self) -> Iterator[str]:
        """What may be meant, and is more often a mistake."""
        yield from self._strange_classes()
        yield from self._strange_masks()
        yield from self._unused_masks()

    def _meaning(self, value: int) -> str | None:
        label = self._reader.label_of(value)
        return "ignored" if label == IGNORE else None if label is None else self._dataset.classes[label]

    def _strange_classes(self) -> Iterator[str]:
        names = self._dataset.classes[1:]
        if names and all(name.isdecimal() for name in names):
            yield f"all class names are numbers ({named(names)}); if they are indices or counts, write names instead"
        for label, name in enumerate(names, start=1):
            if name.strip("_ ").casefold() in _NOTHING:
                yield (
                    f"class {name!r} (index {label}) counts as an object; if it stands for background or no object, "
                    "leave it out of tags and call it background in lists; for pixels to be ignored, use --ignore-value"
                )
        words = [name.casefold().split() for name in names]
        between = {line[0] for line in words if len(line) > 1} & {line[-1] for line in words if len(line) > 1}
        if between:
            joined = [name for name, line in zip(names, words, strict=True) if between.intersection(line)]
            yield f"classes {named(joined)} share words; names are separated by ';', not by blanks"
        folded: dict[str, list[str]] = {}
        for name in names:
            folded.setdefault(" ".join(name.casefold().split()), []).append(name)
        for same in (group for group in folded.values() if len(group) > 1):
            yield f"classes {' and '.join(map(repr, same))} differ by case or blanks only; are they two classes?"

    def _strange_masks(self) -> Iterator[str]:
        """Tags and masks that do not fit together, where the masks hold classes at all."""
        present = frozenset[int]().union(*(found for _, found, _ in self._masks))
        if not present - {0, IGNORE}:
            return
        readable = [(record, found) for record, found, seen in self._masks if not seen.left_out]
        tagged = Counter(tag for record, _ in readable for tag in record.tags or ())
        never = [
            f"{self._dataset.classes[tag]} (tag of {count})" for tag, count in tagged.items() if tag not in present
        ]
        if never:
            yield f"classes that are tags of images with masks, but in none of these masks: {named(never)}"
        hidden = [
            record.id for record, found in readable if record.tags and IGNORE in found and not found - {0, IGNORE}
        ]
        if hidden and not self._drawn:
            yield (
                f"{len(hidden)} masks hold ignored pixels and no class, though their images are tagged with some "
                f"({named(hidden)}); does the ignored value stand for a class there?"
            )

    def _unused_masks(self) -> Iterator[str]:
        """A folder of masks of which none is used, by its name or by theirs."""
        dataset = self._dataset
        if self._masks or self._drawn or not dataset.records:
            return
        ids = {record.id for record in dataset.records}
        for folder in dataset.mask_folders:
            files = files_below(folder, (*SUFFIXES, ".npy", ".json"))
            if files:
                first = files[0][1].relative_to(folder)
                yield f"{folder} holds {len(files)} files, none of them the mask of an image (first: {first}); " + (
                    f"wanted ID.png, such as {dataset.records[0].id}.png"
                )
        for name in _LABEL_FOLDERS if dataset.name == "folder" else ():
            found = [path for name, path in files_below(dataset.root / name, (".png",)) if name in ids]
            if found:
                yield (
                    f"{dataset.root / name} holds {len(found)} PNG files with the names of images, which are not read; "
                    f"masks belong into {dataset.mask_folders[0]}"
                )

    def _left_out(self) -> dict[str, Counter[str]]:
        """By kind of labels, why files of theirs are not used."""
        dataset = self._dataset
        found = {"masks": Counter(seen.left_out for _, _, seen in self._masks if seen.left_out)}
        ids = {record.id for record in dataset.records}
        others = set(_photographs(dataset.records)) - ids
        places = {"masks": dataset.mask_folders} | {kind: (path,) for kind, path in dataset.weak.items()}
        endings = {"masks": SUFFIXES, "scribbles": (".png", ".xml"), "boxes": (".xml",)}
        for kind in endings.keys() & places.keys():
            reasons = found.setdefault(kind, Counter())
            for name, path in (item for folder in places[kind] for item in files_below(folder, endings[kind])):
                if kind == "masks" and path.suffix.lower() != ".png":
                    reasons["no PNG"] += 1
                elif name not in ids:
                    reasons["of images outside the list" if name in others else "of no image"] += 1
        return found


def _photographs(records: Iterable[Record]) -> Iterator[str]:
    """Ids of all photographs that lie where those of the records do."""
    for folder in {str(record.image).removesuffix(record.id + record.image.suffix) for record in records}:
        for name, _ in files_below(Path(folder), SUFFIXES):
            yield name
