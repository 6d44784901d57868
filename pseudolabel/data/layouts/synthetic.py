"""A synthetic data set in VOC layout that is made on the spot, for the demo and the tests.

``--dataset synthetic`` makes it with default settings where its folder is missing or empty; ``data synth`` makes it
with others. The same settings give the same bytes.
"""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pseudolabel.artefacts.atomic import is_vacant, new_folder
from pseudolabel.data.faults import Fault, stop
from pseudolabel.data.layouts import voc
from pseudolabel.data.layouts.synthetic_scenes import CLASSES, draw_scene
from pseudolabel.data.palette import write_mask
from pseudolabel.data.records import Dataset, MaskValues
from pseudolabel.data.weak.boxes import annotation_text
from pseudolabel.options import SynthOptions
from pseudolabel.runtime.progress import Progress

_SHAPES = ((1.0, 1.0), (0.75, 1.0), (1.0, 0.75))  # square, landscape, portrait: shares of the long side


def load(
    root: Path,
    split: str,
    tag_source: str,
    tags_file: Path | None,
    fault: Fault = stop,
    values: MaskValues | None = None,
) -> Dataset:
    """Open one split, ``train`` or ``val``; make the data set first where the folder is missing or empty.

    Args:
        root: Its folder.
        split: As of ``voc``.
        tag_source: As of ``voc``.
        tags_file: As of ``voc``.
        fault: As of ``voc``.
        values: As of ``voc``.

    Raises:
        DatasetError: As ``voc.load``.
        PseudolabelError: The folder cannot be written.
    """
    if is_vacant(root):
        synth(SynthOptions(out=root))
    return replace(voc.load(root, split, tag_source, tags_file, fault, values), name="synthetic")


def synth(options: SynthOptions, progress: Progress = Progress()) -> dict[str, Any]:  # noqa: B008 - has no state
    """Write a synthetic data set: photographs, annotations, masks and lists. The folder appears when all is written.

    Args:
        options: Where, how many, how large, and the seed.
        progress: Where to report.

    Returns:
        ``out``, ``train`` and ``val`` (how many images), ``classes`` (their names).

    Raises:
        InputError: The folder holds something already.
        PseudolabelError: It cannot be written.
    """
    out = options.out
    names = [f"scene_{number:05d}" for number in range(options.train + options.val)]
    with new_folder(out) as folder:
        for part in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Segmentation"):
            (folder / part).mkdir(parents=True)
        with progress.track(len(names), "images") as advance:
            for number, name in enumerate(names):
                _write_scene(folder, name, options.size, np.random.default_rng([options.seed, number]))
                advance(1)
        for split, ids in (("train", names[: options.train]), ("val", names[options.train :])):
            (folder / "ImageSets/Segmentation" / f"{split}.txt").write_text("".join(f"{name}\n" for name in ids))
        (folder / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    return {"out": str(out), "train": options.train, "val": options.val, "classes": list(CLASSES[1:])}


def _write_scene(folder: Path, name: str, size: int, rng: np.random.Generator) -> None:
    tall, wide = _SHAPES[int(rng.integers(len(_SHAPES)))]
    picture, mask, boxes = draw_scene(round(size * tall), round(size * wide), rng)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=95, subsampling=0)
    (folder / "JPEGImages" / f"{name}.jpg").write_bytes(buffer.getvalue())
    write_mask(folder / "SegmentationClass" / f"{name}.png", mask)
    (folder / "Annotations" / f"{name}.xml").write_text(annotation_text(f"{name}.jpg", mask.shape, boxes, CLASSES))
