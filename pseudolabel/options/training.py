"""The settings that trainings share, and those of train-cam and train-segmenter."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from pseudolabel.options.base import DatasetOptions, LaterOptions, Mixin, StageOptions
from pseudolabel.options.fields import Channels, Range, Share, Stride, as_word, option, reads


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
    decay_all: bool = option(
        False,
        "Weight decay on biases, norms, token embeddings and heads that do not learn yet, too, as in the released code "
        "of CoSA.",
        panel="rare",
    )
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
    channels_last: bool | None = option(
        None,
        "Channels-last memory format, which is faster. none: on a CPU only for the backbone families that "
        "were tried in it, on an accelerator always.",
        role="execution",
        panel="rare",
    )
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

    backbone: str = option(
        "vit_small_patch16_224", "A timm backbone: its name, hf-hub:ORG/MODEL, or local-dir:FOLDER with a config.json."
    )
    in_chans: Channels = option(3, "Input channels of the backbone. 1: images are converted to grey.", panel="rare")
    weights: Path | None = option(
        None,
        "Initial weights: a .safetensors or .pth file in any layout that timm knows, or a checkpoint artefact (.h5). "
        "none: the backbone's own.",
        role="input",
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

    pooling: Literal["gap", "gmp"] | None = option(
        None,
        "Global pooling of the features before the classifier: average (gap) or maximum (gmp). none: maximum for plain "
        "ViTs, average for other backbones.",
        panel="rare",
    )
    normalisation: Literal["backbone", "imagenet"] = option(
        "backbone",
        "Mean and standard deviation of the input. backbone: those of its pretraining; imagenet: ImageNet's, as in "
        "the released code of ToCo and CoSA.",
        panel="rare",
    )
    position_embedding: Literal["trained", "frozen"] = option(
        "trained",
        "Position embedding of a plain ViT. frozen: not trained, and resized without antialiasing, as in the "
        "released code of ToCo and CoSA.",
        panel="rare",
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


class MaskTrainingOptions(TrainingOptions, LaterOptions):
    """A training on masks of an earlier stage, with the backbone that made them or another."""

    masks: Path = reads("masks.h5, or the folder that holds it.", kind="masks")
    backbone: str | None = option(
        None,
        "A timm backbone: its name, hf-hub:ORG/MODEL, or local-dir:FOLDER. none: the backbone that made the masks.",
    )
    in_chans: Channels | None = option(
        None,
        "Input channels of the backbone. 1: images are converted to grey. none: those of the CAM network, else 3.",
        panel="rare",
    )
    weights: Path | None = option(
        None,
        "Initial weights of the encoder: a .safetensors or .pth file in any layout that timm knows, or a checkpoint "
        "artefact (.h5). none: those that the CAM network started from.",
        role="input",
    )
    pretrained: bool = option(True, "Let timm download pretrained weights if no file is given or known.")
    holdout: Share = option(
        0.0, "Fraction of the images to hold out from training, to measure agreement with their masks."
    )
    freeze: Share = option(0.0, "Fraction of the backbone's parameters to freeze, counted from the input.")
    on_error: Literal["stop", "skip"] = option(
        "stop", "What to do with an unreadable image: stop, or skip it and record it in the artefact.", panel="rare"
    )


class TrainAffinityOptions(MaskTrainingOptions):
    """Settings of ``train-affinity``."""

    form: Literal["features", "attention"] = option(
        "features",
        "features: distance of trained features, as in PSA; attention: weighted attention scores of a plain ViT, which "
        "itself is not trained, as in AFA.",
    )
    earlier: int = option(
        -3,
        "Earlier block of a plain ViT, or stage of a CNN, that --form features also reads, counted from the end.",
        panel="rare",
        lt=-1,
    )
    output_stride: Stride | None = option(
        None, "Output stride of a CNN; later layers are dilated. none: that of the CAM network.", panel="rare"
    )
    radius: int = option(5, "Distance in cells below which two cells are a pair.", ge=2, le=32)


class TrainSegmenterOptions(AverageOptions, MaskTrainingOptions):
    """Settings of ``train-segmenter``."""

    decoder: Literal[
        "largefov", "unet", "unetplusplus", "fpn", "pspnet", "manet", "linknet", "pan", "deeplabv3", "deeplabv3plus",
        "upernet", "segformer", "dpt",
    ] = option("largefov", "largefov, or a decoder of segmentation_models_pytorch.")  # fmt: skip
    balanced: bool = option(
        False, "Average the loss over background and over foreground pixels separately, so that both weigh the same."
    )
