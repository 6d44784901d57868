"""The settings of the ``data`` commands, and of the demo, which makes its own data."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from pseudolabel.options.base import DataOptions, PhotographOptions, WeakLabelOptions
from pseudolabel.options.fields import Names, Share, option


class DataCheckOptions(WeakLabelOptions, PhotographOptions):
    """Settings of ``data check``."""

    mask_list: Path | None = option(
        None, "List of image ids whose pixel masks train-scribble is to use; they need no other label.", role="input"
    )
    workers: int | None = option(
        None, "Worker processes; 0 or 1: work in the main process. none: one per CPU core.", role="execution", ge=0
    )


class DataTagsOptions(WeakLabelOptions):
    """Settings of ``data tags``."""

    out: Path | None = option(None, "CSV file to write. none: print to stdout.", role="execution", panel="input")


class DataShowOptions(WeakLabelOptions, PhotographOptions):
    """Settings of ``data show``."""

    out: Path = option(..., "Folder to write to; it must be missing or empty.", role="execution", panel="input")
    ids: Names | None = option(None, "Image ids to draw, separated by commas. none: a random sample.", panel="input")
    count: int = option(20, "Number of images to draw if --ids is not given.", ge=1)
    seed: int = option(0, "Seed of the random sample.", panel="execution", ge=0, le=2**32 - 1)


class DataSplitOptions(WeakLabelOptions):
    """Settings of ``data split``."""

    masks: int = option(
        ..., "Number of images to draw. With the same seed, a shorter list is the beginning of a longer one.", ge=1
    )
    out: Path = option(..., "List to write: a text file of image ids.", role="execution", panel="input")
    seed: int = option(0, "Seed of all random numbers.", panel="execution", ge=0, le=2**32 - 1)


class SimulateOptions(DataOptions):
    """What all simulations of weak labels share."""

    from_: Literal["masks"] = option(
        ...,
        "Source of the simulated labels: the pixel masks. It must be named, because everything made from "
        "them is marked oracle.",
    )
    out: Path = option(..., "Folder to write to; it must be missing or empty.", role="execution", panel="input")
    seed: int = option(0, "Seed of all random numbers.", panel="execution", ge=0, le=2**32 - 1)
    workers: int | None = option(
        None, "Worker processes; 0 or 1: work in the main process. none: one per CPU core.", role="execution", ge=0
    )


class SimulateScribblesOptions(SimulateOptions):
    """Settings of ``data scribbles``."""

    length: float = option(
        1.0,
        "Fraction of each full stroke to keep. With the same seed, a shorter stroke is part of the longer one.",
        gt=0,
        le=1,
    )
    wobble: Share = option(
        0.3, "Random deviation from the object's middle line, as a fraction of the distance to its outline."
    )
    width: int = option(3, "Width of a stroke, in pixels.", ge=1, le=64)
    background: bool = option(True, "Also draw scribbles on the background.")


class SimulatePointsOptions(SimulateOptions):
    """Settings of ``data points``."""

    wobble: Share = option(0.3, "Largest random offset from the circle's centre, as a fraction of its radius.")
    background: bool = option(True, "Also place one point on the background.")


class SimulateBoxesOptions(SimulateOptions):
    """Settings of ``data boxes``."""

    jitter: float = option(
        0.0, "Largest random shift of an edge, as a fraction of the box's side; 0: tight boxes.", ge=0, lt=0.5
    )


class SynthOptions(BaseModel):
    """Settings of ``data synth``."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    out: Path = option(..., "Folder to write to; it must be missing or empty.", role="execution", panel="input")
    train: int = option(240, "Number of images in split train.", ge=1, le=100_000)
    val: int = option(60, "Number of images in split val.", ge=1, le=100_000)
    size: int = option(160, "Longer side of an image, in pixels.", ge=32, le=1024)
    seed: int = option(0, "Seed of all random numbers.", panel="execution", ge=0, le=2**32 - 1)


class DemoOptions(BaseModel):
    """Settings of ``demo``."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, defer_build=True)

    out: Path = option(Path("demo"), "Folder for the data set and all results.", role="execution", panel="input")
    supervision: Literal["tags", "scribbles"] = option(
        "tags",
        "Annotation to learn from. tags: image tags, by the multi-stage route and by co-training; scribbles: "
        "simulated scribbles, by partial cross-entropy alone and with the dynamic feature regularised loss "
        "(DFR).",
    )
