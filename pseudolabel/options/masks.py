"""The settings of the stages from a network to masks and scores."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import model_validator

from pseudolabel.options.base import DatasetName, DatasetOptions, LaterOptions, MaskValueOptions, Mixin, StageOptions
from pseudolabel.options.fields import Scales, Share, option, reads

CrfPreset = Literal["deeplab", "toco", "cosa", "afa", "toco-labels", "psa", "irn"]
CrfEngine = Literal["lattice", "exact", "pydensecrf"]
IgnoredPolicy = Literal["background", "drop", "miss"]


class NetworkOptions(Mixin):
    """Which network of a checkpoint that holds two."""

    network: Literal["teacher", "student"] | None = option(
        None, "Which of the two networks of a train-cosa checkpoint to use. none: the teacher."
    )


class EitherNetworkOptions(Mixin):
    """Which network of a checkpoint that holds two, of those that predict masks."""

    network: Literal["teacher", "student", "first", "second", "both"] | None = option(
        None,
        "Which network to use, of a checkpoint with two. none: the teacher of train-cosa; both of train-semi's ccvc, "
        "whose probabilities are averaged.",
    )


class BoundOptions(Mixin):
    """Boxes that constrain where classes may be."""

    boxes: Path | None = option(
        None,
        "Bounding boxes for --tags boxes: a folder of VOC annotations, or a COCO instances JSON file. none: "
        "those of the checkpoint's data set.",
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
    split: str = option(
        "train", "Split to use: a list file of the data set, or a path to any list of image ids.", panel="input"
    )
    head: Literal["main", "auxiliary", "mean"] | None = option(
        None,
        "Classifier whose maps to use; mean averages both. none: the main one; where pooling is average, the auxiliary "
        "one, if there is one.",
    )
    tags: Literal["dataset", "predicted", "boxes"] = option(
        "dataset",
        "Classes to compute maps for. dataset: the image tags; predicted: the network's own predictions; "
        "boxes: the image tags, box-constrained: where an image has boxes, a map is zero outside the boxes "
        "of its class.",
    )
    tag_threshold: Share = option(
        0.5, "Probability above which a class counts as predicted. The most probable class always does.", panel="rare"
    )
    size: int | None = option(
        None,
        "Longer side of an image at scale 1, in pixels. none: twice the training crop, or 1.5 times with "
        "attention affinity propagation.",
        ge=16,
        le=4096,
    )
    scales: Scales = option((1.0, 0.5, 1.5, 0.75, 1.25), "Image scales over which the maps are summed.")
    flip: bool = option(True, "Also process the mirrored image.")
    flip_fusion: Literal["max", "sum"] = option(
        "max", "Fusion of the maps of image and mirrored image; IRN's is sum, with --normalise max.", panel="rare"
    )
    propagate: int | None = option(
        None,
        "Iterations of attention affinity propagation, for plain ViTs; 0: off. none: 2 for a plain ViT, off for a CNN.",
        ge=0,
        le=16,
    )
    normalise: Literal["minmax", "max"] = option(
        "minmax",
        "Normalisation of each map. minmax: subtract the minimum and divide by the maximum; max: only divide "
        "by the maximum.",
        panel="rare",
    )
    batch_size: int = option(
        16,
        "Images per forward pass; fewer if their attention maps would take over 256 MiB.",
        role="execution",
        ge=1,
    )
    precision: Literal["auto", "float32", "bfloat16"] = option(
        "auto", "Number format of the forward pass. auto: bfloat16 where the hardware supports it, else float32."
    )
    on_error: Literal["stop", "skip"] = option(
        "stop", "What to do with an unreadable image: stop, or skip it and record it in the artefact.", panel="rare"
    )


class ImportCamsOptions(DatasetOptions):
    """Settings of ``import-cams``."""

    cams: Path = reads("Folder of ID.npy files.")
    array: str = option("high_res", "Key of the maps in each dictionary (IRN: high_res or cam).", panel="rare")
    keys: str = option(
        "keys", "Key of the class indices in each dictionary; 0 is the first object class.", panel="rare"
    )
    grid: int | None = option(
        64, "Longer side to which maps are downsampled before they are stored. none: keep their size.", ge=1, le=4096
    )


class SearchThresholdOptions(MaskValueOptions, LaterOptions):
    """Settings of ``search-threshold``."""

    cams: Path = reads("CAMs from make-cams or import-cams.")
    method: Literal["mixture", "released", "sweep", "fixed"] = option(
        "mixture",
        "How to choose the threshold. mixture: fit two Gaussians to the CAM scores, without masks; released: "
        "the three-component rule of CoSA's released code; sweep: maximise mIoU against the masks, marked "
        "oracle; fixed: use --value.",
    )
    value: Share = option(0.4, "Threshold for --method fixed.")
    low: Share | None = option(None, "Also store a lower threshold, below which a pixel is confident background.")
    high: Share | None = option(None, "Also store a higher threshold, above which a pixel is confident foreground.")
    per_class: bool = option(False, "Choose a threshold per class instead of one for all.")
    minimum: Share = option(0.05, "CAM scores up to this value are left out before a mixture is fitted.", panel="rare")


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


class RefineCrfOptions(CrfOptions, LaterOptions):
    """Settings of ``refine-crf``."""

    cams: Path = reads("CAMs, or soft labels from predict-masks.")
    threshold: Path | None = reads(
        "Thresholds from search-threshold; required for CAMs.", positional=False, default=None
    )
    settings: Path | None = reads(
        "CRF settings from search-crf, in place of --preset. Single CRF options override them.",
        positional=False,
        default=None,
    )
    confidence: Literal["none", "irn", "cosa"] = option(
        "none",
        "Rule that leaves uncertain pixels unlabelled, by the low and high thresholds. irn: run the CRF once "
        "with each; cosa: compare the maps with both, then run one CRF; none: label every pixel.",
    )
    on_error: Literal["stop", "skip"] = option(
        "stop", "What to do with an unreadable image: stop, or skip it and record it in the artefact.", panel="rare"
    )


class ExportMasksOptions(LaterOptions):
    """Settings of ``export-masks``."""

    writes_folder: ClassVar[bool] = True

    labels: Path = reads("Soft labels, masks, or CAMs. CAMs need --threshold.")
    threshold: Path | None = reads(
        "Thresholds from search-threshold; required for CAMs.", positional=False, default=None
    )
    dataset: DatasetName | None = option(
        None, "Fail if the labels belong to another data set layout. none: accept any.", panel="rare"
    )
    overlays: int = option(0, "Number of images to draw: image, heat map, mask and ground truth side by side.", ge=0)
    contact_sheet: int = option(0, "Number of random images to show on a contact sheet; 0: no sheet.", ge=0, le=400)
    rle: bool = option(False, "Also write coco.json, with masks in COCO RLE.")


class PredictionOptions(Mixin):
    """How a segmenter looks at an image."""

    size: int | None = option(
        None, "Longer side of an image at scale 1, in pixels. none: twice the training crop.", ge=16, le=4096
    )
    scales: Scales = option((1.0,), "Image scales over which probabilities are averaged.")
    flip: bool = option(True, "Also average over the mirrored image.")


class PredictMasksOptions(EitherNetworkOptions, PredictionOptions, CrfOptions, BoundOptions, LaterOptions):
    """Settings of ``predict-masks``."""

    writes_folder: ClassVar[bool] = True

    checkpoint: Path = reads(
        "Checkpoint of train-segmenter, train-scribble, train-semi or train-cosa.",
        kind="checkpoint",
        serves="segmenter",
    )
    split: str = option(
        "val", "Split to use: a list file of the data set, or a path to any list of image ids.", panel="input"
    )
    tags: Literal["none", "dataset", "boxes"] = option(
        "none",
        "Weak labels that constrain the prediction, for pseudo labels and not for fair evaluation. dataset: "
        "classes without an image tag are removed; boxes: also box-constrained, where an image has boxes; "
        "none: unconstrained.",
    )
    crf: bool = option(False, "Refine the probabilities with a dense CRF.")
    batch_size: int = option(16, "Images per forward pass.", role="execution", ge=1)
    precision: Literal["auto", "float32", "bfloat16"] = option(
        "auto", "Number format of the forward pass. auto: bfloat16 where the hardware supports it, else float32."
    )
    on_error: Literal["stop", "skip"] = option(
        "stop", "What to do with an unreadable image: stop, or skip it and record it in the artefact.", panel="rare"
    )


class EvaluateMasksOptions(MaskValueOptions, StageOptions):
    """Settings of ``evaluate-masks``."""

    masks: Path = reads("Folder of PNG masks, masks.h5, or the output folder of export-masks or predict-masks.")
    out: Path | None = option(  # type: ignore[assignment]  # the one stage that has a place of its own
        None, "File to write the scores to. none: scores.h5 beside the masks.", role="execution", panel="input"
    )
    dataset: DatasetName | None = option(
        None, "Layout of the data set. none: as recorded with the masks.", panel="input"
    )
    root: Path | None = option(None, "Folder of the data set. none: as recorded with the masks.", role="input")
    split: str | None = option(
        None,
        "Split to use: a list file of the data set, or a path to any list of image ids. none: as recorded "
        "with the masks.",
        panel="input",
    )
    ignored: IgnoredPolicy = option(
        "background",
        "How pixels predicted as 255 count. background: as background (IRN); drop: not at all (ToCo, CoSA); "
        "miss: as wrong (SEAM, MCTformer).",
    )
    boundary: float | None = option(
        0.02,
        "Width of the boundary in boundary IoU, as a fraction of the image diagonal. none: no boundary IoU.",
        panel="rare",
        gt=0,
        lt=1,
    )
    resamples: int | None = option(
        None,
        "0: no confidence interval. none: with one. Other numbers, of older commands, mean the same as none.",
        panel="rare",
        ge=0,
    )
    worst: int = option(5, "Number of lowest-scoring images to list.", ge=0)

    @property
    def artefact(self) -> Path:
        """The scores' file: ``out``, or ``scores.h5`` in the masks' folder."""
        return self.out or (self.masks.parent if self.masks.suffix == ".h5" else self.masks) / "scores.h5"
