"""The settings of the training stages."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, model_validator

from pseudolabel.options.base import DatasetOptions, LaterOptions, StageOptions, WeakLabelOptions
from pseudolabel.options.fields import Channels, Range, Scales, Seconds, Share, Stride, as_word, option, reads


class TrainingOptions(StageOptions):
    """What every training shares: the optimiser, the schedule, the views and the number formats."""

    crop: int = option(224, "Side of a square training view, in pixels.", ge=16, le=4096)
    crop_area: Range = option((0.3, 1.0), "Smallest and largest share of an image's area that a view covers.")
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
    resume_changed: bool = option(
        False,
        "Go on from the state of a training that was begun with other options or inputs; the checkpoint says which.",
        role="execution",
    )

    @model_validator(mode="after")
    def _batches_divide(self) -> TrainingOptions:
        if self.micro_batch is not None and self.batch_size % self.micro_batch:
            raise ValueError(f"--batch-size {self.batch_size} is not a multiple of --micro-batch {self.micro_batch}")
        if not 0 < self.crop_area[0] <= self.crop_area[1] <= 1:
            raise ValueError(f"--crop-area {as_word(self.crop_area)} is not an increasing pair of shares in (0, 1]")
        return self


class AverageOptions(BaseModel):
    """What is kept of a training."""

    ema: float | None = option(
        None, "Decay of an exponential average of the weights, which is then what is kept. none: off.", gt=0, lt=1
    )


class BackboneOptions(TrainingOptions, DatasetOptions):
    """A training that begins with a data set and a backbone."""

    backbone: str = option(
        "vit_small_patch16_224", "A timm backbone: its name, hf-hub:ORG/MODEL, or local-dir:FOLDER with a config.json."
    )
    in_chans: Channels = option(3, "Channels of the backbone's input; 1: photographs are turned to grey (ITU-R 601).")
    weights: Path | None = option(
        None,
        "Initial weights: a .safetensors or .pth file in any layout that timm knows, or a checkpoint artefact (.h5). "
        "none: the backbone's own.",
        role="input",
    )
    pretrained: bool = option(True, "Begin with the backbone's own weights, or download them, where no file is given.")
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
            raise ValueError("--keep best needs --validate-on, the split whose masks choose")
        if self.validate_on == "held-out" and not self.holdout:
            raise ValueError("--validate-on held-out needs a --holdout above 0")
        return self


class TrainCamOptions(AverageOptions, ClassifierOptions):
    """Train a classification network on image tags, whose class activation maps later stages use."""


class TrainCosaOptions(WatchedOptions, ClassifierOptions):
    """Train a segmentation network and its guided CAMs together, from image tags alone (CoSA)."""

    auxiliary_stage: int = option(
        -2, "Stage of a CNN that the second classifier reads, counted from the end.", lt=-1, ge=-8
    )
    crop_scale: Range | None = option(
        None,
        "Smallest and largest factor on an image's size; its square crop is padded where the image is smaller. "
        "none: rectangles of --crop-area, never padded.",
    )
    blur: Share = option(0.0, "Probability that a view is blurred.")
    classification: Share = option(0.2, "Share of the steps at the start in which only image tags are learnt.")
    teacher_decay: float = option(
        0.9994, "Decay of the average that is the teacher, at most step / (step + 10).", gt=0, lt=1
    )
    teacher_scales: Scales = option((1.0, 0.5, 1.5), "Scales that the teacher's CAMs are summed over; with 1.")
    teacher_flip: bool = option(True, "The teacher looks at mirrored views, too.")
    propagate: int = option(
        0, "How often the teacher's maps are passed on along what a plain ViT's patches attend to.", ge=0, le=16
    )
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
            raise ValueError(f"--low {self.low} is above --high {self.high}")
        if 1 not in self.teacher_scales:
            raise ValueError(f"--teacher-scales {as_word(self.teacher_scales)} lack 1, at which the teacher segments")
        if self.crop_scale is not None and not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 8:
            raise ValueError(f"--crop-scale {as_word(self.crop_scale)} is not an increasing pair of factors in (0, 8]")
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
            raise ValueError("--supervision masks uses the masks of all images; leave out --mask-list")
        if (self.objectness is not None or self.fill is not None) and self.cams is None:
            raise ValueError("--objectness and --fill need --cams, which say where objects are likely")
        if self.fill is not None and not 0 <= self.fill[0] <= self.fill[1] <= 1:
            raise ValueError(f"--fill {as_word(self.fill)} is not an increasing pair of scores in [0, 1]")
        return self


class TrainSegmenterOptions(AverageOptions, TrainingOptions, LaterOptions):
    """Train a segmentation network on exported masks; pixels of value 255 teach nothing."""

    masks: Path = reads("masks.h5, or the folder that holds it.", kind="masks")
    backbone: str | None = option(
        None,
        "A timm backbone: its name, hf-hub:ORG/MODEL, or local-dir:FOLDER. none: the one that made the masks.",
    )
    in_chans: Channels | None = option(
        None, "Channels of the backbone's input; 1: photographs are turned to grey. none: as the CAM network's, else 3."
    )
    weights: Path | None = option(
        None,
        "Initial weights of the encoder: a .safetensors or .pth file in any layout that timm knows, or a checkpoint "
        "artefact (.h5). none: as the CAM network's.",
        role="input",
    )
    pretrained: bool = option(
        True, "Begin with the backbone's own weights, or download them, where no file is given or known."
    )
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
