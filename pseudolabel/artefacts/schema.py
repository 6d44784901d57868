"""What each kind of artefact holds: the table that files are checked against and ``docs/format.md`` is made from."""

from __future__ import annotations

from dataclasses import dataclass, replace

MOST_PIXELS = 178_956_970
"""Of an image or a map: the most that Pillow decodes, so no photograph can have more."""
MOST_CLASSES = 255
"""Names with background: a label is one byte, and one value of it is ignored."""

MOST_REGIONS = 10_000
"""Of one image: more are no objects and their parts, and would make votes slow."""


@dataclass(frozen=True)
class Array:
    """One dataset, or all datasets of a group.

    Attributes:
        name: HDF5 key; ``*`` at its end stands for all names below a group.
        types: ``string`` (of fixed length), ``integer``, ``float``, ``number`` (any of the two, and bool), or NumPy's
            name of a type.
        shape: A length each dimension: a number, a letter that means one length throughout the file, such a letter
            with ``+ 1``, or ``any``. None: any shape.
        meaning: In Markdown.
        low, high: Bounds of its values.
        nan: Whether it may hold NaN.
        required: Whether it must be there.
        lazy: Whether its values are checked only where they are read, as they may be many.
    """

    name: str
    types: tuple[str, ...]
    shape: tuple[str | int, ...] | None
    meaning: str
    low: float | None = None
    high: float | None = None
    nan: bool = False
    required: bool = True
    lazy: bool = False


CLASSES = Array("classes/name", ("string",), ("C + 1",), "unique names, background first")
_SKIPPED = (
    Array("skipped/id", ("string",), ("S",), "unique: images that could not be used; without maps", required=False),
    Array("skipped/reason", ("string",), ("S",), "why, in one line", required=False),
)
_IDS = "unique, even without regard to case and Unicode normalisation; MAY contain `/`, MUST NOT lead out of a folder"
_MAPS = (
    Array("images/id", ("string",), ("N",), f"names in the order of the split: {_IDS}"),
    Array("images/height", ("integer",), ("N",), "of the image, in pixels; 0 only if it was skipped", 0, MOST_PIXELS),
    Array("images/width", ("integer",), ("N",), "likewise; height times width has the same bound", 0, MOST_PIXELS),
    Array("maps/image", ("integer",), ("K",), "index of its image, below N; maps MAY be in any order", 0),
    Array(
        "maps/values",
        ("float16", "float32", "uint8"),
        ("V",),
        "the maps one after another, in row-major order; floats in [0, 1]",
        0,
        255,
        lazy=True,
    ),
    Array(
        "maps/offset",
        ("integer",),
        ("K + 1",),
        "map k is `values[offset[k]:offset[k + 1]]`; ascending from 0 to the number of values",
        0,
    ),
    Array("maps/height", ("integer",), ("K",), "its size", 1, MOST_PIXELS),
    Array("maps/width", ("integer",), ("K",), "height times width MUST be `offset[k + 1] - offset[k]`", 1, MOST_PIXELS),
)
_MAP_CLASS = Array("maps/class", ("integer",), ("K",), "index of its class; no class twice in an image", 0, 255)
_REGIONS = (
    *_MAPS[:3],
    Array("regions/image", ("integer",), ("R",), "index of its image, below N; MUST ascend", 0),
    Array("regions/area", ("integer",), ("R",), "pixels inside", 1, MOST_PIXELS),
    Array("regions/score", ("float",), ("R",), "as its source states it; NaN: it states none", 0, nan=True),
    Array("regions/class", ("integer",), ("R",), "index of its class; `ignore-value`: none", 0, 255, required=False),
    Array(
        "regions/box",
        ("float",),
        ("R", 4),
        "the box it was prompted with: left, top, right, bottom edge in pixels; NaN: none",
        nan=True,
        required=False,
    ),
    Array("regions/prompt", ("string",), ("R",), "what it was prompted with, in words; may be empty", required=False),
    Array(
        "runs/length", ("integer",), ("V",), "the run lengths of one region after another", 0, MOST_PIXELS, lazy=True
    ),
    Array(
        "runs/offset",
        ("integer",),
        ("R + 1",),
        "region r is `length[offset[r]:offset[r + 1]]`; ascending from 0 to the number of runs",
        0,
    ),
)
_THRESHOLD = "float64 by class index, entry 0 unused"
_WEIGHTS = Array("weights/*", ("number",), None, "the network's tensors by their names in PyTorch; finite", lazy=True)
_CURVES = Array("curves/*", ("number",), None, "what was measured in training", nan=True, required=False)

KINDS: dict[str, tuple[Array, ...]] = {
    "cams": (*_MAPS, _MAP_CLASS, *_SKIPPED),
    "soft-labels": (*_MAPS, _MAP_CLASS, *_SKIPPED),
    "masks": (*(replace(item, types=("uint8",)) if item.name == "maps/values" else item for item in _MAPS), *_SKIPPED),
    "regions": (*_REGIONS, *_SKIPPED),
    "thresholds": (
        Array("thresholds/value", ("float",), ("C + 1",), f"{_THRESHOLD}: foreground at or above", 0, 1, nan=True),
        Array("thresholds/low", ("float",), ("C + 1",), f"{_THRESHOLD}: background below", 0, 1, nan=True),
        Array("thresholds/high", ("float",), ("C + 1",), f"{_THRESHOLD}: surely foreground from", 0, 1, nan=True),
        Array("curve/*", ("number",), None, "what a sweep measured at each threshold", nan=True, required=False),
        Array("histogram/edges", ("float",), ("B + 1",), "of the maps' values", required=False),
        Array("histogram/counts", ("integer",), None, "a row a class, or one row; B wide", 0, required=False),
        Array(
            "mixture/*", ("float",), None, "weights, means and deviations that were fitted", nan=True, required=False
        ),
    ),
    "crf-search": (
        Array("trials/name", ("string",), ("T",), "a preset's name, or `random` and a number"),
        Array("trials/criterion", ("float",), ("T",), "agreement of the labels with images and tags", 0, 1, nan=True),
        Array("trials/edges", ("float",), ("T",), "a factor of it", 0, nan=True, required=False),
        Array("trials/areas", ("float",), ("T",), "the other factor", 0, nan=True, required=False),
        Array("trials/miou", ("float",), ("T",), "only if masks were used", 0, 1, nan=True, required=False),
        Array("settings/*", ("number", "string"), ("T",), "by the names of refine-crf's options", required=False),
        Array("images/id", ("string",), ("N",), f"images that the trials were judged on: {_IDS}"),
    ),
    "scores": (
        Array(
            "confusion",
            ("number",),
            ("C + 1", "C + 1"),
            "pixels over all images: true class by row, predicted class by column",
            0,
        ),
        Array("unlabelled", ("integer",), ("C + 1",), "pixels by true class predicted as 255", 0, required=False),
        Array("bands", ("integer",), None, "pixels near boundaries", 0, required=False),
        Array("tag-filtered/*", ("integer",), None, "the same counts of tag-filtered labels", 0, required=False),
        Array("images/id", ("string",), ("N",), f"scored images: {_IDS}", required=False),
        Array("images/miou", ("float",), ("N",), "of each; NaN where no class occurs", 0, 1, nan=True, required=False),
        Array("images/supervision", ("string",), ("N",), "what supervised it in training", required=False),
        *_SKIPPED,
    ),
    "checkpoint": (
        _WEIGHTS,
        Array("teacher/*", ("number",), None, "likewise, of the teacher", required=False, lazy=True),
        Array("second/*", ("number",), None, "likewise, of the second of two networks", required=False, lazy=True),
        _CURVES,
        Array("images/id", ("string",), ("N",), f"images that were trained on: {_IDS}", required=False),
        Array("supervision/id", ("string",), ("M",), "images that were trained on, unique", required=False),
        Array("supervision/kind", ("string",), ("M",), "kinds of labels of each, in words", required=False),
        Array("supervision/seconds", ("float",), ("M",), "their annotation cost", 0, required=False),
        Array("threshold/low", ("float",), (), "of the selected state", 0, 1, required=False),
        Array("threshold/high", ("float",), (), "likewise", 0, 1, required=False),
        Array("threshold/counts", ("integer",), ("B",), "histogram of the teacher's scores", 0, required=False),
        Array("threshold/edges", ("float",), ("B + 1",), "its edges", required=False),
        Array("threshold/mixture", ("float",), ("any", "any"), "weights, means, deviations", nan=True, required=False),
        *_SKIPPED,
    ),
    "training-state": (
        _WEIGHTS,
        Array("optimiser/*", ("number",), None, "by parameter and name", nan=True, lazy=True),
        Array("objective/*", ("number",), None, "further state", nan=True, required=False, lazy=True),
        Array("best/*", ("number",), None, "the best checkpoint so far", nan=True, required=False, lazy=True),
        Array("chosen/step", ("integer",), (), "when it was reached", 0, required=False),
        Array("chosen/value", ("number",), (), "how good it is", nan=True, required=False),
        Array("random/*", ("integer",), ("any",), "states of the generators", required=False),
        Array("step", ("integer",), (), "optimiser steps done", 0, required=False),
        _CURVES,
    ),
}
"""Every kind and its datasets; those that are not named here are ignored."""

UNIQUE = ("images/id", "skipped/id", "supervision/id")
"""Names of images: no two alike in one file."""

TEXT, WHOLE, OBJECT, LIST = "string", "integer", "JSON object", "JSON list"
ATTRIBUTES: dict[str, str] = {
    "encoding-type": TEXT, "encoding-version": WHOLE, "pseudolabel-version": TEXT, "stage": TEXT, "seed": WHOLE,
    "ignore-value": WHOLE, "options": OBJECT, "inputs": LIST, "dataset": OBJECT, "network": OBJECT, "protocol": OBJECT,
    "oracle": LIST, "facts": OBJECT, "environment": OBJECT, "cost": OBJECT, "created": TEXT, "digest": TEXT,
    "seal": TEXT,
}  # fmt: skip
"""Every root attribute and its type; ``seal`` from version 2 on."""

FIELDS: dict[str, dict[str, tuple[str, ...]]] = {
    "dataset": {name: ("string", "null") for name in ("dataset", "root", "split", "tag_source", "tags_file")}
    | {name: ("strings",) for name in ("classes", "files")},
    "network": {
        "backbone": ("string", "null"),
        "mean": ("numbers",),
        "std": ("positive numbers",),
        "crop": ("count",),
        "pretrained": ("bool",),
        "weights": ("string", "null"),
    },
    "protocol": {"external_models": ("strings",)},
    "cost": {
        name: ("amount", "null")
        for name in ("wall_seconds", "cpu_seconds", "peak_memory_bytes", "images", "images_per_second")
    },
    "facts": {
        "architecture": ("object",),
        "method": ("string",),
        "fitted_on": ("string", "null"),
        "held_out": ("strings",),
        "settings": ("object",),
        "crf": ("string", "object", "null"),
        "source": ("string",),
        "model": ("string", "null"),
        "licence": ("string", "null"),
        "model_trained_on": ("string", "null"),
    },
}
"""What entries of the JSON attributes must be, where they are there."""

NEEDED: dict[str, dict[str, tuple[str, ...]]] = {
    "thresholds": {"facts": ("method", "fitted_on")},
    "regions": {"facts": ("source", "model", "licence", "model_trained_on")},
    "crf-search": {"facts": ("settings", "crf", "method", "fitted_on")},
}
"""What must be there, by kind and attribute; of checkpoints, whoever builds the network asks for more."""
NETWORK_NEEDED: dict[str, tuple[str, ...]] = {"facts": ("architecture",), "network": ("mean", "std", "crop")}


def required(kind: str) -> tuple[str, ...]:
    """The datasets, and groups of datasets, that a kind must have."""
    return tuple(array.name.removesuffix("/*") for array in KINDS[kind] if array.required)
