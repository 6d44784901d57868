"""One small artefact of every kind, for the tests of the format, of ``inspect`` and of pipelines."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pseudolabel.artefacts import Header, Images, Input, MapsWriter, write_artefact
from pseudolabel.artefacts.header import CostMeter

CLASSES = ("background", "cat", "dog")
IMAGES = Images(("a", "b/c", "ü"), np.array([4, 5, 6], np.int32), np.array([8, 7, 6], np.int32))
STAGES = {
    "cams": "make-cams",
    "soft-labels": "refine-crf",
    "masks": "export-masks",
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
ARRAYS: dict[str, dict[str, np.ndarray]] = {
    "thresholds": {
        "thresholds/value": np.array([np.nan, 0.4, 0.4]),
        "thresholds/low": np.array([np.nan, 0.3, 0.3]),
        "thresholds/high": np.full(3, np.nan),
    },
    "crf-search": {
        "trials/name": np.array([b"irn", b"random 1"]),
        "trials/criterion": np.array([0.5, 0.4]),
        "images/id": np.array([b"a", b"b/c", "ü".encode()]),
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


def header(kind: str, **changes: object) -> Header:
    about: dict[str, object] = {
        "kind": kind,
        "stage": STAGES[kind],
        "options": {"seed": 3},
        "classes": CLASSES,
        "seed": 3,
        "inputs": (Input("dataset", "/data/voc", "ab" * 32),),
        "dataset": {"dataset": "voc", "root": "/data/voc", "split": "train"},
        "network": {"backbone": "resnet18", "mean": [0.5, 0.5, 0.5]},
        "protocol": {"tag_filter": "image tags", "flip": True},
        "oracle": ("image tags read from pixel masks",),
        "facts": {"note": "ü"},
    }
    return Header(**(about | changes))  # type: ignore[arg-type]


def make(kind: str, path: Path, **changes: object) -> Path:
    """Write the sample of a kind; ``changes`` replace fields of its header."""
    about = header(kind, **changes)
    if kind not in MAPS:
        return write_artefact(path, about, ARRAYS[kind], CostMeter(), images=3)
    with MapsWriter(path, about, IMAGES, dtype="float16" if kind == "cams" else "uint8") as writer:
        for index, maps in enumerate(MAPS[kind]):
            writer.add(index, maps[0] if kind == "masks" else maps)
    return path
