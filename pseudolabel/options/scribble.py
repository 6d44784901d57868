"""The settings of train-scribble, and those that it shares with other trainings on mixed labels."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from pseudolabel.options.base import WeakLabelOptions
from pseudolabel.options.fields import Range, Seconds, Share, as_word, option
from pseudolabel.options.training import AverageOptions, WatchedOptions


class MixedLabelOptions(AverageOptions, WatchedOptions, WeakLabelOptions):
    """A training of a segmenter on labels that may differ from image to image."""

    cams: Path | None = option(
        None, "CAMs or soft labels of the same images, for --objectness and --fill.", role="input"
    )
    width: int = option(3, "Diameter of points and of XML strokes, in pixels of the image.", panel="rare", ge=1, le=64)
    by_image: bool = option(
        False,
        "Average the partial cross-entropy within each image first, so that images weigh the same; otherwise "
        "all labelled pixels do.",
        panel="rare",
    )
    exclusion: float | None = option(
        None, "Weight of the loss on classes where tags or boxes rule them out. none: off.", ge=0
    )
    presence: float | None = option(
        None, "Weight of the loss on tagged classes that have no label in their image. none: off.", ge=0
    )
    objectness: float | None = option(
        None,
        "Weight of the loss that fits foreground probability to the objectness of --cams, except in images "
        "with masks. none: off.",
        ge=0,
    )
    fill: Range | None = option(
        None,
        "Low and high CAM score inside a box, relative to the maximum there. Below the low one a pixel is "
        "background; from the high one on it has the box's class. none: boxes label no pixels inside.",
    )
    annotation_seconds: Seconds = option(
        (20.0, 22.1, 34.9, 38.1, 239.7),
        "Seconds to annotate an image with tags, points, scribbles, boxes and a mask, to report the cost of labels.",
        role="execution",
        panel="rare",
    )

    @model_validator(mode="after")
    def _maps_are_there(self) -> MixedLabelOptions:
        if (self.objectness is not None or self.fill is not None) and self.cams is None:
            raise ValueError("--objectness and --fill need --cams, which say where objects are likely")
        if self.fill is not None and not 0 <= self.fill[0] <= self.fill[1] <= 1:
            raise ValueError(f"--fill {as_word(self.fill)} is not an increasing pair of scores in [0, 1]")
        return self


class TrainScribbleOptions(MixedLabelOptions):
    """Settings of ``train-scribble``."""

    holdout: Share = option(
        0.0, "Fraction of the split to hold out from training, to measure agreement with its labels."
    )
    supervision: Literal["weak", "masks"] = option(
        "weak",
        "Labels to train on. weak: the weak labels given; masks: the pixel masks of all images, an upper "
        "bound marked oracle.",
    )
    mask_list: Path | None = option(
        None,
        "List of image ids to train on their pixel masks, with weak labels on all others; marked oracle.",
        role="input",
    )
    regulariser: Literal["none", "densecrf", "normalised-cut", "kernel-cut", "gated-crf", "dfr"] = option(
        "dfr", "Loss on unlabelled pixels. dfr is the dynamic feature regularised loss, with feature consistency."
    )
    regulariser_weight: float | None = option(
        None, "Weight of the regulariser; 0: off. none: its default, which for densecrf is 2e-9 (513 / crop)^4.", ge=0
    )
    start: Share = option(0.2, "Fraction of the steps, at the start, without the regulariser.")
    ramp: Share = option(0.2, "Fraction of the steps over which the regulariser's weight then rises to its full value.")
    sigma_xy: float | None = option(
        None,
        "Standard deviation of the kernel in position, in pixels of the crop. none: the regulariser's default.",
        panel="rare",
        ge=0.1,
        le=1e6,
    )
    sigma_rgb: float | None = option(
        None,
        "Standard deviation of the kernel in colour, in grey levels of 0-255. none: the regulariser's default.",
        panel="rare",
        ge=0.01,
        le=1e6,
    )
    map_scale: float | None = option(
        None,
        "Size of the regularised maps relative to the crop. none: the regulariser's default.",
        panel="rare",
        gt=0,
        le=1,
    )
    sigma_embedding: float | None = option(
        0.5,
        "Standard deviation of dfr's kernel in its embedding. none: a kernel in position and colour only.",
        panel="rare",
        ge=0.01,
        le=1e6,
    )
    embedding: int = option(8, "Dimensions of dfr's embedding.", panel="rare", ge=1, le=256)
    consistency: float | None = option(0.1, "Weight of dfr's feature consistency loss. none: off.", ge=0)
    confidence: Share | None = option(
        0.9,
        "Lowest probability at which a prediction labels a cell for the consistency loss. none: only "
        "labelled cells count.",
        panel="rare",
    )
    cells: int = option(64, "Feature-map cells per image whose embeddings are compared.", panel="rare", ge=2, le=4096)

    @model_validator(mode="after")
    def _labels_agree(self) -> TrainScribbleOptions:
        if self.supervision == "masks" and self.mask_list is not None:
            raise ValueError("--supervision masks uses the masks of all images; leave out --mask-list")
        return self
