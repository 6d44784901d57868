"""Data sets in VOC layout of a few tiny images, for the tests of what is compared with ground truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pseudolabel.artefacts import Header, Images, MapsWriter
from pseudolabel.data import load_dataset

CLASSES = ("background", "cat", "dog")


def array(rows: Sequence[Sequence[int]]) -> np.ndarray:
    return np.array(rows, dtype=np.uint8)


def save(path: Path, labels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels).save(path)
    return path


def write_voc(root: Path, masks: Mapping[str, np.ndarray], *, split: str = "val") -> Path:
    """Photographs, masks, tags of the masks' classes, and one list."""
    (root / "ImageSets/Segmentation").mkdir(parents=True, exist_ok=True)
    (root / "classes.txt").write_text("\n".join(CLASSES))
    (root / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(masks))
    for name, labels in masks.items():
        save(root / "SegmentationClass" / f"{name}.png", labels)
        save(root / "JPEGImages" / f"{name}.png", np.zeros((*labels.shape, 3), dtype=np.uint8))
        present = [CLASSES[label] for label in np.unique(labels) if label not in (0, 255)]
        objects = "".join(f"<object><name>{name}</name></object>" for name in present)
        annotation = root / "Annotations" / f"{name}.xml"
        annotation.parent.mkdir(parents=True, exist_ok=True)
        annotation.write_text(f"<annotation>{objects}</annotation>")
    return root


def random_labels(seed: int, height: int, width: int, values: Sequence[int] = (0, 1, 2, 255)) -> np.ndarray:
    """Label maps of patches, some of them single pixels."""
    random = np.random.default_rng(seed)
    coarse = random.choice(values, size=(height // 5 + 1, width // 7 + 1))
    labels = np.kron(coarse, np.ones((5, 7)))[:height, :width].astype(np.uint8)
    labels[random.random(labels.shape) < 0.02] = values[0]
    return labels


def write_artefact_of_maps(
    path: Path,
    kind: str,
    root: Path,
    maps: Mapping[str, Mapping[int, np.ndarray] | np.ndarray | str],
    sizes: Mapping[str, tuple[int, int]],
    *,
    split: str = "val",
    dtype: str | None = None,
    **header: Any,
) -> Path:
    """Maps, or a reason for skipping, by image id."""
    spec = load_dataset({"dataset": "voc", "root": root, "split": split}).spec()
    about: dict[str, Any] = {"stage": "make-cams", "options": {}, "classes": CLASSES, "dataset": spec} | header
    height, width = np.array([sizes[name] for name in maps]).reshape(-1, 2).T
    kinds = {"cams": "float16", "soft-labels": "float16", "masks": "uint8"}
    with MapsWriter(
        path, Header(kind, **about), Images(tuple(maps), height, width), dtype=dtype or kinds[kind]
    ) as writer:
        for index, found in enumerate(maps.values()):
            if isinstance(found, str):
                writer.skip(index, found)
            else:
                writer.add(index, found)
    return path
