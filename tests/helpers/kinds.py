"""One small artefact of every kind, for the tests of the format, of ``inspect`` and of pipelines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from pseudolabel.artefacts import Header, Images, Input, MapsWriter, RegionsWriter, data_digest, write_artefact
from pseudolabel.artefacts.attributes import attribute, put_attribute, seal
from pseudolabel.artefacts.header import CostMeter
from pseudolabel.artefacts.run_lengths import Regions, make_regions

CLASSES = ("background", "cat", "dog")
IMAGES = Images(("a", "b/c", "ü"), np.array([4, 5, 6], np.int32), np.array([8, 7, 6], np.int32))
STAGES = {
    "cams": "make-cams",
    "soft-labels": "refine-crf",
    "masks": "export-masks",
    "regions": "import-regions",
    "thresholds": "search-threshold",
    "crf-search": "search-crf",
    "scores": "evaluate-masks",
    "checkpoint": "train-cam",
    "training-state": "train-cam",
}
MAPS: dict[str, list[dict[int, np.ndarray]]] = {
    "cams": [
        {1: np.array([[0, 0.5], [1, 0.25]], np.float16)},
        {},
        {2: np.full((3, 2), 0.75, np.float16), 1: np.eye(3, dtype=np.float16)},
    ],
    "soft-labels": [
        {0: np.full((4, 8), 200, np.uint8), 1: np.full((4, 8), 55, np.uint8)},
        {0: np.full((5, 7), 255, np.uint8)},
        {0: np.eye(6, dtype=np.uint8), 2: np.eye(6, dtype=np.uint8) * 254},
    ],
    "masks": [
        {0: np.full((4, 8), 1, np.uint8)},
        {0: np.full((5, 7), 255, np.uint8)},
        {0: np.arange(36, dtype=np.uint8).reshape(6, 6) % 3},
    ],
}
REGIONS: list[Regions] = [
    make_regions(
        (4, 8),
        [np.array([0, 8, 24], np.uint32), np.array([4, 4, 20, 4], np.uint32)],
        score=[0.75, None],
        label=[2, None],
        box=[(0, 0, 2, 4), None],
        prompt=["box", ""],
    ),
    make_regions((5, 7), []),
    make_regions((6, 6), [np.array([30, 6], np.uint32)], score=[1.0625]),
]
"""The first two columns; the second and the last one; none; the last column of the third image."""
ARRAYS: dict[str, dict[str, np.ndarray]] = {
    "thresholds": {
        "thresholds/value": np.array([np.nan, 0.4, 0.4]),
        "thresholds/low": np.array([np.nan, 0.3, 0.3]),
        "thresholds/high": np.full(3, np.nan),
    },
    "crf-search": {
        "trials/name": np.array(["irn", "random 1"], dtype=object),
        "trials/criterion": np.array([0.5, 0.4]),
        "images/id": np.array(["a", "b/c", "ü"], dtype=object),
    },
    "scores": {"confusion": np.arange(9, dtype=np.int64).reshape(3, 3)},
    "checkpoint": {
        "weights/head.weight": np.ones((2, 8, 1, 1), np.float32),
        "weights/norm.num_batches_tracked": np.asarray(7),
    },
    "training-state": {
        "weights/head.weight": np.ones((2, 8, 1, 1), np.float32),
        "optimiser/head.weight/exp_avg": np.zeros((2, 8, 1, 1), np.float32),
        "optimiser/head.weight/step": np.asarray(3.0, np.float32),
        "step": np.asarray(3),
    },
}

FACTS: dict[str, dict[str, object]] = {
    "regions": {
        "source": "imported",
        "model": "SAM ViT-B",
        "licence": "Apache-2.0",
        "model_trained_on": "masks of SA-1B",
    },
    "thresholds": {"method": "fixed", "fitted_on": "nothing: given by hand"},
    "crf-search": {
        "method": "edges",
        "fitted_on": "edges and tags of 3 images",
        "crf": "irn",
        "settings": {
            "iterations": 10,
            "spatial_xy": 3.0,
            "spatial_weight": 3.0,
            "bilateral_xy": 50.0,
            "bilateral_rgb": 5.0,
            "bilateral_weight": 10.0,
            "unary": "hard",
            "gt_prob": 0.7,
        },
    },
    "scores": {"miou": 0.5},
    "checkpoint": {"architecture": {"type": "cam", "backbone": "resnet18", "classes": 2}},
    "training-state": {"architecture": {"type": "cam", "backbone": "resnet18", "classes": 2}},
}


def header(kind: str, **changes: object) -> Header:
    about: dict[str, object] = {
        "kind": kind,
        "stage": STAGES[kind],
        "options": {"seed": 3},
        "classes": CLASSES,
        "seed": 3,
        "inputs": (Input("dataset", "/data/voc", "ab" * 32),),
        "dataset": {"dataset": "voc", "root": "/data/voc", "split": "train"},
        "network": {"backbone": "resnet18", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "crop": 32},
        "protocol": {"tag_filter": "image tags", "flip": True},
        "oracle": ("image tags read from pixel masks",),
        "facts": {"note": "ü"} | FACTS.get(kind, {}),
    }
    if kind == "regions":
        about["protocol"] = {"external_models": ["SAM ViT-B (Apache-2.0), trained on masks of SA-1B"]}
    return Header(**(about | changes))  # type: ignore[arg-type]


@contextmanager
def edited(path: Path) -> Iterator[h5py.File]:
    """An artefact to change as a forger would: its digest and its seal are those of what it holds in the end."""
    with h5py.File(path, "r+") as file:
        yield file
        for name in file.attrs:
            value = attribute(file, name)
            if isinstance(value, str):
                put_attribute(file, name, value)
        put_attribute(file, "digest", data_digest(file))
        put_attribute(file, "seal", seal(file))


def make(kind: str, path: Path, *, arrays: Mapping[str, np.ndarray] | None = None, **changes: object) -> Path:
    """Write the sample of a kind; ``arrays`` replace its datasets, ``changes`` fields of its header."""
    about = header(kind, **changes)
    if kind == "regions" and arrays is None:
        with RegionsWriter(path, about, IMAGES) as regions_writer:
            for index, regions in enumerate(REGIONS):
                regions_writer.add(index, regions)
        return path
    if kind not in MAPS:
        return write_artefact(path, about, arrays or ARRAYS[kind], CostMeter(), images=3)
    with MapsWriter(path, about, IMAGES, dtype="float16" if kind == "cams" else "uint8") as writer:
        for index, maps in enumerate(MAPS[kind]):
            writer.add(index, maps[0] if kind == "masks" else maps)
    return path
