"""The settings of train-semi."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from pseudolabel.options.fields import Share, option
from pseudolabel.options.scribble import MixedLabelOptions


class TrainSemiOptions(MixedLabelOptions):
    """Settings of ``train-semi``."""

    mask_list: Path = option(
        ...,
        "List of the image ids whose pixel masks are used; the other images of the split are learnt from without.",
        role="input",
        panel="input",
    )
    method: Literal["supervised", "mean-teacher", "unimatch", "ccvc"] = option(
        "unimatch",
        "What images without masks teach. supervised: nothing but their weak labels; mean-teacher: agreement of strong "
        "views with the predictions of an averaged network; unimatch: agreement of strong views, and of features with "
        "dropped channels, with the network's own sure predictions; ccvc: agreement of two networks that are kept "
        "different.",
    )
    epochs: int = option(10, "Passes over the images without masks.", ge=1)
    batch_size: int = option(
        8, "Effective batch size: images with masks per optimiser step, and as many without.", ge=1
    )
    holdout: Share = option(
        0.0, "Fraction of the images with masks to hold out from training, for --validate-on held-out."
    )
    ema: float | None = option(
        0.99,
        "Decay of an exponential moving average (EMA) of the weights, which is kept as the result and is the teacher "
        "of mean-teacher. none: keep the last weights.",
        gt=0,
        lt=1,
    )
    consistency: float | None = option(
        None, "Weight of the consistency loss on images without masks; 0: off. none: the method's default.", ge=0
    )
    ramp: Share = option(0.1, "Fraction of the steps, at the start, over which the weight of the consistency rises.")
    confidence: Share | None = option(
        None, "Lowest probability at which a prediction is a target; 0: all are. none: the method's default."
    )
    strong_views: int | None = option(
        None,
        "Strongly augmented views of each image without a mask; 0: the weak view alone. none: the method's default.",
        ge=0,
        le=8,
    )
    cutmix: Share = option(0.5, "Probability that a strong view shows another image in a rectangle; 0: off.")
    perturbation: Share | None = option(
        0.5, "Fraction of the feature channels that unimatch drops in a view of its own. none: no such view."
    )
    conflict_weight: float = option(
        1.5, "Weight of a target of ccvc that is sure and that the other network contradicts; 1: of all targets.", ge=0
    )
    discrepancy: float | None = option(
        0.2, "Weight of the loss that keeps the features of ccvc's two networks different. none: off.", ge=0
    )
    weak_labels: bool = option(
        True,
        "Use tags, scribbles, points and boxes of images without masks; otherwise only their photographs.",
    )
    restrict: bool = option(True, "Restrict targets to the classes that an image's tags and boxes allow.")
    partial: float | None = option(
        1.0,
        "Weight of the cross-entropy on scribbles, points and boxes of images without masks. none: off.",
        ge=0,
    )

    @model_validator(mode="after")
    def _method_is_complete(self) -> TrainSemiOptions:
        if self.method == "mean-teacher" and self.ema is None:
            raise ValueError("--method mean-teacher needs --ema, the decay of its teacher")
        if self.perturbation == 1:
            raise ValueError("--perturbation 1 drops all features; pass less, or none")
        if self.method == "unimatch" and self.strong_views == 0 and self.perturbation is None:
            raise ValueError(
                "--method unimatch needs --strong-views or --perturbation; without them choose --method supervised"
            )
        if self.holdout and self.validate_on != "held-out":
            raise ValueError("--holdout is for --validate-on held-out; add that, or leave it out")
        return self
