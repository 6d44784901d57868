"""``vote-regions``: CAMs, soft labels or masks and regions in, soft labels that follow the regions' edges out.

No photograph is read. An image without regions keeps its labels. Labels that an earlier stage box-constrained are
box-constrained again after the vote.

``sepl``, ``fma`` and ``box`` decide: a pixel's probability is 1 for its class. Where a pixel stays unlabelled, its
probabilities stay beside the map of class 255.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pseudolabel.artefacts import Header, MapsWriter, RegionsReader, check_output, child_header, open_artefact
from pseudolabel.artefacts.header import CostMeter
from pseudolabel.artefacts.maps import at_size
from pseudolabel.artefacts.run_lengths import Regions
from pseudolabel.data import Dataset, Record, reopen_dataset
from pseudolabel.data.faults import stop
from pseudolabel.data.records import IGNORE
from pseudolabel.data.shapes import Box
from pseudolabel.data.weak.boxes import check_boxes
from pseudolabel.data.weak.labels import require_places
from pseudolabel.errors import InputError
from pseudolabel.labels.assignment import Thresholds, assign, from_soft, probabilities, quantise
from pseudolabel.labels.box_constraints import BOX_CONSTRAINED, constrain_probabilities
from pseudolabel.labels.inputs import MapsInput, MapsTask, open_maps, write_images
from pseudolabel.labels.region_votes import split_regions, vote_boxes, vote_fma, vote_sepl, vote_soft
from pseudolabel.options import VoteRegionsOptions
from pseudolabel.runtime.formatting import short
from pseudolabel.runtime.parallel import ordered_map
from pseudolabel.runtime.progress import Progress

_USED = {"sepl": ("share", "coverage"), "fma": ("power",), "soft": (), "box": ("inside",)}
VOTE = "region_vote"
"""Under which name a protocol states how regions voted."""


@dataclass(frozen=True)
class Ballot:
    """One image as a worker process gets it.

    Attributes:
        maps: Its labels.
        regions: Its regions; none if they could not be made.
        record: Of its boxes; None where no boxes are needed.
    """

    maps: MapsTask
    regions: Regions | None
    record: Record | None


@dataclass(frozen=True)
class Vote:
    """How regions vote, as of ``VoteRegionsOptions``; ``power`` is chosen."""

    rule: Literal["sepl", "fma", "soft", "box"]
    share: float
    coverage: float
    power: float
    inside: float
    split: float | None

    @property
    def words(self) -> str:
        """For a protocol: ``sepl, share 0.5, coverage 0.85``."""
        used = [*_USED[self.rule], *(["split"] if self.split is not None else [])]
        return ", ".join([self.rule, *(f"{name} {short(getattr(self, name))}" for name in used)])


def vote_regions(options: VoteRegionsOptions, progress: Progress = Progress()) -> dict[str, Any]:  # noqa: B008 - has no state
    """Let regions vote on every image's labels, in parallel over processes.

    Args:
        options: Labels, regions, thresholds, the rule and its settings.
        progress: Where to report.

    Returns:
        ``out``, ``images``, ``without`` (images of this run that have no regions and kept their labels), ``skipped``,
        ``vote`` in words, ``images_per_second``.

    Raises:
        InputError: Regions are of other images, sizes or classes; thresholds are missing, superfluous or of other
            classes; there are no boxes for ``--rule box``.
        DatasetError: Boxes do not fit their image.
    """
    cost = CostMeter()
    check_output(options.out, overwrite=options.overwrite)
    with (
        open_maps(options.labels, options.threshold, "cams", "soft-labels", "masks") as source,
        open_regions(options.regions, source, options.labels) as regions,
    ):
        held = BOX_CONSTRAINED in source.header.protocol
        dataset = _boxed(options, source) if held or options.rule == "box" else None
        vote = chosen_vote(options, source.header.kind)
        header = make_header(options, source, regions.header, dataset, vote)
        work = partial(cast, vote=vote, thresholds=source.thresholds, kind=source.header.kind, held=held)
        records = dataset.find(source.images.ids, options.labels) if dataset else None
        without = 0

        def ballot(index: int) -> Ballot:
            nonlocal without
            name = source.images.ids[index]
            found = None if name in regions.skipped else regions.regions(regions.places[name])
            without += found is None or not len(found)
            return Ballot(source.task(index), found, records[index] if records else None)

        count = len(source.images.ids)
        writer = MapsWriter(options.out, header, source.images, dtype="uint8", cost=cost, overwrite=options.overwrite)
        with writer:
            todo = range(writer.done, count)
            made = ordered_map(work, map(ballot, todo), workers=options.workers)
            write_images(writer, made, count, progress)
    skipped = len(writer.skipped)
    return {
        "out": str(options.out),
        "images": count - skipped,
        "without": without,
        "skipped": skipped,
        "vote": vote.words,
        "images_per_second": cost.read(len(todo))["images_per_second"],
    }


@contextmanager
def open_regions(path: Path, source: MapsInput, labels: Path) -> Iterator[RegionsReader]:
    """Open regions of the images that labels are of.

    Raises:
        ArtefactError: The file is not what it should be.
        InputError: Regions of an image are missing or of another size, or have classes of another list.
    """
    with open_artefact(path, "regions") as artefact:
        reader = RegionsReader(artefact)
        wanted = {name: size for name, size in source.images.sizes().items() if name not in source.reader.skipped}
        sizes = reader.images.sizes()
        missing = [name for name in wanted if name not in sizes]
        if missing:
            raise InputError(
                f"{path} has no regions of {len(missing)} of the {len(wanted)} images of {labels} (first: "
                f"{missing[0]}); make or import regions of the split that the labels are of"
            )
        for name, (height, width) in wanted.items():
            if name not in reader.skipped and sizes[name] != (height, width):
                raise InputError(
                    f"{path} has regions of image {name!r} at {sizes[name][0]} x {sizes[name][1]} pixels, {labels} has "
                    f"it at {height} x {width}; make both from the same photographs"
                )
        if reader.classed and reader.header.classes != source.header.classes:
            raise InputError(
                f"{path} has regions of other classes ({len(reader.header.classes) - 1} of them) than {labels} "
                f"({len(source.header.classes) - 1}); import them with the data set of the labels"
            )
        yield reader


def chosen_vote(options: VoteRegionsOptions, kind: str) -> Vote:
    """The settings that will vote on labels of a kind."""
    power = options.power if options.power is not None else 0.6 if kind == "cams" else 0.7
    return Vote(options.rule, options.share, options.coverage, power, options.inside, options.split)


def make_header(
    options: VoteRegionsOptions, source: MapsInput, regions: Header, dataset: Dataset | None, vote: Vote
) -> Header:
    """What the soft labels say about themselves; an earlier vote stays in the words."""
    made_of = str(regions.protocol.get("regions", "unknown"))
    before = source.header.protocol.get(VOTE)
    words = f"{vote.words}; regions: {made_of}"
    return child_header(
        "soft-labels",
        "vote-regions",
        options,
        {**source.parents, options.regions: regions},
        inputs=(dataset.as_input(),) if dataset else (),
        protocol={"regions": made_of, VOTE: f"{before}; then {words}" if before else words},
        dataset=dataset.spec() if dataset else source.header.dataset,
    )


def cast(
    ballot: Ballot, *, vote: Vote, thresholds: Thresholds | None, kind: str, held: bool
) -> dict[int, np.ndarray] | str:
    """One image's soft labels after the vote, or why there are none; runs in a worker process.

    Args:
        ballot: The image.
        vote: How its regions vote.
        thresholds: By class index, where the labels are CAMs.
        kind: Of the labels: ``cams``, ``soft-labels`` or ``masks``.
        held: Whether labels are box-constrained.

    Returns:
        Class index to uint8 (H, W), 0-255; a map of class 255 where pixels are unlabelled.

    Raises:
        DatasetError: A box does not fit the image.
    """
    if ballot.maps.skipped is not None:
        return ballot.maps.skipped
    regions, boxes = ballot.regions, _boxes(ballot, vote)
    found, maps = _opened(ballot.maps, kind)
    classes, shares, labels = _as_shares(found, maps, thresholds, {box.label for box in boxes})
    unlabelled = labels == IGNORE if (labels == IGNORE).any() else None
    if regions is not None and len(regions):
        if vote.split is not None:
            regions = split_regions(regions, labels, vote.split)
        if vote.rule == "soft":
            shares, unlabelled = vote_soft(shares, unlabelled, regions)
        else:
            objects = (found > 0) & (found != IGNORE)
            decided = {
                "sepl": lambda: vote_sepl(labels, regions, share=vote.share, coverage=vote.coverage),
                "fma": lambda: vote_fma(labels, found[objects], maps[objects], regions, power=vote.power),
                "box": lambda: vote_boxes(labels, regions, boxes, inside=vote.inside) if boxes else labels,
            }[vote.rule]()
            one_hot = (decided == classes[:, None, None]).astype(np.float32)
            shares = np.where(decided == IGNORE, shares, one_hot)
            unlabelled = decided == IGNORE if (decided == IGNORE).any() else None
    if held and ballot.record is not None:
        shares = constrain_probabilities(classes, shares, ballot.record)
    result = dict(zip(classes.tolist(), quantise(shares), strict=True))
    if unlabelled is not None and unlabelled.any():
        result[IGNORE] = unlabelled * np.uint8(255)
    return result


def _boxes(ballot: Ballot, vote: Vote) -> tuple[Box, ...]:
    """Those that the rule needs, in whole pixels."""
    if vote.rule != "box" or ballot.record is None:
        return ()
    return check_boxes(ballot.record, ballot.maps.size, stop)


def _opened(task: MapsTask, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Class indices and float32 maps (P, H, W) at image size; a mask's are those of its labels and background."""
    if kind != "masks":
        return at_size(task.maps, task.size)
    labels = task.maps[0]
    found = np.union1d(labels, [0]).astype(np.int64)
    return found, (labels == found[:, None, None]).astype(np.float32)


def _as_shares(
    found: np.ndarray, maps: np.ndarray, thresholds: Thresholds | None, more: set[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Maps as probabilities and as a label map.

    Args:
        found: int (P,), class index of each map.
        maps: float32 (P, H, W).
        thresholds: Where they are CAMs.
        more: Class indices that the result has besides.

    Returns:
        int (K,), class indices, ascending from 0; float32 (K, H, W), summing to 1; uint8 (H, W), 255 = unlabelled.
    """
    if thresholds is not None:
        known, shares = np.concatenate([[0], found]), probabilities(found, maps, thresholds.value)
        labels = assign(found, maps, thresholds.value)
    else:
        labels = from_soft(found, maps)
        known, kept = found[found != IGNORE], maps[found != IGNORE]
        total = kept.sum(axis=0)
        shares = np.where(total > 0, kept / np.where(total > 0, total, 1), 1 / len(known))
    classes = np.union1d(np.union1d(known, [0]), list(more)).astype(np.int64)
    whole = np.zeros((len(classes), *maps.shape[1:]), dtype=np.float32)
    whole[np.searchsorted(classes, known)] = shares
    return classes, whole, labels


def _boxed(options: VoteRegionsOptions, source: MapsInput) -> Dataset:
    """The data set with the boxes that the rule or an earlier constraint needs.

    Raises:
        InputError: No image has a box.
    """
    if options.boxes is not None:
        require_places({"boxes": options.boxes})
    dataset = reopen_dataset(source.header.dataset, root=options.root, boxes=options.boxes)
    dataset.require_classes(source.header.classes, options.labels)
    if not any(record.boxes for record in dataset.find(source.images.ids, options.labels)):
        why = "--rule box" if options.rule == "box" else f"{options.labels} is box-constrained"
        raise InputError(
            f"{why}, but no image of split {dataset.split} of {dataset.root} has a box{dataset.gone_note}; pass "
            "--boxes with the folder of VOC annotations or COCO's JSON that has them"
        )
    return dataset
