"""Pictures of the best, median and worst images of a figure: what every run made of the same photographs."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pseudolabel.artefacts import MapsReader, open_artefact
from pseudolabel.data import Dataset, Record, load_dataset
from pseudolabel.data.inputs import read_photograph
from pseudolabel.data.palette import PALETTE
from pseudolabel.errors import DatasetError, InputError
from pseudolabel.export.pictures import paint_heat, paint_labels
from pseudolabel.labels.assignment import from_soft
from pseudolabel.runs.headline_scores import HeadlineScores, Score, origin
from pseudolabel.runs.lineage import Node, RunFolder

_LONG_SIDE = 240  # of a picture, pixels
_QUALITY = 82  # of JPEG


@dataclass(frozen=True)
class Panel:
    """One picture.

    Attributes:
        title: What it shows.
        alt: The same in words, for who cannot see it.
        uri: The picture itself, as a data URI.
    """

    title: str
    alt: str
    uri: str


@dataclass(frozen=True)
class Example:
    """One image.

    Attributes:
        name: Its id.
        rank: ``best``, ``median`` or ``worst``.
        scores: Its mIoU by run.
        common: Photograph and ground truth.
        runs: By run, what it has made of the image.
        legend: Colour and name of the classes that occur.
    """

    name: str
    rank: str
    scores: Mapping[str, float]
    common: Sequence[Panel]
    runs: Mapping[str, Sequence[Panel]]
    legend: Sequence[tuple[str, str]]


def examples(
    runs: Sequence[RunFolder], figures: Sequence[HeadlineScores], key: str, count: int, root: Path | None
) -> list[Example]:
    """The best, median and worst images of a figure, by their mean mIoU over the runs that have it.

    Args:
        runs: The runs.
        figures: Of each run.
        key: Which figure.
        count: How many images of each sort.
        root: Where the data set lies, if it has moved.

    Raises:
        InputError: No run has the figure, scores of single images, or an image in common with the others.
        DatasetError: The photographs or the ground truth are not where they were.
    """
    scored = {run.name: found.chosen[key].score for run, found in zip(runs, figures, strict=True)}
    each = {name: image_scores(score) for name, score in scored.items() if score is not None}
    ranks = chosen_images(each, count)
    first = next(score for score in scored.values() if score is not None)
    dataset = open_photographs(first, root)
    records = dict(zip(ranks, dataset.find(ranks, first.node.path), strict=True))
    made = []
    with ExitStack() as stack:
        sources = {
            run.name: stack.enter_context(open_sources(run, found, found.chosen[key].score))
            for run, found in zip(runs, figures, strict=True)
        }
        for name, rank in ranks.items():
            scores = {run: table[name] for run, table in each.items()}
            made.append(example(dataset, records[name], rank, scores, sources))
    return made


def image_scores(score: Score) -> dict[str, float]:
    """mIoU by image id, of those that have one.

    Raises:
        InputError: The artefact does not hold them.
    """
    with open_artefact(score.node.path, "scores") as artefact:
        if "images/miou" not in artefact.file:
            raise InputError(
                f"{score.node.path} holds no scores of single images; run 'pseudolabel evaluate-masks "
                f"{score.scored.path} --out {score.node.path} --overwrite'"
            )
        names = artefact.file["images/id"].asstr()[:].tolist()
        values = artefact.file["images/miou"][:].tolist()
    return {name: value for name, value in zip(names, values, strict=True) if not math.isnan(value)}


def chosen_images(each: Mapping[str, Mapping[str, float]], count: int) -> dict[str, str]:
    """The best, median and worst images.

    Args:
        each: By run, mIoU by image id.
        count: How many of each sort; none twice.

    Returns:
        Id to ``best``, ``median`` or ``worst``, best first.

    Raises:
        InputError: The runs have no image in common.
    """
    if not each:
        raise InputError("no run has this figure")
    tables = list(each.values())
    common = [name for name in tables[0] if all(name in table for table in tables[1:])]
    if not common:
        raise InputError("the runs were not scored on the same images")
    ranked = sorted(common, key=lambda name: (-sum(table[name] for table in tables), name))
    middle = max(0, (len(ranked) - count) // 2)
    parts = {"best": ranked[:count], "worst": ranked[::-1][:count][::-1], "median": ranked[middle : middle + count]}
    rank = {name: sort for sort in ("median", "worst", "best") for name in parts[sort]}
    return {name: rank[name] for name in ranked if name in rank}


def open_photographs(score: Score, root: Path | None) -> Dataset:
    """The data set of a score.

    Raises:
        DatasetError: It is not where it was.
    """
    spec: Mapping[str, Any] = score.node.header.dataset
    place = Path(root or spec.get("root") or "")
    if not place.is_dir():
        raise DatasetError(f"data set folder {place} does not exist; pass --root with the folder's place now")
    return load_dataset({**spec, "tag_source": "none", "tags_file": None}, root=root)


@dataclass(frozen=True)
class Sources:
    """What a run has to show, in order of preference: the first that has an image shows it."""

    cams: Sequence[MapsReader]
    pseudo: Sequence[MapsReader]
    predicted: Sequence[MapsReader]


@contextmanager
def open_sources(run: RunFolder, figures: HeadlineScores, score: Score | None) -> Iterator[Sources]:
    """Open what a run has to show beside a score: first what was scored and what that was made from."""
    near = run.ancestors(score.node) if score else set()
    newest = sorted(run.nodes, key=lambda node: (node in near, node.header.created), reverse=True)
    pseudo, predicted = [], []
    for node in newest:
        if node.kind not in ("masks", "soft-labels"):
            continue
        source, plain = origin(run, node)
        filtered = node.header.protocol.get("tag_filter") != "none"
        if source is not None and source is figures.segmenter and not filtered:
            predicted.append((node.kind != "masks", node))
        elif source is not None:
            pseudo.append((plain, node.kind != "masks", node))
    with ExitStack() as stack:

        def readers(nodes: Sequence[Node]) -> list[MapsReader]:
            return [MapsReader(stack.enter_context(open_artefact(node.path, node.kind))) for node in nodes]

        yield Sources(
            readers([node for node in newest if node.kind == "cams"]),
            readers([row[-1] for row in sorted(pseudo, key=lambda row: (row[-1] not in near, row[0], row[1]))]),
            readers([row[-1] for row in sorted(predicted, key=lambda row: (row[-1] not in near, row[0]))]),
        )


def example(
    dataset: Dataset, record: Record, rank: str, scores: Mapping[str, float], sources: Mapping[str, Sources]
) -> Example:
    """Draw one image.

    Raises:
        DatasetError: Its photograph or its ground truth cannot be read.
    """
    truth = dataset.read_mask(record)
    photograph = read_photograph(record, (truth.shape[0], truth.shape[1]))
    seen = [truth]

    def labelled(title: str, labels: np.ndarray) -> Panel:
        seen.append(labels)
        alt = f"{title} of {record.id}: {_shares(labels, dataset.classes)}"
        return Panel(title, alt, _uri(paint_labels(photograph, labels)))

    runs = {}
    for name, source in sources.items():
        panels = []
        for readers, title in ((source.cams, "CAM"), (source.pseudo, "pseudo mask"), (source.predicted, "prediction")):
            fitting = (reader for reader in readers if reader.header.classes == dataset.classes)
            found = next(_holding(fitting, record.id, truth.shape), None)
            if found is None:
                continue
            reader, index = found
            if reader.header.kind == "masks":
                panels.append(labelled(title, reader.labels(index)))
                continue
            labels, maps = reader.full_size(index)
            if reader.header.kind == "soft-labels":
                panels.append(labelled(title, from_soft(labels, maps)))
                continue
            of = ", ".join(dataset.classes[int(label)] for label in labels) or "no class"
            heat = paint_heat(photograph, maps.max(axis=0, initial=0))
            panels.append(Panel(title, f"{title} of {record.id}: heat map of {of}", _uri(heat)))
        runs[name] = panels
    true = f"ground truth of {record.id}: {_shares(truth, dataset.classes)}"
    common = [
        Panel("photograph", f"photograph {record.id}", _uri(photograph)),
        Panel("ground truth", true, _uri(paint_labels(photograph, truth))),
    ]
    return Example(record.id, rank, scores, common, runs, _legend(seen, dataset.classes))


def _holding(readers: Iterable[MapsReader], name: str, size: tuple[int, ...]) -> Iterator[tuple[MapsReader, int]]:
    """The artefacts that hold an image of this size, each with the image's index."""
    for reader in readers:
        if name in reader.images.ids and name not in reader.skipped:
            index = reader.images.ids.index(name)
            if reader.size(index) == size:
                yield reader, index


def _shares(labels: np.ndarray, classes: Sequence[str]) -> str:
    """The classes of a label map and how much of it they cover, in words."""
    index, count = np.unique(labels, return_counts=True)
    named = dict(enumerate(classes)) | {255: "unlabelled"}
    parts = sorted(zip(count.tolist(), index.tolist(), strict=True), reverse=True)
    return ", ".join(f"{named[label]} {100 * pixels / labels.size:.0f} %" for pixels, label in parts)


def _legend(maps: Sequence[np.ndarray], classes: Sequence[str]) -> list[tuple[str, str]]:
    named = dict(enumerate(classes)) | {255: "unlabelled"}
    present = sorted({int(label) for labels in maps for label in np.unique(labels)} - {0})
    return [("#" + bytes(PALETTE[label].tolist()).hex(), named[label]) for label in present]


def _uri(picture: np.ndarray) -> str:
    """A picture of (H, W, 3) as a small JPEG in a data URI."""
    image = Image.fromarray(picture)
    image.thumbnail((_LONG_SIDE, _LONG_SIDE), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
