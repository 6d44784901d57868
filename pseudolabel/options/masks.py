"""The settings of the stages from a network to masks and scores."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import ConfigDict, model_validator

from pseudolabel.options.base import (
    DatasetName,
    DatasetOptions,
    DeviceOptions,
    LaterOptions,
    MaskValueOptions,
    Mixin,
    StageOptions,
)
from pseudolabel.options.fields import Blocks, Paths, Scales, Share, option, reads
from pseudolabel.options.refiners import CrfOptions

_LARGEST = 4096  # pixels, of an image that a network sees at once
IgnoredPolicy = Literal["background", "drop", "miss"]
OutFormat = Literal["coco", "coco-polygons", "yolo", "cvat", "label-studio", "labelme", "hf", "mmseg"]
InFormat = Literal["coco", "cvat", "label-studio", "labelme", "yolo"]


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
        "Iterations of affinity propagation; 0: off. none: 2 for a plain ViT or with --affinity, off for another CNN.",
        ge=0,
        le=16,
    )
    affinity: Literal["mean", "caa", "features"] | None = option(
        None,
        "Affinity along which maps are propagated. mean: a plain ViT's attention; caa: the same, made doubly "
        "stochastic, of CLIP-ES; features: likeness of the last features, for CNNs too. none: mean.",
    )
    attention_blocks: Blocks | None = option(
        None,
        "Blocks whose attention --affinity mean and caa read, from 0, or from the last as -1. none: from the middle "
        "on, without the last sixth.",
        panel="rare",
    )
    affinity_scales: Scales = option(
        (1.0,), "Image scales at which maps are propagated; the mean of the results counts.", panel="rare"
    )
    class_boxes: Share | None = option(
        None,
        "Propagate only what lies in the boxes around the parts of a map above this share of its maximum; CLIP-ES: 0.4 "
        "for VOC, 0.7 for COCO. none: propagate all.",
        panel="rare",
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


class PictureOptions(Mixin):
    """Pictures to look at beside the masks."""

    overlays: int = option(0, "Number of images to draw: image, heat map, mask and ground truth side by side.", ge=0)
    contact_sheet: int = option(0, "Number of random images to show on a contact sheet; 0: no sheet.", ge=0, le=400)


class ExportMasksOptions(PictureOptions, LaterOptions):
    """Settings of ``export-masks``."""

    writes_folder: ClassVar[bool] = True

    labels: Path = reads("Soft labels, masks, or CAMs. CAMs need --threshold.")
    threshold: Path | None = reads(
        "Thresholds from search-threshold; required for CAMs.", positional=False, default=None
    )
    dataset: DatasetName | None = option(
        None, "Fail if the labels belong to another data set layout. none: accept any.", panel="rare"
    )
    as_: OutFormat | None = option(
        None, "Also write the masks in the format of another tool. none: only PNG masks and masks.h5."
    )
    instances: bool = option(
        False, "With --as: one object for each connected region of a class instead of one for each class."
    )


class ImportMasksOptions(StageOptions):
    """Settings of ``import-masks``."""

    corrected: Path = reads("Corrected masks: the file or folder that the other tool has exported.")
    masks: Path = reads("The masks that were corrected: masks.h5, or the folder of export-masks.", positional=False)
    from_: InFormat = option(..., "Format of the corrected masks.", panel="input")
    unlabelled: Literal["keep", "background"] = option(
        "keep",
        "What becomes of pixels that were unlabelled (255) and are of no object now. keep: they stay unlabelled; "
        "background: they are background.",
    )


class PredictionOptions(Mixin):
    """How a segmenter looks at an image."""

    size: int | None = option(
        None,
        "Longer side of an image at scale 1, in pixels. none: twice the training crop, or with --tile the image's own.",
        ge=16,
        le=65536,
    )
    tile: int | None = option(
        None,
        "Longest side of what the network sees at once, in pixels: larger images are seen in tiles that overlap by "
        "half. none: it sees whole images.",
        ge=64,
        le=4096,
    )
    scales: Scales = option((1.0,), "Image scales over which probabilities are averaged.")
    flip: bool = option(True, "Also average over the mirrored image.")

    @model_validator(mode="after")
    def _large_images_are_tiled(self) -> PredictionOptions:
        if self.size is not None and self.size > _LARGEST and self.tile is None:
            raise ValueError(f"--size {self.size} is more than {_LARGEST} and needs --tile, such as --tile 1024")
        return self


class InferenceOptions(EitherNetworkOptions, PredictionOptions):
    """A segmenter at work: which network, how it looks at an image, in which numbers it computes."""

    batch_size: int = option(16, "Images per forward pass.", role="execution", ge=1)
    precision: Literal["auto", "float32", "bfloat16"] = option(
        "auto", "Number format of the forward pass. auto: bfloat16 where the hardware supports it, else float32."
    )


class PredictorOptions(InferenceOptions, DeviceOptions):
    """Settings of ``export.predictor.Predictor``."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, defer_build=True)


class PredictMasksOptions(InferenceOptions, PictureOptions, CrfOptions, BoundOptions, LaterOptions):
    """Settings of ``predict-masks``."""

    writes_folder: ClassVar[bool] = True

    checkpoint: Path = reads(
        "Checkpoint of train-segmenter, train-scribble, train-semi or train-cosa.",
        kind="checkpoint",
        serves="segmenter",
    )
    images: Paths | None = option(
        None,
        "New photographs, in place of the data set's: a file, or a folder with all that is below it; may be repeated. "
        "They need no list and no tags.",
        role="input",
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
    on_error: Literal["stop", "skip"] = option(
        "stop", "What to do with an unreadable image: stop, or skip it and record it in the artefact.", panel="rare"
    )

    @model_validator(mode="after")
    def _new_photographs_stand_alone(self) -> PredictMasksOptions:
        if self.images is None:
            return self
        if self.tags != "none":
            raise ValueError(f"--tags {self.tags} is for images of a data set; --images has no tags, leave one out")
        for name in ("split", "root"):
            if name in self.model_fields_set and getattr(self, name) is not None:
                raise ValueError(f"--{name} is for images of a data set; leave it or --images out")
        return self


class ExportModelOptions(NetworkOptions):
    """Settings of ``export-model``."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, defer_build=True)

    checkpoint: Path = reads(
        "Checkpoint of train-segmenter, train-scribble or train-cosa.", kind="checkpoint", serves="segmenter"
    )
    out: Path = option(..., "File to write.", role="execution", panel="input")
    format: Literal["onnx"] = option("onnx", "Format of the file.")
    overwrite: bool = option(False, "Replace an existing file.", role="execution")


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
