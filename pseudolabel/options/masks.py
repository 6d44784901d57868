"""The settings of the stages from a network to masks and scores."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import model_validator

from pseudolabel.options.base import DatasetName, DatasetOptions, LaterOptions, Mixin, StageOptions
from pseudolabel.options.fields import Scales, Share, option, reads

CrfPreset = Literal["deeplab", "toco", "cosa", "afa", "toco-labels", "psa", "irn"]
CrfEngine = Literal["lattice", "exact", "pydensecrf"]
IgnoredPolicy = Literal["background", "drop", "miss"]


class NetworkOptions(Mixin):
    """Which network of a checkpoint that holds two."""

    network: Literal["teacher", "student"] | None = option(
        None, "Which network of a checkpoint of train-cosa, which holds two. none: the teacher."
    )


class BoundOptions(Mixin):
    """Boxes that constrain where classes may be."""

    boxes: Path | None = option(
        None,
        "Object boxes for --tags boxes: folder of VOC annotations, or COCO's JSON. none: the checkpoint's data set's.",
        role="input",
    )

    @model_validator(mode="after")
    def _boxes_are_used(self) -> BoundOptions:
        if self.boxes is not None and getattr(self, "tags", None) != "boxes":
            raise ValueError("--boxes is for --tags boxes; add that, or leave it out")
        return self


class MakeCamsOptions(NetworkOptions, BoundOptions, LaterOptions):
    """Settings of ``make-cams``."""

    checkpoint: Path = reads("Checkpoint of train-cam or train-cosa.", kind="checkpoint", serves="cam")
    split: str = option("train", "List file of the data set, or a path to any list of ids.", panel="input")
    head: Literal["main", "auxiliary", "mean"] | None = option(
        None, "Which classifier's maps. none: the auxiliary one where there is one."
    )
    tags: Literal["dataset", "predicted", "boxes"] = option(
        "dataset",
        "Classes to make maps for: the image tags, or the network's own predictions. boxes: the image tags, and maps "
        "are zero outside of their class's boxes in images that have any.",
    )
    tag_threshold: Share = option(
        0.5, "Probability above which a predicted tag counts; the best one always does.", panel="rare"
    )
    size: int | None = option(
        None,
        "Long side of an image at scale 1, in pixels. none: twice the training crop, 1.5 times where maps are "
        "passed on.",
        ge=16,
        le=4096,
    )
    scales: Scales = option((1.0, 0.5, 1.5, 0.75, 1.25), "Scales whose maps are summed.")
    flip: bool = option(True, "Take the maximum with the mirrored image's map.")
    propagate: int | None = option(
        None,
        "How often maps are passed on along what a plain ViT's patches attend to; 0: not at all. none: twice, of a CNN "
        "not at all.",
        ge=0,
        le=16,
    )
    normalise: Literal["minmax", "max"] = option(
        "minmax", "Subtract each map's minimum and divide by its maximum, or only divide.", panel="rare"
    )
    batch_size: int = option(
        16,
        "Images that are computed at the same time; fewer if what their patches attend to would take over 256 MiB.",
        role="execution",
        ge=1,
    )
    precision: Literal["auto", "float32", "bfloat16"] = option("auto", "Number format of the forward pass.")
    on_error: Literal["stop", "skip"] = option("stop", "What an unreadable image does.", panel="rare")


class ImportCamsOptions(DatasetOptions):
    """Settings of ``import-cams``."""

    cams: Path = reads("Folder of ID.npy files.")
    array: str = option("high_res", "Key of the maps in each dictionary (IRN: high_res or cam).", panel="rare")
    keys: str = option("keys", "Key of the class numbers; object classes count from 0.", panel="rare")
    grid: int | None = option(
        64, "Long side to which maps are reduced before they are stored. none: keep their own size.", ge=1, le=4096
    )


class SearchThresholdOptions(LaterOptions):
    """Settings of ``search-threshold``."""

    cams: Path = reads("CAMs of make-cams or import-cams.")
    method: Literal["mixture", "released", "sweep", "fixed"] = option(
        "mixture",
        "mixture: two Gaussians fitted to the maps' values, no mask needed; released: CoSA's three-component rule; "
        "sweep: best mIoU against the masks, marked oracle; fixed: the value given.",
    )
    value: Share = option(0.4, "The threshold of method fixed.")
    low: Share | None = option(None, "Also store a lower threshold, below which a pixel is surely background.")
    high: Share | None = option(None, "Also store a higher threshold, above which a pixel is surely foreground.")
    per_class: bool = option(False, "One threshold a class instead of one for all.")
    minimum: Share = option(0.05, "Values up to this one are dropped before a mixture is fitted.", panel="rare")


class CrfOptions(Mixin):
    """The dense CRF's settings: a named preset, and each of its numbers."""

    preset: CrfPreset = option("irn", "Named settings of a published system; single numbers below override it.")
    iterations: int | None = option(None, "Mean-field iterations. none: the preset's.", ge=1, le=1000)
    spatial_xy: float | None = option(None, "Width of the spatial kernel, pixels.", ge=0.01, le=1e6)
    spatial_weight: float | None = option(None, "Weight of the spatial kernel.", ge=0, le=1e6)
    bilateral_xy: float | None = option(None, "Width of the bilateral kernel in position, pixels.", ge=0.1, le=1e6)
    bilateral_rgb: float | None = option(
        None, "Width of the bilateral kernel in colour, grey levels of 0-255.", ge=0.01, le=1e6
    )
    bilateral_weight: float | None = option(None, "Weight of the bilateral kernel.", ge=0, le=1e6)
    unary: Literal["soft", "hard"] | None = option(
        None, "Start from the scores as probabilities, or from the label map. none: the preset's.", panel="rare"
    )
    gt_prob: float | None = option(None, "How sure a hard label is. none: the preset's.", panel="rare", gt=0, lt=1)
    engine: CrfEngine = option(
        "lattice",
        "What filters with the bilateral kernel: the permutohedral lattice; exact, which takes minutes a photograph "
        "without a GPU; or the package pydensecrf, to compare with.",
    )


class SearchCrfOptions(LaterOptions):
    """Settings of ``search-crf``."""

    cams: Path = reads("CAMs, or soft labels of predict-masks.")
    threshold: Path | None = reads("Thresholds of search-threshold; needed for CAMs.", positional=False, default=None)
    method: Literal["edges", "oracle"] = option(
        "edges",
        "edges: label boundaries on colour edges, classes of lasting area, no mask needed; oracle: best mIoU against "
        "the masks, marked oracle.",
    )
    images: int = option(50, "How many images to search on, drawn by the seed.", ge=1)
    trials: int = option(25, "How many random settings to try besides the presets.", ge=1, le=100_000)

    @property
    def yaml(self) -> Path:
        """The file beside the artefact that ``refine-crf --config`` takes."""
        return self.out.with_suffix(".yaml")

    @model_validator(mode="after")
    def _yaml_has_a_place(self) -> SearchCrfOptions:
        if self.yaml == self.out:
            raise ValueError(f"--out {self.out} is where the settings go as YAML; end it in .h5")
        return self


class RefineCrfOptions(CrfOptions, LaterOptions):
    """Settings of ``refine-crf``."""

    cams: Path = reads("CAMs, or soft labels of predict-masks.")
    threshold: Path | None = reads("Thresholds of search-threshold; needed for CAMs.", positional=False, default=None)
    settings: Path | None = reads(
        "Settings found by search-crf, in the preset's place; single numbers override them.",
        positional=False,
        default=None,
    )
    confidence: Literal["none", "irn", "cosa"] = option(
        "none",
        "Leave unsure pixels unlabelled by the low and high thresholds: irn runs the CRF once with each, "
        "cosa compares the maps with both before one CRF.",
    )
    on_error: Literal["stop", "skip"] = option("stop", "What an unreadable image does.", panel="rare")


class ExportMasksOptions(LaterOptions):
    """Settings of ``export-masks``."""

    writes_folder: ClassVar[bool] = True

    labels: Path = reads("Soft labels, masks, or CAMs (then with --threshold).")
    threshold: Path | None = reads("Thresholds of search-threshold; needed for CAMs.", positional=False, default=None)
    dataset: DatasetName | None = option(
        None, "Check that the labels are of this data set. none: take the artefact's.", panel="rare"
    )
    overlays: int = option(0, "How many images to draw: photograph, heat map, mask, ground truth side by side.", ge=0)
    contact_sheet: int = option(0, "How many random images to show on one sheet.", ge=0, le=400)
    rle: bool = option(False, "Also write coco.json with run-length encoded masks.")


class PredictionOptions(Mixin):
    """How a segmenter looks at an image."""

    size: int | None = option(
        None, "Long side of an image at scale 1, in pixels. none: twice the training crop.", ge=16, le=4096
    )
    scales: Scales = option((1.0,), "Scales whose probabilities are averaged.")
    flip: bool = option(True, "Average with the mirrored image.")


class PredictMasksOptions(NetworkOptions, PredictionOptions, CrfOptions, BoundOptions, LaterOptions):
    """Settings of ``predict-masks``."""

    writes_folder: ClassVar[bool] = True

    checkpoint: Path = reads(
        "Checkpoint of train-segmenter, train-scribble or train-cosa.", kind="checkpoint", serves="segmenter"
    )
    split: str = option("val", "List file of the data set, or a path to any list of ids.", panel="input")
    tags: Literal["none", "dataset", "boxes"] = option(
        "none",
        "dataset removes classes that the image tags exclude: for pseudo labels, not for honest inference. boxes: also "
        "each class outside of its boxes in images that have any.",
    )
    crf: bool = option(False, "Refine the probabilities with a dense CRF.")
    batch_size: int = option(16, "Images that are computed at the same time.", role="execution", ge=1)
    precision: Literal["auto", "float32", "bfloat16"] = option("auto", "Number format of the forward pass.")
    on_error: Literal["stop", "skip"] = option("stop", "What an unreadable image does.", panel="rare")


class EvaluateMasksOptions(StageOptions):
    """Settings of ``evaluate-masks``."""

    masks: Path = reads("Folder of PNG masks, masks.h5, or the folder of export-masks or predict-masks.")
    out: Path | None = option(  # type: ignore[assignment]  # the one stage that has a place of its own
        None, "Where to write the scores. none: scores.h5 beside the masks.", role="execution", panel="input"
    )
    dataset: DatasetName | None = option(None, "Layout of the data set. none: as the masks say.", panel="input")
    root: Path | None = option(None, "Folder of the data set. none: as the masks say.", role="input")
    split: str | None = option(
        None, "List file of the data set, or a path to any list of ids. none: as the masks say.", panel="input"
    )
    ignored: IgnoredPolicy = option(
        "background", "What a predicted 255 counts as: background (IRN), drop (ToCo, CoSA) or miss (SEAM, MCTformer)."
    )
    boundary: float | None = option(
        0.02, "Boundary IoU's distance as a share of the image diagonal. none: leave it out.", panel="rare", gt=0, lt=1
    )
    resamples: int = option(
        1000, "Bootstrap resamples of the images for the 95 % interval; 0: none.", panel="rare", ge=0, le=100_000
    )
    worst: int = option(5, "How many of the worst images to name.", ge=0)

    @property
    def artefact(self) -> Path:
        """The scores' file: ``out``, or ``scores.h5`` in the masks' folder."""
        return self.out or (self.masks.parent if self.masks.suffix == ".h5" else self.masks) / "scores.h5"
