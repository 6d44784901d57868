"""The settings of the ``data`` commands, and of the demo, which makes its own data."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from pseudolabel.options.base import DataOptions, WeakLabelOptions
from pseudolabel.options.fields import Names, Share, option


class DataCheckOptions(WeakLabelOptions):
    """Settings of ``data check``."""

    mask_list: Path | None = option(
        None, "List of ids whose pixel masks train-scribble is to use: they need no other label.", role="input"
    )
    workers: int | None = option(None, "Worker processes; none: one a core.", role="execution", ge=0)


class DataTagsOptions(WeakLabelOptions):
    """Settings of ``data tags``."""

    out: Path | None = option(None, "Where to write the table. none: on stdout.", role="execution", panel="input")


class DataShowOptions(WeakLabelOptions):
    """Settings of ``data show``."""

    out: Path = option(..., "Folder for the pictures; it must be missing or empty.", role="execution", panel="input")
    ids: Names | None = option(None, "Images to draw, separated by commas. none: a random choice.", panel="input")
    count: int = option(20, "How many images to draw where no ids are given.", ge=1)
    seed: int = option(0, "Seed of the choice.", panel="execution", ge=0, le=2**32 - 1)


class SimulateOptions(DataOptions):
    """What all simulations of weak labels share."""

    from_: Literal["masks"] = option(
        ..., "What to simulate from: the pixel masks, named because all that is made with them is marked oracle."
    )
    out: Path = option(..., "Folder to make; it must be missing or empty.", role="execution", panel="input")
    seed: int = option(0, "Seed of everything random.", panel="execution", ge=0, le=2**32 - 1)
    workers: int | None = option(None, "Worker processes; none: one a core.", role="execution", ge=0)


class SimulateScribblesOptions(SimulateOptions):
    """Settings of ``data scribbles``."""

    length: float = option(1.0, "Share of each stroke that is kept; a shorter one is a part of the longer.", gt=0, le=1)
    wobble: Share = option(
        0.3, "How far the hand strays from the middle, as a share of the way to the outline; 0: not at all."
    )
    width: int = option(3, "Width of a stroke, pixels.", ge=1, le=64)
    background: bool = option(True, "Also scribble on the background.")


class SimulatePointsOptions(SimulateOptions):
    """Settings of ``data points``."""

    wobble: Share = option(
        0.3, "How far the hand strays from the middle, as a share of the disc's radius; 0: not at all."
    )
    background: bool = option(True, "Also set one point on the background.")


class SimulateBoxesOptions(SimulateOptions):
    """Settings of ``data boxes``."""

    jitter: float = option(
        0.0, "How far each edge may stray, as a share of the box's side; 0: boxes are tight.", ge=0, lt=0.5
    )


class SynthOptions(BaseModel):
    """Settings of ``data synth``."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    out: Path = option(..., "Folder to make; it must be missing or empty.", role="execution", panel="input")
    train: int = option(240, "Images of split train.", ge=1, le=100_000)
    val: int = option(60, "Images of split val.", ge=1, le=100_000)
    size: int = option(160, "Long side of an image, in pixels.", ge=32, le=1024)
    seed: int = option(0, "Seed of everything random.", panel="execution", ge=0, le=2**32 - 1)


class DemoOptions(BaseModel):
    """Settings of ``demo``."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, defer_build=True)

    out: Path = option(
        Path("demo"), "Folder for the data set and everything made from it.", role="execution", panel="input"
    )
    supervision: Literal["tags", "scribbles"] = option(
        "tags",
        "What is known of a picture. tags: its classes, for the multi-stage route and co-training; scribbles: a stroke "
        "an object, simulated, for partial cross entropy without and with DFR.",
    )
