"""The settings of what refines maps: the dense CRF and its search, PAR, the walk along a learnt affinity."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from pseudolabel.options.base import LaterOptions, MaskValueOptions, Mixin
from pseudolabel.options.fields import Dilations, Share, option, reads

CrfPreset = Literal["deeplab", "toco", "cosa", "afa", "toco-labels", "psa", "irn"]
CrfEngine = Literal["lattice", "exact", "pydensecrf"]


class CrfOptions(Mixin):
    """The dense CRF's settings: a named preset, and each of its numbers."""

    preset: CrfPreset = option("irn", "Settings of a published system. Single CRF options override them.")
    iterations: int | None = option(None, "Mean-field iterations. none: the preset's.", ge=1, le=1000)
    spatial_xy: float | None = option(
        None, "Standard deviation of the spatial kernel, in pixels. none: the preset's.", ge=0.01, le=1e6
    )
    spatial_weight: float | None = option(None, "Weight of the spatial kernel. none: the preset's.", ge=0, le=1e6)
    bilateral_xy: float | None = option(
        None, "Standard deviation of the bilateral kernel in position, in pixels. none: the preset's.", ge=0.1, le=1e6
    )
    bilateral_rgb: float | None = option(
        None,
        "Standard deviation of the bilateral kernel in colour, in grey levels of 0-255. none: the preset's.",
        ge=0.01,
        le=1e6,
    )
    bilateral_weight: float | None = option(None, "Weight of the bilateral kernel. none: the preset's.", ge=0, le=1e6)
    unary: Literal["soft", "hard"] | None = option(
        None,
        "Unary term. soft: from the scores as probabilities; hard: from the label map. none: the preset's.",
        panel="rare",
    )
    gt_prob: float | None = option(
        None, "Probability that a hard label is right. none: the preset's.", panel="rare", gt=0, lt=1
    )
    engine: CrfEngine = option(
        "lattice",
        "Filter for the bilateral kernel. lattice: the permutohedral lattice; exact: all pairs of pixels, "
        "which takes minutes per image without a GPU; pydensecrf: the package of that name, for comparison.",
    )


class SearchCrfOptions(MaskValueOptions, LaterOptions):
    """Settings of ``search-crf``."""

    cams: Path = reads("CAMs, or soft labels from predict-masks.")
    threshold: Path | None = reads(
        "Thresholds from search-threshold; required for CAMs.", positional=False, default=None
    )
    method: Literal["edges", "oracle"] = option(
        "edges",
        "What to optimise. edges: label boundaries on image edges and stable class areas, without masks; "
        "oracle: mIoU against the masks, marked oracle.",
    )
    images: int = option(50, "Number of images to search on, sampled at random.", ge=1)
    trials: int = option(25, "Number of random settings to try besides the presets.", ge=1, le=100_000)

    @property
    def yaml(self) -> Path:
        """The file beside the artefact that ``refine-crf --config`` takes."""
        return self.out.with_suffix(".yaml")

    @model_validator(mode="after")
    def _yaml_has_a_place(self) -> SearchCrfOptions:
        if self.yaml == self.out:
            raise ValueError(f"--out {self.out} is where the settings go as YAML; end it in .h5")
        return self


class RefinerOptions(LaterOptions):
    """What every refiner of maps reads, and the rules that leave pixels unlabelled."""

    cams: Path = reads("CAMs, or soft labels from predict-masks.")
    threshold: Path | None = reads(
        "Thresholds from search-threshold; required for CAMs.", positional=False, default=None
    )
    confidence: Literal["none", "irn", "cosa", "posterior"] = option(
        "none",
        "Rule that leaves uncertain pixels unlabelled. irn: refine once from the low and once from the high "
        "threshold; cosa: compare the maps with both, then refine once; posterior: the refined probability is below "
        "--sure; none: label every pixel.",
    )
    sure: Share = option(0.95, "Least probability that --confidence posterior labels.", panel="rare")
    on_error: Literal["stop", "skip"] = option(
        "stop", "What to do with an unreadable image: stop, or skip it and record it in the artefact.", panel="rare"
    )


class RefineCrfOptions(CrfOptions, RefinerOptions):
    """Settings of ``refine-crf``."""

    settings: Path | None = reads(
        "CRF settings from search-crf, in place of --preset. Single CRF options override them.",
        positional=False,
        default=None,
    )


class RefineParOptions(RefinerOptions):
    """Settings of ``refine-par``."""

    dilations: Dilations = option(
        (1, 2, 4, 8, 12, 24), "Distances of a pixel's neighbours, in pixels of the downscaled image."
    )
    iterations: int = option(10, "Iterations.", ge=1, le=1000)
    downscale: int = option(2, "Factor by which image and maps are downscaled while they are refined.", ge=1, le=16)
    start: Literal["softmax", "ratio"] = option(
        "softmax",
        "Probabilities that CAMs start from. softmax: of threshold and maps; ratio: threshold and maps over their sum, "
        "as in refine-crf, which suits --confidence posterior.",
    )
    batch_size: int = option(
        8, "Images of one size at the same time, on an accelerator.", role="execution", panel="rare", ge=1
    )


class RefineAffinityOptions(LaterOptions):
    """Settings of ``refine-affinity``."""

    cams: Path = reads("CAMs from make-cams or import-cams.")
    network: Path = reads("Checkpoint of train-affinity.", kind="checkpoint", serves="affinity", positional=False)
    size: int | None = option(
        None, "Longer side of an image, in pixels. none: that of the training's crop.", ge=16, le=4096
    )
    power: float = option(8.0, "Power of each affinity before rows are normalised.", gt=0, le=64)
    walk: int = option(256, "Steps of the random walk.", ge=1, le=2**16)
    flip: bool = option(True, "Mean of the affinity and that of the mirrored image.")
    batch_size: int = option(16, "Images per forward pass.", role="execution", ge=1)
    precision: Literal["auto", "float32", "bfloat16"] = option(
        "auto", "Number format of the forward pass. auto: bfloat16 where the hardware supports it, else float32."
    )
    on_error: Literal["stop", "skip"] = option(
        "stop", "What to do with an unreadable image: stop, or skip it and record it in the artefact.", panel="rare"
    )
