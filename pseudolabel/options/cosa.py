"""The settings of train-cosa."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from pseudolabel.options.fields import Range, Scales, Share, as_word, option
from pseudolabel.options.training import ClassifierOptions, WatchedOptions


class TrainCosaOptions(WatchedOptions, ClassifierOptions):
    """Settings of ``train-cosa``."""

    auxiliary_stage: int = option(
        -2, "Stage of a CNN that the auxiliary classifier reads, counted from the end.", panel="rare", lt=-1, ge=-8
    )
    crop_scale: Range | None = option(
        None,
        "Smallest and largest factor, in (0, 8], for random resizing before a square crop, padded if the "
        "image is smaller. none: crops by --crop-area, never padded.",
    )
    blur: Share = option(0.0, "Probability that an augmented crop is blurred.")
    classification: Share = option(0.2, "Fraction of the steps, at the start, in which only the classifier is trained.")
    teacher_decay: float = option(
        0.9994, "Decay of the teacher's exponential moving average (EMA), at most step / (step + 10).", gt=0, lt=1
    )
    teacher_scales: Scales = option(
        (1.0, 0.5, 1.5), "Image scales over which the teacher's CAMs are summed; 1 must be among them.", panel="rare"
    )
    teacher_flip: bool = option(True, "Also let the teacher process mirrored crops.", panel="rare")
    propagate: int = option(
        0, "Iterations of attention affinity propagation of the teacher's CAMs, for plain ViTs; 0: off.", ge=0, le=16
    )
    cam_fusion: Literal["grid", "image"] = option(
        "grid",
        "Where the CAMs of the teacher's scales are summed: on the network's grid, or upsampled to the crop "
        "first, as in the released code.",
        panel="rare",
    )
    spl_scales: Literal["one", "all"] = option(
        "one",
        "Segmentation pseudo labels from logits at scale 1, or summed over all teacher scales, as in the "
        "released code.",
        panel="rare",
    )
    threshold: Literal["mixture", "released", "fixed"] = option(
        "mixture",
        "How CAMs are thresholded into labels. mixture: by two Gaussians fitted to the teacher's scores at "
        "every step; released: by the three-component rule of CoSA's released code; fixed: by --low and "
        "--high throughout.",
    )
    low: Share = option(0.25, "Score below which a pixel is background, until the first fit.")
    high: Share = option(0.7, "Score from which on a pixel is foreground, until the first fit.")
    auxiliary_thresholds: Range | None = option(
        None,
        "Fixed low and high score for the auxiliary CAM's labels. none: the thresholds of the main CAM.",
        panel="rare",
    )
    queue: int = option(
        100, "Number of recent batches whose scores the mixture is fitted to.", panel="rare", ge=1, le=100_000
    )
    threshold_decay: float = option(
        0.99, "Decay of the thresholds' exponential moving average (EMA).", panel="rare", ge=0, lt=1
    )
    cam_rule: Literal["described", "released"] = option(
        "described",
        "What is compared with the thresholds. described: the upsampled maps; released: their softmax, as in "
        "the released code.",
        panel="rare",
    )
    temperature: float = option(
        0.01, "Temperature of the softmax behind the segmentation pseudo labels.", panel="rare", gt=0
    )
    perplexity: float | None = option(
        0.8, "Strength of the soft perplexity weights, in (0, 1). none: all pixels weigh the same.", gt=0, lt=1
    )
    perplexity_power: float = option(1.0, "Exponent of the perplexity weights.", panel="rare", gt=0)
    c2s: float | None = option(
        0.1, "Weight of the CAM-to-segmentation loss, in which CAM labels supervise the segmentation. none: off.", ge=0
    )
    balanced: bool = option(
        True,
        "Weigh background and foreground equally in the CAM-to-segmentation loss, as the released code does; "
        "otherwise every pixel.",
        panel="rare",
    )
    auxiliary_share: Share = option(
        0.5,
        "Share of the auxiliary CAM's labels in the CAM-to-segmentation loss; the main CAM's have the rest.",
        panel="rare",
    )
    s2c: float | None = option(
        0.05,
        "Weight of the segmentation-to-CAM loss, in which segmentation labels supervise the CAMs. none: off.",
        ge=0,
    )
    regulariser: float | None = option(0.05, "Weight of the gated dense energy loss. none: off.", ge=0)
    contrastive: float | None = option(0.1, "Weight of the contrastive separation loss. none: off.", ge=0)
    contrastive_temperature: float = option(0.5, "Temperature of the contrastive separation loss.", panel="rare", gt=0)
    contrastive_cells: int = option(
        64, "Feature-map cells that the contrastive loss samples per image.", panel="rare", ge=2, le=4096
    )
    contrastive_perplexity: float = option(
        1.0, "Highest perplexity at which a cell takes part in the contrastive loss.", panel="rare", gt=0
    )
    embedding: int = option(
        128, "Dimensions of the projection that the contrastive loss compares.", panel="rare", ge=1, le=4096
    )

    @model_validator(mode="after")
    def _settings_agree(self) -> TrainCosaOptions:
        if self.low > self.high:
            raise ValueError(f"--low {self.low} is above --high {self.high}")
        if 1 not in self.teacher_scales:
            raise ValueError(f"--teacher-scales {as_word(self.teacher_scales)} lack 1, at which the teacher segments")
        pair = self.auxiliary_thresholds
        if pair is not None and not 0 <= pair[0] <= pair[1] <= 1:
            raise ValueError(f"--auxiliary-thresholds {as_word(pair)} is not an increasing pair of scores in [0, 1]")
        if self.propagate and self.cam_fusion == "image":
            raise ValueError("--cam-fusion image cannot be propagated along the grid's affinity; pass --propagate 0")
        if self.crop_scale is not None and not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 8:
            raise ValueError(f"--crop-scale {as_word(self.crop_scale)} is not an increasing pair of factors in (0, 8]")
        return self
