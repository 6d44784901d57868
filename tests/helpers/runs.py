"""Runs of a few tiny images, for the tests of what sets runs side by side.

Networks and their predictions are made by hand; thresholds, masks and scores by the stages themselves.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image

from pseudolabel.artefacts import Header, Images, Input, MapsWriter, read_header, write_artefact
from pseudolabel.artefacts.header import CostMeter
from pseudolabel.cli.app import main
from pseudolabel.data import Dataset, load_dataset
from pseudolabel.runs.comparison import compare_runs

CLASSES = ("background", "cat", "dog")
SPLITS = {"train": ("t1", "t2", "t3", "t4"), "val": ("v1", "v2", "v3")}
SIZE = (24, 32)


def write_data(
    root: Path, *, classes: Sequence[str] = CLASSES, splits: Mapping[str, Sequence[str]] = SPLITS, seed: int = 0
) -> Path:
    """A data set in VOC layout: each image has one rectangle of one class."""
    random = np.random.default_rng(seed)
    for folder in ("ImageSets/Segmentation", "SegmentationClass", "JPEGImages", "Annotations"):
        (root / folder).mkdir(parents=True)
    (root / "classes.txt").write_text("\n".join(classes))
    for split, names in splits.items():
        (root / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(names))
        for number, name in enumerate(names):
            label = 1 + number % (len(classes) - 1)
            mask = np.zeros(SIZE, np.uint8)
            top, left = random.integers(2, 8, size=2)
            mask[top : top + 12, left : left + 16] = label
            Image.fromarray(mask).save(root / "SegmentationClass" / f"{name}.png")
            pixels = random.integers(0, 255, size=(*SIZE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "JPEGImages" / f"{name}.png")
            words = f"<annotation><object><name>{escape(classes[label])}</name></object></annotation>"
            (root / "Annotations" / f"{name}.xml").write_text(words)
    return root


def stage(*words: Any) -> None:
    """Run one command line of the program."""
    assert main([*map(str, words), "--json"]) == 0


def inputs_of(path: Path, *artefacts: Path) -> tuple[Input, ...]:
    """Artefacts as inputs of another one."""
    found = []
    for artefact in artefacts:
        header = read_header(artefact)
        found.append(Input(header.kind, os.path.relpath(artefact, path.parent), header.digest))
    return tuple(found)


def write_network(path: Path, stage_name: str, dataset: Dataset, *made_of: Path, **header: Any) -> Path:
    """A checkpoint with training curves."""
    about = Header(
        "checkpoint",
        stage_name,
        {},
        dataset.classes,
        inputs=inputs_of(path, *made_of),
        dataset=dataset.spec(),
        facts={"architecture": {"type": "any"}},
        environment={"machine": "m", "cores": 2, "device": "cpu", "dtype": "bfloat16"},
    )
    arrays = {
        "weights/one": np.full(1, len(str(path)), np.float32),
        "images/id": np.array([record.id for record in dataset.records], dtype=object),
        "curves/loss": np.linspace(1, 0.5, 400, dtype=np.float32),
        "curves/epoch/score": np.array([0.25, np.nan, 0.75], np.float32),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_artefact(path, replace(about, **header), arrays, CostMeter(), images=4)


def write_labels(
    path: Path, kind: str, stage_name: str, dataset: Dataset, maps: Sequence[Any], *made_of: Path, **protocol: Any
) -> Path:
    """CAMs, soft labels or masks of a whole split."""
    sizes = np.tile(SIZE, (len(dataset.records), 1)).T
    images = Images(tuple(record.id for record in dataset.records), *sizes)
    header = Header(
        kind,
        stage_name,
        {},
        dataset.classes,
        inputs=inputs_of(path, *made_of),
        dataset=dataset.spec(),
        protocol={"split": dataset.split, **protocol},
        environment={"machine": "m", "cores": 2, "device": "cpu", "dtype": "bfloat16"},
    )
    dtype = "uint8" if kind == "masks" else "float16"
    with MapsWriter(path, header, images, dtype=dtype) as writer:
        for index, found in enumerate(maps):
            writer.add(index, found)
    return path


def probabilities(dataset: Dataset, *, noise: float, seed: int, every: bool) -> list[dict[int, np.ndarray]]:
    """Truth and noise as probabilities, of background and the tags or of every class."""
    random = np.random.default_rng(seed)
    found = []
    for record in dataset.records:
        mask = dataset.read_mask(record)
        labels = range(len(dataset.classes)) if every else (0, *(record.tags or ()))
        raw = {label: (mask == label) + noise * random.random(mask.shape) for label in labels}
        total = np.sum(list(raw.values()), axis=0)
        found.append({label: (array / total).astype(np.float16) for label, array in raw.items()})
    return found


def label_maps(soft: Sequence[Mapping[int, np.ndarray]]) -> list[np.ndarray]:
    """What soft labels stand for."""
    return [np.array(list(maps), np.uint8)[np.stack(list(maps.values())).argmax(axis=0)] for maps in soft]


def predict(folder: Path, checkpoint: Path, dataset: Dataset, *, seed: int, tags: str = "none") -> Path:
    """What predict-masks leaves: soft labels, and masks made of them, in a folder."""
    folder.mkdir(parents=True)
    soft = probabilities(dataset, noise=1.6, seed=seed, every=tags == "none")
    protocol = {"tag_filter": "none" if tags == "none" else "image tags", "scales": [1.0], "flip": True}
    path = write_labels(folder / "soft.h5", "soft-labels", "predict-masks", dataset, soft, checkpoint, **protocol)
    masks = label_maps(soft)
    write_labels(folder / "masks.h5", "masks", "predict-masks", dataset, masks, checkpoint, path, **protocol)
    (folder / "v1.png").write_bytes(b"x" * 1000)  # an export has pictures, too
    return folder


def multi_stage(
    folder: Path, root: Path, *, seed: int = 0, ignored: str = "background", crf: str = "irn", **refined_by: Any
) -> Path:
    """A run with CAMs, thresholds, refined labels, a segmenter and its predictions, all of them scored."""
    train, val = (load_dataset({"dataset": "voc", "root": str(root), "split": split}) for split in SPLITS)
    cam = write_network(folder / "one.h5", "train-cam", train)
    maps = [
        {label: values for label, values in found.items() if label}
        for found in probabilities(train, noise=1.4, seed=seed, every=False)
    ]
    protocol = {"tag_filter": "image tags", "scales": [1.0, 0.5], "flip": True}
    cams = write_labels(folder / "two.h5", "cams", "make-cams", train, maps, cam, **protocol)
    stage("search-threshold", cams, "--out", folder / "three.h5")
    stage("export-masks", cams, "--threshold", folder / "three.h5", "--out", folder / "four", "--workers", "0")
    stage("evaluate-masks", folder / "four", "--out", folder / "five.h5", "--ignored", ignored)
    refined = probabilities(train, noise=1.1, seed=seed + 1, every=False)
    protocol |= {"crf": crf, "threshold": 0.5, "threshold_fitted_on": "values of 4 maps of split train, no masks"}
    protocol |= refined_by
    soft = write_labels(
        folder / "six.h5", "soft-labels", "refine-crf", train, refined, cams, folder / "three.h5", **protocol
    )
    stage("export-masks", soft, "--out", folder / "seven", "--workers", "0")
    stage("evaluate-masks", folder / "seven", "--out", folder / "eight.h5", "--ignored", ignored)
    segmenter = write_network(folder / "nine.h5", "train-segmenter", train, folder / "seven" / "masks.h5", cam)
    predict(folder / "ten", segmenter, val, seed=seed + 2)
    stage("evaluate-masks", folder / "ten", "--out", folder / "eleven.h5", "--ignored", ignored)
    return folder


def single_stage(folder: Path, root: Path, *, seed: int = 5) -> Path:
    """A run in which one network gives CAMs, pseudo labels and predictions."""
    train, val = (load_dataset({"dataset": "voc", "root": str(root), "split": split}) for split in SPLITS)
    network = write_network(folder / "network.h5", "train-cosa", train)
    maps = [
        {label: values for label, values in found.items() if label}
        for found in probabilities(train, noise=1.5, seed=seed, every=False)
    ]
    protocol = {"tag_filter": "image tags", "scales": [1.0], "flip": True}
    cams = write_labels(folder / "cams.h5", "cams", "make-cams", train, maps, network, **protocol)
    stage("search-threshold", cams, "--method", "sweep", "--out", folder / "swept.h5")
    stage("export-masks", cams, "--threshold", folder / "swept.h5", "--out", folder / "plain", "--workers", "0")
    stage("evaluate-masks", folder / "plain", "--out", folder / "plain.h5")
    stage("evaluate-masks", predict(folder / "pseudo", network, train, seed=seed + 1, tags="dataset"))
    stage("evaluate-masks", predict(folder / "held-out", network, val, seed=seed + 2))
    return folder


def compared(folder: Path) -> dict[str, Any]:
    """What ``compare`` says of one run."""
    (run,) = compare_runs([folder])["runs"]
    return run
