"""The settings of the stages that make regions and let them vote."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from pseudolabel.options.base import DatasetOptions, LaterOptions
from pseudolabel.options.fields import Share, option, reads


class ImportRegionsOptions(DatasetOptions):
    """Settings of ``import-regions``."""

    regions: Path = reads(
        "Folder with one entry an image: a folder ID of binary PNGs, ID.json of COCO run lengths, or a label map "
        "ID.npy or ID.png."
    )
    model: str | None = option(
        ..., "Model that made the regions, such as 'SAM ViT-H'. none: no trained model did.", panel="input"
    )
    licence: str | None = option(
        ..., "Licence of the model's weights; unknown if you do not know it. none: no trained model.", panel="input"
    )
    trained_on: str | None = option(
        ...,
        "Data of the model's training, such as 'masks of SA-1B'; unknown if you do not know. none: no trained model.",
        panel="input",
    )
    uncovered: int | None = option(
        None, "Value of pixels of no region in label maps. none: every negative value in .npy, 0 in PNG.", panel="rare"
    )

    @model_validator(mode="after")
    def _the_model_is_described(self) -> ImportRegionsOptions:
        named = {"--licence": self.licence, "--trained-on": self.trained_on}
        if self.model is None and (given := [flag for flag, words in named.items() if words is not None]):
            raise ValueError(f"--model none goes with {' and '.join(f'{flag} none' for flag in given)}")
        if self.model is not None and (missing := [flag for flag, words in named.items() if not words]):
            raise ValueError(
                f"--model {self.model} needs {' and '.join(missing)}, to stand beside every score; say unknown if you "
                "do not know"
            )
        return self


class MakeRegionsOptions(DatasetOptions):
    """Settings of ``make-regions``."""

    method: Literal["felzenszwalb", "slic"] = option(
        "felzenszwalb",
        "How to divide an image. felzenszwalb: merge neighbours along weak edges, into regions of very different size; "
        "slic: k-means in colour and place, into compact superpixels of similar size.",
    )
    scale: float = option(100, "felzenszwalb: preference for larger regions, on 8-bit colours.", ge=1, le=1e6)
    sigma: float | None = option(
        None, "Gaussian blur before dividing, in pixels. none: 0.8 for felzenszwalb, 0 for slic.", ge=0, le=100
    )
    minimum: int = option(100, "felzenszwalb: fewest pixels of a region; smaller ones are merged.", ge=1)
    segments: int = option(150, "slic: number of superpixels asked for.", ge=1, le=10_000)
    compactness: float = option(10, "slic: weight of place against colour.", ge=0.001, le=1e6)


class VoteRegionsOptions(LaterOptions):
    """Settings of ``vote-regions``."""

    labels: Path = reads("CAMs, soft labels, or masks. CAMs need --threshold.")
    regions: Path = reads("Regions from make-regions or import-regions.", positional=False, kind="regions")
    threshold: Path | None = reads(
        "Thresholds from search-threshold; required for CAMs.", positional=False, default=None
    )
    rule: Literal["sepl", "fma", "soft", "box"] = option(
        "sepl",
        "How regions vote. sepl: a region takes the class that fills it or that it covers; fma: the class of its best "
        "mean map, confident regions on top; soft: the mean of its probabilities; box: each box takes the region that "
        "fits it best.",
    )
    share: Share = option(0.5, "sepl: share of a region that a class must fill.")
    coverage: Share = option(0.85, "sepl: share of a class that a region must cover, where the class does not fill it.")
    power: float | None = option(
        None, "fma: exponent of the background score. none: 0.6 for CAMs, 0.7 for others.", gt=0, le=100
    )
    split: float | None = option(
        None,
        "Cut regions first: into their connected parts, and where classes other than the main one have this share of a "
        "part (0.15 is usual). none: do not cut.",
        gt=0,
        le=1,
    )
    inside: Share = option(0.9, "box: share of a region that must lie in the box.")
    boxes: Path | None = option(
        None,
        "Bounding boxes for --rule box: a folder of VOC annotations, or a COCO instances JSON file. none: those of the "
        "data set.",
        role="input",
    )

    @model_validator(mode="after")
    def _boxes_are_used(self) -> VoteRegionsOptions:
        if self.boxes is not None and self.rule != "box":
            raise ValueError("--boxes is for --rule box; add that, or leave it out")
        return self
