"""Every setting of every stage, once: its default, bounds and help text.

These models make the command line's flags, validate the pipelines' YAML and are stored as JSON in the artefact that
they produced. This module imports no torch, so that ``--help`` stays quick.

A field has one of three roles, kept in its JSON schema under ``role``:

* ``input``: an earlier artefact or a place of data. What was read is recorded by digest: a moved file is no change.
* ``option``: changes what is computed. A stored artefact is fresh only while these are equal.
* ``execution``: where and how fast (output path, device, workers). Never makes an artefact stale.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from pseudolabel.errors import InputError
from pseudolabel.fields import (
    Range,
    Scales,
    Seconds,
    Share,
    Stride,
    as_word,
    default_of,
    is_optional,
    is_positional,
    nearest,
    option,
    reads,
    role_of,
    validated,
)

DatasetName = Literal["voc", "coco", "folder", "synthetic"]
TagSource = Literal["auto", "xml", "csv", "folders", "instances", "masks", "weak"]
CrfPreset = Literal["deeplab", "toco", "cosa", "afa", "toco-labels", "psa", "irn"]
CrfEngine = Literal["lattice", "exact", "pydensecrf"]
IgnoredPolicy = Literal["background", "drop", "miss"]


class StageOptions(BaseModel):
    """What every stage takes. Unknown names are errors that name the nearest known one."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True, defer_build=True)

    writes_folder: ClassVar[bool] = False

    out: Path = option(..., "Where to write the artefact.", role="execution")
    device: str = option("auto", "auto, cpu, cuda or cuda:N.", role="execution", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    seed: int = option(0, "Seed of everything random.", ge=0, le=2**32 - 1)
    workers: int | None = option(None, "Worker processes; none: one a core.", role="execution", ge=0)
    overwrite: bool = option(False, "Replace an existing output, and start a half-finished one anew.", role="execution")

    @model_validator(mode="before")
    @classmethod
    def _none_is_a_word(cls, values: Any) -> Any:
        """A flag cannot carry null: ``--weights none`` means None wherever None is allowed."""
        if not isinstance(values, Mapping):
            return values
        return {
            k: None if v == "none" and k in cls.model_fields and is_optional(cls, k) else v for k, v in values.items()
        }

    @model_validator(mode="after")
    def _inputs_stay(self) -> StageOptions:
        """No stage may replace what it reads, not even with --overwrite."""
        target = self.artefact.resolve()
        for name in type(self).model_fields:
            path = getattr(self, name) if role_of(type(self), name) == "input" else None
            if path is not None and target in (path.resolve(), (path / "masks.h5").resolve()):
                raise ValueError(f"--out would replace the input {path}; choose another place")
        return self

    @property
    def artefact(self) -> Path:
        """The file that says how the output was made: ``out`` itself, or ``masks.h5`` in the folder ``out``."""
        return self.out / "masks.h5" if self.writes_folder else self.out

    def resolved(self) -> dict[str, Any]:
        """Every setting as plain JSON data, defaults filled in."""
        return self.model_dump(mode="json")

    def meaning(self) -> dict[str, Any]:
        """The settings of role ``option``: equal meanings on equal inputs make equal artefacts."""
        return {name: value for name, value in self.resolved().items() if role_of(type(self), name) == "option"}


class DataOptions(BaseModel):
    """Which data set, which part of it, and where its tags come from."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, defer_build=True)

    dataset: DatasetName = option("voc", "Layout of the data set.")
    root: Path | None = option(
        None, "Folder of the data set; --dataset synthetic makes itself there if it is missing.", role="input"
    )
    split: str = option("train", "Name of a list file of the data set, or a path to any list of ids.")
    tag_source: TagSource = option(
        "auto",
        "Where image tags come from. auto: the layout's own weak source (xml, instances, csv or folders); "
        "weak: what scribbles, points and boxes imply; masks reads the pixel masks and marks every result oracle.",
    )
    tags_file: Path | None = option(None, "CSV of image tags: id,class[;class...].", role="input")


class WeakLabelOptions(DataOptions):
    """Weak labels beside the tags, in any mixture: asked for once, where the data set enters the chain."""

    scribbles: Path | None = option(
        None, "Folder of scribbles: ID.png (255 unlabelled), or ScribbleSup's ID.xml.", role="input"
    )
    points: Path | None = option(
        None, "Labelled points: CSV of id,class,x,y, or the JSON of What's the Point.", role="input"
    )
    boxes: Path | None = option(
        None, "Object boxes: folder of VOC annotations (ID.xml), or COCO's instances JSON.", role="input"
    )


class DatasetOptions(DataOptions, StageOptions):
    """Where a data set enters the chain. Later stages read it from their input artefact."""

    on_error: Literal["stop", "skip"] = option(
        "stop", "What an unreadable image does: stop, or skip it and record it in the artefact."
    )


class LaterOptions(StageOptions):
    """A stage that reads its data set from its input artefact; only the folder may have moved."""

    root: Path | None = option(None, "Where the data set lies now, if it has moved.", role="input")


class TrainingOptions(StageOptions):
    """What every training shares: the optimiser, the schedule, the views and the number formats."""

    crop: int = option(224, "Side of a square training view, in pixels.", ge=16, le=4096)
    view_area: Range = option((0.3, 1.0), "Smallest and largest share of an image's area that a view covers.")
    jitter: float = option(0.3, "Strength of random brightness, contrast and saturation.", ge=0, le=1)
    epochs: int = option(10, "Passes over the training images.", ge=1)
    steps: int | None = option(None, "Optimiser steps in all, in place of the epochs. none: the epochs' own.", ge=1)
    batch_size: int = option(8, "Effective batch: images per optimiser step.", ge=1)
    micro_batch: int | None = option(
        None, "Images per forward pass; gradients accumulate up to the batch size. none: all at once.", ge=1
    )
    recipe_batch: int | None = option(
        None,
        "Effective batch that the learning rate was chosen for; another one is warned about. none: the same.",
        ge=1,
    )
    learning_rate: float = option(6e-5, "AdamW's peak rate for the backbone.", gt=0)
    head_rate: float = option(10.0, "Factor on the rate for the heads, which start from nothing.", gt=0)
    weight_decay: float = option(0.01, "AdamW's weight decay.", ge=0)
    warmup: Share = option(0.05, "Share of the steps in which the rate rises linearly.")
    decay_power: float = option(0.9, "Power of the polynomial decay to zero.", ge=0)
    precision: Literal["auto", "float32", "bfloat16"] = option(
        "auto", "Number format of the forward pass; auto is bfloat16 where the hardware computes in it."
    )
    channels_last: bool = option(True, "Keep images in channels-last memory order, which is faster.")
    log: bool = option(
        True, "Write curves as a CSV table and for TensorBoard into the folder OUT.log.", role="execution"
    )
    save_every: int = option(
        100, "Steps between two states that a killed training resumes from.", role="execution", ge=1
    )

    @model_validator(mode="after")
    def _batches_divide(self) -> TrainingOptions:
        if self.micro_batch is not None and self.batch_size % self.micro_batch:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of micro_batch {self.micro_batch}")
        if not 0 < self.view_area[0] <= self.view_area[1] <= 1:
            raise ValueError(f"view_area {self.view_area} is not an increasing pair of shares in (0, 1]")
        return self


class AverageOptions(BaseModel):
    """What is kept of a training."""

    ema: float | None = option(
        None, "Decay of an exponential average of the weights, which is then what is kept. none: off.", gt=0, lt=1
    )


class BackboneOptions(TrainingOptions, DatasetOptions):
    """A training that begins with a data set and a backbone."""

    backbone: str = option("vit_small_patch16_224", "Name of any timm backbone.")
    weights: Path | None = option(
        None, "Initial weights: a .safetensors file or a checkpoint artefact (.h5). none: timm's own.", role="input"
    )
    pretrained: bool = option(True, "Let timm download its weights where no file is given.")
    output_stride: Stride | None = option(
        None, "Stride of a CNN's last feature map (dilates what comes after). none: the backbone's own."
    )
    freeze: Share = option(0.0, "Share of the backbone's parameters, from the input on, that stays as loaded.")
    holdout: Share = option(0.1, "Share of the split that is kept from training to measure the tag mAP on.")


class ClassifierOptions(BackboneOptions):
    """A network that learns image tags, and whose maps say where: what train-cam and train-cosa share."""

    pooling: Literal["gap", "gmp"] = option("gap", "Global average or global max pooling of the maps.")
    auxiliary_block: int | None = option(
        -3, "Block of a plain ViT that a second classifier reads, counted from the end. none: no auxiliary head.", lt=0
    )


class WatchedOptions(BackboneOptions):
    """A training of a segmenter that can be looked at, and scored by masks, while it goes on."""

    picture_every: int | None = option(
        200,
        "Steps between two pictures of a batch in OUT.log: maps, labels, predictions. none: none.",
        role="execution",
        ge=1,
    )
    validate_on: str | None = option(
        None,
        "Split to score after every epoch by its masks, or held-out for the held-out part of this one; scores are "
        "marked oracle where they choose. none: none.",
    )
    keep: Literal["last", "best"] = option(
        "last", "State to keep: the last, or the one with the highest mIoU on --validate-on, marked oracle."
    )

    @model_validator(mode="after")
    def _split_is_there(self) -> WatchedOptions:
        if self.keep == "best" and self.validate_on is None:
            raise ValueError("keep best needs --validate-on, the split whose masks choose")
        if self.validate_on == "held-out" and not self.holdout:
            raise ValueError("validate_on held-out needs a --holdout above 0")
        return self


class TrainCamOptions(AverageOptions, ClassifierOptions):
    """Train a classification network on image tags, whose class activation maps later stages use."""


class TrainCosaOptions(WatchedOptions, ClassifierOptions):
    """Train a segmentation network and its guided CAMs together, from image tags alone (CoSA)."""

    auxiliary_stage: int = option(
        -2, "Stage of a CNN that the second classifier reads, counted from the end.", lt=-1, ge=-8
    )
    view_scale: Range | None = option(
        None,
        "Smallest and largest factor on an image's size; its square crop is padded where the image is smaller. "
        "none: rectangles of --view-area, never padded.",
    )
    blur: Share = option(0.0, "Probability that a view is blurred.")
    classification: Share = option(0.2, "Share of the steps at the start in which only image tags are learnt.")
    teacher_decay: float = option(
        0.9994, "Decay of the average that is the teacher, at most step / (step + 10).", gt=0, lt=1
    )
    teacher_scales: Scales = option((1.0, 0.5, 1.5), "Scales that the teacher's CAMs are summed over; with 1.")
    teacher_flip: bool = option(True, "The teacher looks at mirrored views, too.")
    threshold: Literal["mixture", "released", "fixed"] = option(
        "mixture",
        "Thresholds of the CAM labels. mixture: two Gaussians fitted to the teacher's scores at every step; released: "
        "CoSA's three-component rule; fixed: --low and --high throughout.",
    )
    low: Share = option(0.25, "Score below which a pixel is background, until a first fit.")
    high: Share = option(0.7, "Score from which on a pixel is foreground, until a first fit.")
    queue: int = option(100, "Batches whose scores the mixture is fitted to.", ge=1, le=100_000)
    threshold_decay: float = option(0.99, "Decay of the thresholds' average.", ge=0, lt=1)
    cam_rule: Literal["described", "released"] = option(
        "described", "Compare enlarged maps with the thresholds, or as the released code does, after a softmax."
    )
    temperature: float = option(0.01, "Temperature of the segmentation labels' softmax.", gt=0)
    perplexity: float | None = option(
        0.8, "Strength of the soft perplexity weights, in (0, 1). none: all pixels count alike.", gt=0, lt=1
    )
    perplexity_power: float = option(1.0, "Power of the perplexity.", gt=0)
    c2s: float | None = option(0.1, "Weight of CAM labels for the segmentation. none: off.", ge=0)
    balanced: bool = option(
        True, "Background and foreground weigh the same in c2s, as released; else every pixel weighs the same."
    )
    auxiliary_share: Share = option(0.5, "Share of the auxiliary CAM's labels in c2s; the rest is the main one's.")
    s2c: float | None = option(0.05, "Weight of segmentation labels for the CAMs. none: off.", ge=0)
    regulariser: float | None = option(0.05, "Weight of the gated dense energy. none: off.", ge=0)
    contrastive: float | None = option(0.1, "Weight of the contrastive separation. none: off.", ge=0)
    contrastive_temperature: float = option(0.5, "Temperature of the contrastive separation.", gt=0)
    contrastive_cells: int = option(64, "Cells of an image that are compared with each other.", ge=2, le=4096)
    contrastive_perplexity: float = option(1.0, "Cells of a higher perplexity are not compared.", gt=0)
    embedding: int = option(128, "Channels of the projection that cells are compared in.", ge=1, le=4096)

    @model_validator(mode="after")
    def _settings_agree(self) -> TrainCosaOptions:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        if 1 not in self.teacher_scales:
            raise ValueError(f"teacher_scales {as_word(self.teacher_scales)} lack 1, at which the teacher segments")
        if self.view_scale is not None and not 0 < self.view_scale[0] <= self.view_scale[1] <= 8:
            raise ValueError(f"view_scale {self.view_scale} is not an increasing pair of factors in (0, 8]")
        return self


class TrainScribbleOptions(AverageOptions, WatchedOptions, WeakLabelOptions):
    """Train a segmenter from scribbles, points, boxes, tags or masks, in any mixture, with a regularised loss."""

    holdout: Share = option(0.0, "Share of the split that is kept from training to measure agreement with its labels.")
    supervision: Literal["weak", "masks"] = option(
        "weak", "weak: the weak labels given; masks: the pixel masks of all images, an upper bound marked oracle."
    )
    mask_list: Path | None = option(
        None,
        "List of ids whose pixel masks are used beside weak labels of the others; marked oracle.",
        role="input",
    )
    cams: Path | None = option(
        None, "CAMs, or soft labels, of the same images, for --objectness and --fill.", role="input"
    )
    width: int = option(3, "Diameter of points and of XML's strokes, in pixels of the photograph.", ge=1, le=64)
    by_image: bool = option(False, "The partial cross entropy counts images alike, not labelled pixels.")
    regulariser: Literal["none", "densecrf", "normalised-cut", "kernel-cut", "gated-crf", "dfr"] = option(
        "dfr", "Loss of what is not labelled. dfr: the dynamic feature regularised loss, and its feature consistency."
    )
    regulariser_weight: float | None = option(
        None, "Weight of the regulariser; 0: off. none: its own, for densecrf 2e-9 (513 / crop)^4.", ge=0
    )
    start: Share = option(0.2, "Share of the steps at the start in which labels alone teach.")
    ramp: Share = option(0.2, "Share of the steps in which the regulariser's weight then rises to its full value.")
    sigma_xy: float | None = option(
        None, "Width of the kernel in position, pixels of a view. none: the regulariser's own.", ge=0.1, le=1e6
    )
    sigma_rgb: float | None = option(
        None, "Width of the kernel in colour, grey levels of 0-255. none: the regulariser's own.", ge=0.01, le=1e6
    )
    map_scale: float | None = option(
        None, "Size of the maps that are regularised over a view's. none: the regulariser's own.", gt=0, le=1
    )
    sigma_embedding: float | None = option(
        0.5, "Width of dfr's kernel in its embedding. none: a kernel in position and colour alone.", ge=0.01, le=1e6
    )
    embedding: int = option(8, "Dimensions of dfr's embedding.", ge=1, le=256)
    consistency: float | None = option(0.1, "Weight of dfr's feature consistency. none: off.", ge=0)
    confidence: Share | None = option(
        0.9, "Least share of a prediction that labels a cell for the consistency. none: only what is labelled counts."
    )
    cells: int = option(64, "Cells of an image whose embeddings are compared with each other.", ge=2, le=4096)
    exclusion: float | None = option(
        None, "Weight of the loss on classes where tags or boxes exclude them. none: off.", ge=0
    )
    presence: float | None = option(
        None, "Weight of the loss on tagged classes that are labelled nowhere in their image. none: off.", ge=0
    )
    objectness: float | None = option(
        None, "Weight of the loss against where --cams see objects; not of images with masks. none: off.", ge=0
    )
    fill: Range | None = option(
        None,
        "Low and high score of --cams inside a box, over their maximum there: below a pixel is background, from the "
        "high one on it is of the box's class. none: what is inside boxes stays unlabelled.",
    )
    annotation_seconds: Seconds = option(
        (20.0, 22.1, 34.9, 38.1, 239.7),
        "Seconds that the tags, points, scribbles, boxes and mask of an image take to draw, to state what labels cost.",
        role="execution",
    )

    @model_validator(mode="after")
    def _labels_agree(self) -> TrainScribbleOptions:
        if self.supervision == "masks" and self.mask_list is not None:
            raise ValueError("supervision masks uses the masks of all images; leave out --mask-list")
        if (self.objectness is not None or self.fill is not None) and self.cams is None:
            raise ValueError("objectness and fill need --cams, which say where objects are likely")
        if self.fill is not None and not 0 <= self.fill[0] <= self.fill[1] <= 1:
            raise ValueError(f"fill {as_word(self.fill)} is not an increasing pair of scores in [0, 1]")
        return self


class NetworkOptions(BaseModel):
    """Which network of a checkpoint that holds two."""

    network: Literal["teacher", "student"] | None = option(
        None, "Which network of a checkpoint of train-cosa, which holds two. none: the teacher."
    )


class MakeCamsOptions(NetworkOptions, LaterOptions):
    """Compute class activation maps of a split: several scales and mirrored, normalised per class to [0, 1]."""

    checkpoint: Path = reads("Checkpoint of train-cam or train-cosa.")
    split: str = option("train", "List file of the data set, or a path to any list of ids.")
    head: Literal["main", "auxiliary", "mean"] | None = option(
        None, "Which classifier's maps. none: the auxiliary one where there is one."
    )
    tags: Literal["dataset", "predicted"] = option(
        "dataset", "Classes to make maps for: the image tags, or the network's own predictions."
    )
    tag_threshold: Share = option(0.5, "Probability above which a predicted tag counts; the best one always does.")
    size: int | None = option(
        None, "Long side of an image at scale 1, in pixels. none: twice the training crop.", ge=16, le=4096
    )
    scales: Scales = option((1.0, 0.5, 1.5, 0.75, 1.25), "Scales whose maps are summed.")
    flip: bool = option(True, "Take the maximum with the mirrored image's map.")
    normalise: Literal["minmax", "max"] = option(
        "minmax", "Subtract each map's minimum and divide by its maximum, or only divide."
    )
    batch_size: int = option(16, "Images of one size per forward pass.", role="execution", ge=1)
    precision: Literal["auto", "float32", "bfloat16"] = option("auto", "Number format of the forward pass.")
    on_error: Literal["stop", "skip"] = option("stop", "What an unreadable image does.")


class ImportCamsOptions(DatasetOptions):
    """Read others' CAMs: a folder of IRN-style .npy dictionaries, unpickling restricted to NumPy arrays."""

    cams: Path = reads("Folder of ID.npy files.")
    array: str = option("high_res", "Key of the maps in each dictionary (IRN: high_res or cam).")
    keys: str = option("keys", "Key of the class numbers; object classes count from 0.")
    grid: int | None = option(
        64, "Long side to which maps are reduced before they are stored. none: keep their own size.", ge=1, le=4096
    )


class SearchThresholdOptions(LaterOptions):
    """Choose the score below which a pixel is background: without masks, as an oracle sweep, or fixed."""

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
    minimum: Share = option(0.05, "Values up to this one are dropped before a mixture is fitted.")


class CrfOptions(BaseModel):
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
        None, "Start from the scores as probabilities, or from the label map. none: the preset's."
    )
    gt_prob: float | None = option(None, "How sure a hard label is. none: the preset's.", gt=0, lt=1)
    engine: CrfEngine = option(
        "lattice",
        "What filters with the bilateral kernel: the permutohedral lattice; exact, which takes minutes a photograph "
        "without a GPU; or the package pydensecrf, to compare with.",
    )


class SearchCrfOptions(LaterOptions):
    """Choose the dense CRF's settings by a random search: without masks, by edges and areas, or as an oracle."""

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
    """Refine CAMs or predicted soft labels with a mean-field dense CRF on the original photographs."""

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
    on_error: Literal["stop", "skip"] = option("stop", "What an unreadable image does.")


class ExportMasksOptions(LaterOptions):
    """Write 8-bit palette PNG masks and masks.h5, with overlays, COCO RLE and a contact sheet on request."""

    writes_folder: ClassVar[bool] = True

    labels: Path = reads("Soft labels, masks, or CAMs (then with --threshold).")
    threshold: Path | None = reads("Thresholds of search-threshold; needed for CAMs.", positional=False, default=None)
    dataset: DatasetName | None = option(None, "Check that the labels are of this data set. none: take the artefact's.")
    overlays: int = option(0, "How many images to draw: photograph, heat map, mask, ground truth side by side.", ge=0)
    contact_sheet: int = option(0, "How many random images to show on one sheet.", ge=0, le=400)
    rle: bool = option(False, "Also write coco.json with run-length encoded masks.")


class PredictionOptions(BaseModel):
    """How a segmenter looks at an image."""

    size: int | None = option(
        None, "Long side of an image at scale 1, in pixels. none: twice the training crop.", ge=16, le=4096
    )
    scales: Scales = option((1.0,), "Scales whose probabilities are averaged.")
    flip: bool = option(True, "Average with the mirrored image.")


class TrainSegmenterOptions(AverageOptions, TrainingOptions, LaterOptions):
    """Train a segmentation network on exported masks; pixels of value 255 teach nothing."""

    masks: Path = reads("masks.h5, or the folder that holds it.")
    backbone: str | None = option(None, "Name of any timm backbone. none: the one that made the masks.")
    weights: Path | None = option(
        None,
        "Initial weights of the encoder: a .safetensors file or a checkpoint artefact. none: as the CAM network's.",
        role="input",
    )
    pretrained: bool = option(True, "Let timm download its weights where no file is given or known.")
    decoder: Literal[
        "largefov", "unet", "unetplusplus", "fpn", "pspnet", "manet", "linknet", "pan", "deeplabv3", "deeplabv3plus",
        "upernet", "segformer", "dpt",
    ] = option("largefov", "largefov, or a decoder of segmentation_models_pytorch.")  # fmt: skip
    balanced: bool = option(
        False, "Average the loss over background and over foreground pixels apart, so that both count the same."
    )
    holdout: Share = option(0.0, "Share of the images kept from training, to measure agreement with their masks.")
    freeze: Share = option(0.0, "Share of the backbone's parameters, from the input on, that stays as loaded.")
    on_error: Literal["stop", "skip"] = option(
        "stop", "What an unreadable image does: stop, or skip it and record it in the artefact."
    )


class PredictMasksOptions(NetworkOptions, PredictionOptions, CrfOptions, LaterOptions):
    """Predict masks of a split with a trained segmenter: soft.h5, masks.h5 and PNG files in one folder."""

    writes_folder: ClassVar[bool] = True

    checkpoint: Path = reads("Checkpoint of train-segmenter, train-scribble or train-cosa.")
    split: str = option("val", "List file of the data set, or a path to any list of ids.")
    tags: Literal["none", "dataset"] = option(
        "none", "dataset removes classes that the image tags exclude: for pseudo labels, not for honest inference."
    )
    crf: bool = option(False, "Refine the probabilities with a dense CRF.")
    batch_size: int = option(16, "Images of one size per forward pass.", role="execution", ge=1)
    precision: Literal["auto", "float32", "bfloat16"] = option("auto", "Number format of the forward pass.")
    on_error: Literal["stop", "skip"] = option("stop", "What an unreadable image does.")


class EvaluateMasksOptions(StageOptions):
    """Score masks against ground truth, with everything that the number depends on beside it."""

    masks: Path = reads("Folder of PNG masks, masks.h5, or the folder of export-masks or predict-masks.")
    out: Path | None = option(  # type: ignore[assignment]  # the one stage that has a place of its own
        None, "Where to write the scores. none: scores.h5 beside the masks.", role="execution"
    )
    dataset: DatasetName | None = option(None, "Layout of the data set. none: as the masks say.")
    root: Path | None = option(None, "Folder of the data set. none: as the masks say.", role="input")
    split: str | None = option(None, "List file of the data set, or a path to any list of ids. none: as the masks say.")
    ignored: IgnoredPolicy = option(
        "background", "What a predicted 255 counts as: background (IRN), drop (ToCo, CoSA) or miss (SEAM, MCTformer)."
    )
    boundary: float | None = option(
        0.02, "Boundary IoU's distance as a share of the image diagonal. none: leave it out.", gt=0, lt=1
    )
    resamples: int = option(1000, "Bootstrap resamples of the images for the 95 % interval; 0: none.", ge=0, le=100_000)
    worst: int = option(5, "How many of the worst images to name.", ge=0)

    @property
    def artefact(self) -> Path:
        """The scores' file: ``out``, or ``scores.h5`` in the masks' folder."""
        return self.out or (self.masks.parent if self.masks.suffix == ".h5" else self.masks) / "scores.h5"


STAGES: dict[str, type[StageOptions]] = {
    "train-cam": TrainCamOptions,
    "train-cosa": TrainCosaOptions,
    "train-scribble": TrainScribbleOptions,
    "make-cams": MakeCamsOptions,
    "import-cams": ImportCamsOptions,
    "search-threshold": SearchThresholdOptions,
    "search-crf": SearchCrfOptions,
    "refine-crf": RefineCrfOptions,
    "export-masks": ExportMasksOptions,
    "train-segmenter": TrainSegmenterOptions,
    "predict-masks": PredictMasksOptions,
    "evaluate-masks": EvaluateMasksOptions,
}
"""The one list of stages. The function of ``a-b`` is ``pseudolabel.stages.a_b.a_b``."""


def command_line(stage: str, options: StageOptions) -> str:
    """The command that runs a stage with these settings; defaults are left out."""
    model = type(options)
    words, flags = ["pseudolabel", stage], []
    for name in model.model_fields:
        value, flag = getattr(options, name), name.replace("_", "-")
        if is_positional(model, name):
            words.append(as_word(value))
        elif value == default_of(model, name):
            continue
        elif isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            flags += [f"--{flag}", as_word(value)]
    return shlex.join(words + flags)


def check_names(stage: str, values: Mapping[str, Any], *, where: str = "") -> dict[str, Any]:
    """Settings under the names of a stage's fields; dashes and underscores in names mean the same.

    Args:
        stage: A key of STAGES.
        values: Settings by name, as a YAML file or the command line gives them.
        where: What the settings came from, to begin the error with.

    Raises:
        InputError: A name is unknown; the line names the nearest known one.
    """
    known = STAGES[stage].model_fields
    plain = {key.replace("-", "_"): value for key, value in values.items()}
    for key in plain:
        if key not in known:
            flag, hint = key.replace("_", "-"), nearest(key, list(known)).replace("_", "-")
            raise InputError(f"{where or stage}: unknown option {flag!r}{hint}; see 'pseudolabel {stage} --help'")
    return plain


def build_options(stage: str, values: Mapping[str, Any], *, where: str = "") -> StageOptions:
    """Validate settings of a stage.

    Args:
        stage: A key of STAGES.
        values: Settings by name, as a YAML file or the command line gives them.
        where: What the settings came from, to begin the error with.

    Raises:
        InputError: An unknown name or a wrong value, in one line that names the setting.
    """
    return validated(STAGES[stage], check_names(stage, values, where=where), where=where or stage)
