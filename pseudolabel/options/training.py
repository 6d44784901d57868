"""The settings of the training stages."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from pseudolabel.options.base import DatasetOptions, LaterOptions, Mixin, StageOptions, WeakLabelOptions
from pseudolabel.options.fields import Range, Scales, Seconds, Share, Stride, as_word, option, reads


class TrainingOptions(StageOptions):
    """What every training shares: the optimiser, the schedule, the crops and the number formats."""

    crop: int = option(224, "Side of a square training crop, in pixels.", ge=16, le=4096)
    crop_area: Range = option(
        (0.3, 1.0), "Smallest and largest area of a crop, as fractions in (0, 1] of the image's area."
    )
    jitter: float = option(0.3, "Strength of the random jitter of brightness, contrast and saturation.", ge=0, le=1)
    epochs: int = option(10, "Passes over the training images.", ge=1)
    steps: int | None = option(None, "Optimiser steps, in place of --epochs. none: as many as the epochs take.", ge=1)
    batch_size: int = option(8, "Effective batch size: images per optimiser step.", ge=1)
    micro_batch: int | None = option(
        None,
        "Images per forward pass; gradients are accumulated up to the batch size. none: the whole batch at once.",
        ge=1,
    )
    recipe_batch: int | None = option(
        None,
        "Batch size that the learning rate was tuned for; another --batch-size gives a warning. none: no warning.",
        panel="rare",
        ge=1,
    )
    learning_rate: float = option(6e-5, "AdamW's peak learning rate, for the backbone.", gt=0)
    head_rate: float = option(10.0, "Factor on the learning rate for the randomly initialised heads.", gt=0)
    weight_decay: float = option(0.01, "AdamW's weight decay.", ge=0)
    layer_decay: float | None = option(
        None,
        "Factor on the learning rate from each backbone layer to the one before it. none: one rate for all layers.",
        panel="rare",
        gt=0,
        lt=1,
    )
    clip_gradients: float | None = option(
        None,
        "Largest norm of the whole batch's gradient, to which a larger one is scaled down. none: no clipping.",
        panel="rare",
        gt=0,
    )
    warmup: Share = option(0.05, "Fraction of the steps over which the learning rate warms up linearly.", panel="rare")
    decay_power: float = option(0.9, "Power of the polynomial decay of the learning rate to zero.", panel="rare", ge=0)
    precision: Literal["auto", "float32", "bfloat16"] = option(
        "auto", "Number format of the forward pass. auto: bfloat16 where the hardware supports it, else float32."
    )
    sync_batchnorm: bool = option(
        False,
        "Batch normalisation over the images of all processes, each with its GPU. Never run on GPUs so far.",
        panel="rare",
    )
    channels_last: bool = option(True, "Use the channels-last memory format, for speed.", panel="rare")
    log: bool = option(
        True, "Write training curves to the folder OUT.log, as CSV and for TensorBoard.", role="execution"
    )
    save_every: int = option(
        100,
        "Steps between saved states, from which an interrupted training resumes.",
        role="execution",
        panel="rare",
        ge=1,
    )
    resume_changed: bool = option(
        False,
        "Resume a training that began with other options or inputs; the checkpoint records it.",
        role="execution",
        panel="rare",
    )

    @model_validator(mode="after")
    def _batches_divide(self) -> TrainingOptions:
        if self.micro_batch is not None and self.batch_size % self.micro_batch:
            raise ValueError(f"--batch-size {self.batch_size} is not a multiple of --micro-batch {self.micro_batch}")
        if not 0 < self.crop_area[0] <= self.crop_area[1] <= 1:
            raise ValueError(f"--crop-area {as_word(self.crop_area)} is not an increasing pair of shares in (0, 1]")
        return self


class AverageOptions(Mixin):
    """What is kept of a training."""

    ema: float | None = option(
        None,
        "Decay of an exponential moving average (EMA) of the weights, which is kept as the result. none: "
        "keep the last weights.",
        gt=0,
        lt=1,
    )


class BackboneOptions(TrainingOptions, DatasetOptions):
    """A training that begins with a data set and a backbone."""

    backbone: str = option("vit_small_patch16_224", "Name of any timm model.")
    weights: Path | None = option(
        None, "Initial weights: a .safetensors file, or a checkpoint artefact (.h5). none: timm's own.", role="input"
    )
    pretrained: bool = option(True, "Let timm download pretrained weights if --weights is not given.")
    output_stride: Stride | None = option(
        None, "Output stride of a CNN; later layers are dilated. none: the backbone's own.", panel="rare"
    )
    freeze: Share = option(0.0, "Fraction of the backbone's parameters to freeze, counted from the input.")
    holdout: Share = option(
        0.1, "Fraction of the split to hold out from training, to measure the mAP of its image tags."
    )


class ClassifierOptions(BackboneOptions):
    """A network that learns image tags, and whose maps say where: what train-cam and train-cosa share."""

    pooling: Literal["gap", "gmp"] = option(
        "gap", "Global pooling of the CAMs: average (gap) or maximum (gmp).", panel="rare"
    )
    auxiliary_block: int | None = option(
        -3,
        "Block of a plain ViT that the auxiliary classifier reads, counted from the end. none: no auxiliary "
        "classifier.",
        panel="rare",
        lt=0,
    )


class WatchedOptions(BackboneOptions):
    """A training of a segmenter that can be looked at, and scored by masks, while it goes on."""

    picture_every: int | None = option(
        200,
        "Steps between pictures of a batch in OUT.log: CAMs, labels and predictions. none: no pictures.",
        role="execution",
        panel="rare",
        ge=1,
    )
    validate_on: str | None = option(
        None,
        "Split to score against its masks after every epoch, or held-out for the held-out part of this one. "
        "Scores used to choose are marked oracle. none: no validation.",
    )
    keep: Literal["last", "best"] = option(
        "last",
        "Weights to keep. last: those of the last step; best: those with the highest mIoU on --validate-on, "
        "marked oracle.",
    )

    @model_validator(mode="after")
    def _split_is_there(self) -> WatchedOptions:
        if self.keep == "best" and self.validate_on is None:
            raise ValueError("--keep best needs --validate-on, the split whose masks choose")
        if self.validate_on == "held-out" and not self.holdout:
            raise ValueError("--validate-on held-out needs a --holdout above 0")
        return self


class TrainCamOptions(AverageOptions, ClassifierOptions):
    """Settings of ``train-cam``."""


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
    threshold: Literal["mixture", "released", "fixed"] = option(
        "mixture",
        "How CAMs are thresholded into labels. mixture: by two Gaussians fitted to the teacher's scores at "
        "every step; released: by the three-component rule of CoSA's released code; fixed: by --low and "
        "--high throughout.",
    )
    low: Share = option(0.25, "Score below which a pixel is background, until the first fit.")
    high: Share = option(0.7, "Score from which on a pixel is foreground, until the first fit.")
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
        if self.crop_scale is not None and not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 8:
            raise ValueError(f"--crop-scale {as_word(self.crop_scale)} is not an increasing pair of factors in (0, 8]")
        return self


class TrainScribbleOptions(AverageOptions, WatchedOptions, WeakLabelOptions):
    """Settings of ``train-scribble``."""

    holdout: Share = option(
        0.0, "Fraction of the split to hold out from training, to measure agreement with its labels."
    )
    supervision: Literal["weak", "masks"] = option(
        "weak",
        "Labels to train on. weak: the weak labels given; masks: the pixel masks of all images, an upper "
        "bound marked oracle.",
    )
    mask_list: Path | None = option(
        None,
        "List of image ids to train on their pixel masks, with weak labels on all others; marked oracle.",
        role="input",
    )
    cams: Path | None = option(
        None, "CAMs or soft labels of the same images, for --objectness and --fill.", role="input"
    )
    width: int = option(3, "Diameter of points and of XML strokes, in pixels of the image.", panel="rare", ge=1, le=64)
    by_image: bool = option(
        False,
        "Average the partial cross-entropy within each image first, so that images weigh the same; otherwise "
        "all labelled pixels do.",
        panel="rare",
    )
    regulariser: Literal["none", "densecrf", "normalised-cut", "kernel-cut", "gated-crf", "dfr"] = option(
        "dfr", "Loss on unlabelled pixels. dfr is the dynamic feature regularised loss, with feature consistency."
    )
    regulariser_weight: float | None = option(
        None, "Weight of the regulariser; 0: off. none: its default, which for densecrf is 2e-9 (513 / crop)^4.", ge=0
    )
    start: Share = option(0.2, "Fraction of the steps, at the start, without the regulariser.")
    ramp: Share = option(0.2, "Fraction of the steps over which the regulariser's weight then rises to its full value.")
    sigma_xy: float | None = option(
        None,
        "Standard deviation of the kernel in position, in pixels of the crop. none: the regulariser's default.",
        panel="rare",
        ge=0.1,
        le=1e6,
    )
    sigma_rgb: float | None = option(
        None,
        "Standard deviation of the kernel in colour, in grey levels of 0-255. none: the regulariser's default.",
        panel="rare",
        ge=0.01,
        le=1e6,
    )
    map_scale: float | None = option(
        None,
        "Size of the regularised maps relative to the crop. none: the regulariser's default.",
        panel="rare",
        gt=0,
        le=1,
    )
    sigma_embedding: float | None = option(
        0.5,
        "Standard deviation of dfr's kernel in its embedding. none: a kernel in position and colour only.",
        panel="rare",
        ge=0.01,
        le=1e6,
    )
    embedding: int = option(8, "Dimensions of dfr's embedding.", panel="rare", ge=1, le=256)
    consistency: float | None = option(0.1, "Weight of dfr's feature consistency loss. none: off.", ge=0)
    confidence: Share | None = option(
        0.9,
        "Lowest probability at which a prediction labels a cell for the consistency loss. none: only "
        "labelled cells count.",
        panel="rare",
    )
    cells: int = option(64, "Feature-map cells per image whose embeddings are compared.", panel="rare", ge=2, le=4096)
    exclusion: float | None = option(
        None, "Weight of the loss on classes where tags or boxes rule them out. none: off.", ge=0
    )
    presence: float | None = option(
        None, "Weight of the loss on tagged classes that have no label in their image. none: off.", ge=0
    )
    objectness: float | None = option(
        None,
        "Weight of the loss that fits foreground probability to the objectness of --cams, except in images "
        "with masks. none: off.",
        ge=0,
    )
    fill: Range | None = option(
        None,
        "Low and high CAM score inside a box, relative to the maximum there. Below the low one a pixel is "
        "background; from the high one on it has the box's class. none: boxes label no pixels inside.",
    )
    annotation_seconds: Seconds = option(
        (20.0, 22.1, 34.9, 38.1, 239.7),
        "Seconds to annotate an image with tags, points, scribbles, boxes and a mask, to report the cost of labels.",
        role="execution",
        panel="rare",
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
    """Settings of ``train-segmenter``."""

    masks: Path = reads("masks.h5, or the folder that holds it.", kind="masks")
    backbone: str | None = option(None, "Name of any timm model. none: the backbone that made the masks.")
    weights: Path | None = option(
        None,
        "Initial weights of the encoder: a .safetensors file, or a checkpoint artefact (.h5). none: those "
        "that the CAM network started from.",
        role="input",
    )
    pretrained: bool = option(True, "Let timm download pretrained weights if no file is given or known.")
    decoder: Literal[
        "largefov", "unet", "unetplusplus", "fpn", "pspnet", "manet", "linknet", "pan", "deeplabv3", "deeplabv3plus",
        "upernet", "segformer", "dpt",
    ] = option("largefov", "largefov, or a decoder of segmentation_models_pytorch.")  # fmt: skip
    balanced: bool = option(
        False, "Average the loss over background and over foreground pixels separately, so that both weigh the same."
    )
    holdout: Share = option(
        0.0, "Fraction of the images to hold out from training, to measure agreement with their masks."
    )
    freeze: Share = option(0.0, "Fraction of the backbone's parameters to freeze, counted from the input.")
    on_error: Literal["stop", "skip"] = option(
        "stop", "What to do with an unreadable image: stop, or skip it and record it in the artefact.", panel="rare"
    )
