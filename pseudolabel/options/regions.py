"""The settings of the stages that make regions and let them vote."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from pseudolabel.options.base import DatasetOptions
from pseudolabel.options.fields import option, reads


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
