"""Augmented crops of images with any mixture of labels: photograph, labels, and what tags, boxes and CAMs say."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pseudolabel.artefacts import Header, Input, MapsReader, open_artefact
from pseudolabel.artefacts.header import path_from
from pseudolabel.artefacts.maps import at_size
from pseudolabel.data import Dataset, Record, load_weak_labels, read_image
from pseudolabel.data.augmentation import Part, crop_map, crop_of, crop_scribbles, random_part
from pseudolabel.data.ground_truth import ground_truth_input
from pseudolabel.data.records import IGNORE
from pseudolabel.data.shapes import Box
from pseudolabel.data.weak.labels import check_size
from pseudolabel.errors import DatasetError, InputError
from pseudolabel.options import MixedLabelOptions
from pseudolabel.runtime.files import read_regular
from pseudolabel.runtime.progress import Progress
from pseudolabel.scribble.boxes import boxes_allow, boxes_in_crop, fill_boxes, objectness, outside_boxes
from pseudolabel.scribble.step import unlabelled_tags
from pseudolabel.training import sample_rng
from pseudolabel.training.image_tags import tag_vector, usable


@dataclass
class CamSource:
    """Maps of the training images; the file is opened in each process when it is first needed.

    Attributes:
        path: A ``cams`` or ``soft-labels`` artefact.
        header: Its header.
        rows: Number of each image in it, by id; skipped ones are left out.
    """

    path: Path
    header: Header
    rows: dict[str, int]
    _reader: MapsReader | None = field(default=None, init=False, repr=False)
    _context: Any = field(default=None, init=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": None, "_context": None}  # an open file does not travel to another process

    def maps(self, record: Record, size: tuple[int, int]) -> dict[int, np.ndarray] | None:
        """Class index to stored map of an image, background left out; None where there are none.

        Raises:
            DatasetError: The maps were made for another size.
        """
        if record.id not in self.rows:
            return None
        if self._reader is None:
            self._context = open_artefact(self.path, "cams", "soft-labels")
            self._reader = MapsReader(self._context.__enter__())
        row = self.rows[record.id]
        made_for = self._reader.size(row)
        if made_for != size:
            raise DatasetError(
                f"{record.image} is {size[1]} x {size[0]} pixels, its maps in {self.path} were made for "
                f"{made_for[1]} x {made_for[0]}; has the photograph changed since?"
            )
        return {label: values for label, values in self._reader.maps(row).items() if label not in (0, IGNORE)}


def open_crops(
    options: MixedLabelOptions, dataset: Dataset, masked: frozenset[str], progress: Progress
) -> tuple[LabelledCrops, tuple[Record, ...], dict[str, str]]:
    """The crops of a data set's images, the images that can be used, and reasons by id why others cannot.

    Args:
        options: Of the training; what an unreadable image does.
        dataset: That is trained on.
        masked: Ids of the images whose pixel masks are used.
        progress: Where to report.

    Raises:
        DatasetError: An image or its labels cannot be used, and the options do not skip it.
        InputError: Fewer than two images are left, or the CAMs are not of this data set.
    """
    if options.on_error == "stop":  # now, not when a training of hours comes to it
        for record in dataset.records:
            check_size(record)
    crops = LabelledCrops(dataset, masked, open_cams(options.cams, dataset), options)
    return crops, *usable(dataset, crops.read, options, progress)


def open_cams(path: Path | None, dataset: Dataset) -> CamSource | None:
    """The maps that ``--cams`` names, if any.

    Raises:
        ArtefactError: The file holds no maps.
        InputError: They are of other classes, or of none of the images.
    """
    if path is None:
        return None
    with open_artefact(path, "cams", "soft-labels") as artefact:
        reader = MapsReader(artefact)
        if reader.header.classes != dataset.classes:
            raise InputError(f"{path} is about other classes than {dataset.root}; pass CAMs of this data set")
        rows = {name: row for row, name in enumerate(reader.images.ids) if name not in reader.skipped}
    if not any(record.id in rows for record in dataset.records):
        raise InputError(f"{path} has maps of no image of split {dataset.split}; make them of the images trained on")
    return CamSource(path, artefact.header, rows)


@dataclass(frozen=True)
class Labelled:
    """One image and all that is said about it; H and W its sides, C object classes.

    Attributes:
        photograph: uint8 (H, W, 3).
        strokes: uint8 (H, W), scribbles and points; 255 = unlabelled.
        areas: uint8 (H, W), the mask, or what follows from boxes; None where there is neither.
        boxes: Of its objects.
        anywhere: bool (C,), the classes that may be at any pixel.
        hidden: bool (C,), classes that are somewhere, and no pixel is labelled with.
        objects: float32 (h', w') in [0, 1], how likely there is an object; None where nobody knows.
    """

    photograph: np.ndarray
    strokes: np.ndarray
    areas: np.ndarray | None
    boxes: tuple[Box, ...]
    anywhere: np.ndarray
    hidden: np.ndarray
    objects: np.ndarray | None

    def labels(self, part: Part, side: int) -> np.ndarray:
        """The labels in a view of the image, uint8 (side, side), strokes over areas; 255 = unlabelled."""
        strokes = crop_scribbles(self.strokes, part, side)
        return strokes if self.areas is None else np.where(strokes == IGNORE, crop_map(self.areas, part, side), strokes)


class LabelledCrops:
    """Random views of images with what their labels say; sample (epoch, index) is always the same.

    Args:
        dataset: With its weak labels; its records are the samples.
        masked: Ids of the images whose pixel masks are used, and nothing else of them.
        cams: Maps of the images; None for none.
        options: Of labels and views.

    Attributes:
        grid: Rows, and columns, of the network's map of a view.
    """

    def __init__(
        self, dataset: Dataset, masked: frozenset[str], cams: CamSource | None, options: MixedLabelOptions
    ) -> None:
        self.records, self.masked, self.cams, self.grid = dataset.records, masked, cams, 1
        self._classes, self._read_mask, self._options = dataset.classes, dataset.read_mask, options

    def of(self, records: tuple[Record, ...]) -> LabelledCrops:
        """The same of some of the records."""
        views = copy.copy(self)
        views.records = records
        return views

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, index = key
        options, image = self._options, self.read(self.records[index])
        rng = sample_rng(options.seed, epoch, index)
        height, width = image.photograph.shape[:2]
        part = random_part((height, width), rng, options.crop_area)
        boxes = boxes_in_crop(image.boxes, part[:4], options.crop, mirrored=part.mirrored)
        allowed = boxes_allow(boxes, len(self._classes) - 1, (options.crop, options.crop), (self.grid, self.grid))
        allowed[1:] |= torch.from_numpy(image.anywhere)[:, None, None]
        seen = image.anywhere.copy()
        seen[[box.label - 1 for box in boxes]] = True
        sample = {
            "id": self.records[index].id,
            "image": crop_of(image.photograph, part, rng, crop=options.crop, jitter=options.jitter),
            "labels": image.labels(part, options.crop),
            "allowed": allowed,
            "present": image.hidden & seen,
            "noise": rng.random((self.grid, self.grid), dtype=np.float32),
        }
        return sample if options.objectness is None else {**sample, "objectness": self._objects(image, part)}

    def whole(self, record: Record) -> np.ndarray:
        """The labels of a whole image at the size of a view: uint8 (crop, crop), 255 = unlabelled."""
        image = self.read(record)
        height, width = image.photograph.shape[:2]
        return image.labels(Part(0, 0, width, height), self._options.crop)

    def read(self, record: Record) -> Labelled:
        """Read one image and its labels.

        Raises:
            DatasetError: The photograph is unreadable, or a label is at fault.
        """
        photograph = read_image(record.image, record.decoding)
        size = (photograph.shape[0], photograph.shape[1])
        nothing, count = np.full(size, IGNORE, np.uint8), len(self._classes) - 1
        if record.id in self.masked:
            mask = self._read_mask(record)
            if mask.shape != size:
                raise DatasetError(
                    f"{record.image} is {size[1]} x {size[0]} pixels, its mask {mask.shape[1]} x {mask.shape[0]}"
                )
            return Labelled(photograph, nothing, mask, (), np.ones(count, bool), np.zeros(count, bool), None)
        weak = load_weak_labels(record, size, self._classes, width=self._options.width)
        tags = tag_vector(record, count) if record.tags is not None else np.zeros(count, np.float32)
        anywhere = tags > 0 if record.tags is not None else np.ones(count, bool)
        anywhere[[box.label - 1 for box in weak.boxes]] = False
        maps = None if self.cams is None else self.cams.maps(record, size)
        areas = self._box_labels(weak.boxes, maps, size) if weak.boxes else None
        if areas is not None and anywhere.any():
            areas[areas == 0] = IGNORE  # an object of a class without a box may be there
        known = weak.labels if areas is None else np.where(weak.labels == IGNORE, areas, weak.labels)
        hidden = unlabelled_tags(torch.from_numpy(known)[None], torch.from_numpy(tags)[None])[0].numpy()
        objects = None if maps is None else _strongest(maps, tags)
        return Labelled(photograph, weak.labels, areas, weak.boxes, anywhere, hidden, objects)

    def _box_labels(
        self, boxes: tuple[Box, ...], maps: dict[int, np.ndarray] | None, size: tuple[int, int]
    ) -> np.ndarray:
        """What boxes say of an image's pixels, and CAMs inside of them: uint8 (H, W), 255 = unlabelled."""
        fill = self._options.fill
        if fill is None or maps is None:
            return outside_boxes(boxes, size).numpy()
        present = sorted({box.label for box in boxes})  # maps of all classes of COCO would be 100 MB an image
        stored, shares = at_size({label: maps[label] for label in present if label in maps}, size)
        cams = torch.zeros(len(present), *size)
        cams[[present.index(label) for label in stored.tolist()]] = torch.from_numpy(shares)
        renamed = [box._replace(label=present.index(box.label) + 1) for box in boxes]
        filled = fill_boxes(cams, renamed, low=fill[0], high=fill[1]).numpy()
        original = np.full(IGNORE + 1, IGNORE, np.uint8)
        original[: len(present) + 1] = [0, *present]
        return np.asarray(original[filled])

    def _objects(self, image: Labelled, part: Part) -> np.ndarray:
        """How likely an object is in each cell of a view: float32 (h, w) in [0, 1], NaN where nobody knows."""
        if image.objects is None:
            return np.full((self.grid, self.grid), np.nan, np.float32)
        height, width = image.photograph.shape[:2]
        down, right = image.objects.shape[0] / height, image.objects.shape[1] / width
        ends = min(part.right * right, image.objects.shape[1]), min(part.bottom * down, image.objects.shape[0])
        small = Part(part.left * right, part.top * down, *ends, part.mirrored)  # rounding does not lead out of the map
        return crop_map(image.objects, small, self.grid).clip(0, 1)


def label_inputs(
    options: MixedLabelOptions, dataset: Dataset, masked: frozenset[str], mask_list: Path | None, cams: CamSource | None
) -> tuple[Input, ...]:
    """What such a training reads besides data set and weights.

    Args:
        options: Where its output goes.
        dataset: That is trained on.
        masked: Ids of the images whose pixel masks are used.
        mask_list: The list that names them; None where there is none.
        cams: Maps of the images; None for none.
    """
    found = []
    if masked:
        found.append(ground_truth_input(dataset, masked))
    if mask_list is not None:
        content = hashlib.sha256(read_regular(mask_list)).hexdigest()
        found.append(Input("list", mask_list.resolve().as_posix(), content))
    if cams is not None:
        place = path_from(options.artefact.parent, cams.path)
        found.append(Input(cams.header.kind, place, cams.header.digest))
    return tuple(found)


def _strongest(maps: dict[int, np.ndarray], tags: np.ndarray) -> np.ndarray | None:
    """``scribble.boxes.objectness`` of stored maps, which have one size; None where no tagged class has one."""
    tagged = {label: values for label, values in maps.items() if tags[label - 1] > 0}
    if not tagged:
        return None
    labels, shares = at_size(tagged, next(iter(tagged.values())).shape)
    there = torch.ones(1, len(labels))
    return objectness(torch.from_numpy(shares)[None], there)[0].numpy()
