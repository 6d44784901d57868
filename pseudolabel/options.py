"""Every setting of every stage, once: its default, bounds and help text.

These models make the command line's flags, validate the pipelines' YAML and are stored as JSON in the artefact that they
produced. This module imports no torch, so that ``--help`` stays quick.

A field has one of three roles, kept in its JSON schema under ``role``:

* ``input``: an earlier artefact or a location of data. What was read is recorded by digest, so a moved file is not a change.
* ``option``: changes what is computed. A stored artefact is fresh only while these are equal.
* ``execution``: where and how fast (output path, device, workers). Never makes an artefact stale.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticUndefined

from pseudolabel.errors import InputError

Role = Literal["input", "option", "execution"]
DatasetName = Literal["voc", "coco", "folder", "synthetic"]
TagSource = Literal["auto", "xml", "csv", "folders", "instances", "masks"]
CrfPreset = Literal["deeplab", "toco", "cosa", "afa", "toco-labels", "psa", "irn"]
IgnoredPolicy = Literal["background", "drop", "miss"]


def _split_commas(value: Any) -> Any:
    """Let ``"1,0.5"`` and a lone number stand for a list, as a flag must."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return [value] if isinstance(value, int | float) else value


Numbers = Annotated[tuple[Annotated[float, Field(gt=0)], ...], BeforeValidator(_split_commas)]
Range = Annotated[tuple[float, float], BeforeValidator(_split_commas)]
Share = Annotated[float, Field(ge=0, le=1)]


def _option(default: Any, help: str, *, role: Role = "option", positional: bool = False, **bounds: Any) -> Any:
    """Describe one setting; ``...`` as default makes it required."""
    return Field(default, description=help, json_schema_extra={"role": role, "positional": positional}, **bounds)


def _input(help: str, *, positional: bool = True, default: Any = ...) -> Any:
    return _option(default, help, role="input", positional=positional)


class StageOptions(BaseModel):
    """What every stage takes. Unknown names are errors that name the nearest known one."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)

    out: Path = _option(..., "Where to write the artefact.", role="execution")
    device: str = _option("auto", "auto, cpu, cuda or cuda:N.", role="execution", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    seed: int = _option(0, "Seed of everything random.", ge=0)
    workers: int | None = _option(None, "Worker processes; none: one a core.", role="execution", ge=0)
    overwrite: bool = _option(
        False, "Replace an existing output, and start a half-finished one anew.", role="execution"
    )

    @model_validator(mode="before")
    @classmethod
    def _none_is_a_word(cls, values: Any) -> Any:
        """A flag cannot carry null: ``--weights none`` means None wherever None is allowed."""
        if not isinstance(values, Mapping):
            return values
        return {k: None if v == "none" and k in cls.model_fields and is_optional(cls, k) else v for k, v in values.items()}

    def resolved(self) -> dict[str, Any]:
        """Every setting as plain JSON data, defaults filled in."""
        return self.model_dump(mode="json")

    def meaning(self) -> dict[str, Any]:
        """The settings of role ``option``: equal meanings on equal inputs make equal artefacts."""
        return {name: value for name, value in self.resolved().items() if role_of(type(self), name) == "option"}


class DatasetOptions(StageOptions):
    """Where a data set enters the chain. Later stages read it from their input artefact."""

    dataset: DatasetName = _option("voc", "Layout of the data set.")
    root: Path | None = _option(None, "Folder of the data set (not needed for synthetic).", role="input")
    split: str = _option("train", "Name of a list file of the data set, or a path to any list of ids.")
    tag_source: TagSource = _option(
        "auto",
        "Where image tags come from. auto: the layout's own weak source (xml, instances, csv or folders); "
        "masks reads the pixel masks and marks every result oracle.",
    )
    tags_file: Path | None = _option(None, "CSV of image tags: id,class[;class...].", role="input")
    on_error: Literal["stop", "skip"] = _option(
        "stop", "What an unreadable image does: stop, or skip it and record it in the artefact."
    )


class LaterOptions(StageOptions):
    """A stage that reads its data set from its input artefact; only the folder may have moved."""

    root: Path | None = _option(None, "Where the data set lies now, if it has moved.", role="input")


class TrainingOptions(BaseModel):
    """What every training shares: the optimiser, the schedule, the views and the number formats."""

    crop: int = _option(224, "Side of a square training view, in pixels.", ge=16, le=4096)
    view_area: Range = _option((0.3, 1.0), "Smallest and largest share of an image's area that a view covers.")
    jitter: float = _option(0.3, "Strength of random brightness, contrast and saturation.", ge=0, le=1)
    epochs: int = _option(10, "Passes over the training images.", ge=1)
    batch_size: int = _option(8, "Effective batch: images per optimiser step.", ge=1)
    micro_batch: int | None = _option(
        None, "Images per forward pass; gradients accumulate up to the batch size. none: all at once.", ge=1
    )
    recipe_batch: int | None = _option(
        None, "Effective batch that the learning rate was chosen for; another one is warned about. none: the same.", ge=1
    )
    learning_rate: float = _option(6e-5, "AdamW's peak rate for the backbone.", gt=0)
    head_rate: float = _option(10.0, "Factor on the rate for the heads, which start from nothing.", gt=0)
    weight_decay: float = _option(0.01, "AdamW's weight decay.", ge=0)
    warmup: Share = _option(0.05, "Share of the steps in which the rate rises linearly.")
    decay_power: float = _option(0.9, "Power of the polynomial decay to zero.", ge=0)
    ema: float | None = _option(
        None, "Decay of an exponential average of the weights, which is then what is kept. none: off.", gt=0, lt=1
    )
    precision: Literal["auto", "float32", "bfloat16"] = _option(
        "auto", "Number format of the forward pass; auto is bfloat16 where the hardware computes in it."
    )
    channels_last: bool = _option(True, "Keep images in channels-last memory order, which is faster.")
    save_every: int = _option(
        100, "Steps between two states that a killed training resumes from.", role="execution", ge=1
    )

    @model_validator(mode="after")
    def _batches_divide(self) -> TrainingOptions:
        if self.micro_batch is not None and self.batch_size % self.micro_batch:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of micro_batch {self.micro_batch}")
        if not 0 < self.view_area[0] <= self.view_area[1] <= 1:
            raise ValueError(f"view_area {self.view_area} is not an increasing pair of shares in (0, 1]")
        return self


class TrainCamOptions(TrainingOptions, DatasetOptions):
    """Train a classification network on image tags, whose class activation maps later stages use."""

    backbone: str = _option("vit_small_patch16_224", "Name of any timm backbone.")
    weights: Path | None = _option(
        None, "Initial weights: a .safetensors file or a checkpoint artefact (.h5). none: timm's own.", role="input"
    )
    pretrained: bool = _option(True, "Let timm download its weights where no file is given.")
    output_stride: Literal[8, 16, 32] | None = _option(
        None, "Stride of a CNN's last feature map (dilates what comes after). none: the backbone's own."
    )
    pooling: Literal["gap", "gmp"] = _option("gap", "Global average or global max pooling of the maps.")
    auxiliary_block: int | None = _option(
        -3, "Block of a plain ViT that a second classifier reads, counted from the end. none: no auxiliary head.", lt=0
    )
    freeze: Share = _option(0.0, "Share of the backbone's parameters, from the input on, that stays as loaded.")
    holdout: Share = _option(0.1, "Share of the split that is kept from training to measure the tag mAP on.")


class MakeCamsOptions(LaterOptions):
    """Compute class activation maps of a split: several scales and mirrored, normalised per class to [0, 1]."""

    checkpoint: Path = _input("Checkpoint of train-cam.")
    split: str = _option("train", "List file of the data set, or a path to any list of ids.")
    head: Literal["main", "auxiliary", "mean"] | None = _option(
        None, "Which classifier's maps. none: the auxiliary one where there is one."
    )
    tags: Literal["dataset", "predicted"] = _option(
        "dataset", "Classes to make maps for: the image tags, or the network's own predictions."
    )
    tag_threshold: Share = _option(0.5, "Probability above which a predicted tag counts; the best one always does.")
    size: int | None = _option(None, "Long side of an image at scale 1, in pixels. none: twice the training crop.", ge=16)
    scales: Numbers = _option((1.0, 0.5, 1.5, 0.75, 1.25), "Scales whose maps are summed.")
    flip: bool = _option(True, "Take the maximum with the mirrored image's map.")
    normalise: Literal["minmax", "max"] = _option(
        "minmax", "Subtract each map's minimum and divide by its maximum, or only divide."
    )
    batch_size: int = _option(16, "Images of one size per forward pass.", role="execution", ge=1)
    precision: Literal["auto", "float32", "bfloat16"] = _option("auto", "Number format of the forward pass.")
    on_error: Literal["stop", "skip"] = _option("stop", "What an unreadable image does.")


class ImportCamsOptions(DatasetOptions):
    """Read others' CAMs: a folder of IRN-style .npy dictionaries, unpickling restricted to NumPy arrays."""

    cams: Path = _input("Folder of ID.npy files.")
    array: str = _option("high_res", "Key of the maps in each dictionary (IRN: high_res or cam).")
    keys: str = _option("keys", "Key of the class numbers; object classes count from 0.")
    grid: int | None = _option(
        64, "Long side to which maps are reduced before they are stored. none: keep their own size.", ge=1
    )


class SearchThresholdOptions(LaterOptions):
    """Choose the score below which a pixel is background: without masks, as an oracle sweep, or fixed."""

    cams: Path = _input("CAMs of make-cams or import-cams.")
    method: Literal["mixture", "released", "sweep", "fixed"] = _option(
        "mixture",
        "mixture: two Gaussians fitted to the maps' values, no mask needed; released: CoSA's three-component rule; "
        "sweep: best mIoU against the masks, marked oracle; fixed: the value given.",
    )
    value: Share = _option(0.4, "The threshold of method fixed.")
    low: Share | None = _option(None, "Also store a lower threshold, below which a pixel is surely background.")
    high: Share | None = _option(None, "Also store a higher threshold, above which a pixel is surely foreground.")
    per_class: bool = _option(False, "One threshold a class instead of one for all.")
    minimum: Share = _option(0.05, "Values up to this one are dropped before a mixture is fitted.")


class CrfOptions(BaseModel):
    """The dense CRF's settings: a named preset, and each of its numbers."""

    preset: CrfPreset = _option("irn", "Named settings of a published system; single numbers below override it.")
    iterations: int | None = _option(None, "Mean-field iterations. none: the preset's.", ge=1, le=1000)
    spatial_xy: float | None = _option(None, "Width of the spatial kernel, pixels.", gt=0)
    spatial_weight: float | None = _option(None, "Weight of the spatial kernel.", ge=0)
    bilateral_xy: float | None = _option(None, "Width of the bilateral kernel in position, pixels.", gt=0)
    bilateral_rgb: float | None = _option(None, "Width of the bilateral kernel in colour, grey levels of 0-255.", gt=0)
    bilateral_weight: float | None = _option(None, "Weight of the bilateral kernel.", ge=0)
    unary: Literal["soft", "hard"] | None = _option(
        None, "Start from the scores as probabilities, or from the label map. none: the preset's."
    )
    gt_prob: float | None = _option(None, "How sure a hard label is. none: the preset's.", gt=0, lt=1)


class RefineCrfOptions(CrfOptions, LaterOptions):
    """Refine CAMs or predicted soft labels with a mean-field dense CRF on the original photographs."""

    cams: Path = _input("CAMs, or soft labels of predict-masks.")
    threshold: Path | None = _input("Thresholds of search-threshold; needed for CAMs.", positional=False, default=None)
    confidence: Literal["none", "irn", "cosa"] = _option(
        "none",
        "Leave unsure pixels unlabelled by the low and high thresholds: irn runs the CRF once with each, "
        "cosa compares the maps with both before one CRF.",
    )
    on_error: Literal["stop", "skip"] = _option("stop", "What an unreadable image does.")


class ExportMasksOptions(LaterOptions):
    """Write 8-bit palette PNG masks and masks.h5, with overlays, COCO RLE and a contact sheet on request."""

    labels: Path = _input("Soft labels, masks, or CAMs (then with --threshold).")
    threshold: Path | None = _input("Thresholds of search-threshold; needed for CAMs.", positional=False, default=None)
    dataset: DatasetName | None = _option(None, "Check that the labels are of this data set. none: take the artefact's.")
    overlays: int = _option(0, "How many images to draw: photograph, heat map, mask, ground truth side by side.", ge=0)
    contact_sheet: int = _option(0, "How many random images to show on one sheet.", ge=0, le=400)
    rle: bool = _option(False, "Also write coco.json with run-length encoded masks.")


class PredictionOptions(BaseModel):
    """How a segmenter looks at an image."""

    size: int | None = _option(None, "Long side of an image at scale 1, in pixels. none: twice the training crop.", ge=16)
    scales: Numbers = _option((1.0,), "Scales whose probabilities are averaged.")
    flip: bool = _option(True, "Average with the mirrored image.")


class TrainSegmenterOptions(TrainingOptions, LaterOptions):
    """Train a segmentation network on exported masks; pixels of value 255 teach nothing."""

    masks: Path = _input("masks.h5, or the folder that holds it.")
    backbone: str | None = _option(None, "Name of any timm backbone. none: the one that made the masks.")
    weights: Path | None = _option(
        None,
        "Initial weights of the encoder: a .safetensors file or a checkpoint artefact. none: as the CAM network's.",
        role="input",
    )
    pretrained: bool = _option(True, "Let timm download its weights where no file is given or known.")
    decoder: Literal[
        "largefov", "unet", "unetplusplus", "fpn", "pspnet", "manet", "linknet", "pan", "deeplabv3", "deeplabv3plus",
        "upernet", "segformer", "dpt",
    ] = _option("largefov", "largefov, or a decoder of segmentation_models_pytorch.")  # fmt: skip
    balanced: bool = _option(
        False, "Average the loss over background and over foreground pixels apart, so that both count the same."
    )
    holdout: Share = _option(0.0, "Share of the images kept from training, to measure agreement with their masks.")
    freeze: Share = _option(0.0, "Share of the backbone's parameters, from the input on, that stays as loaded.")


class PredictMasksOptions(PredictionOptions, CrfOptions, LaterOptions):
    """Predict masks of a split with a trained segmenter: soft.h5, masks.h5 and PNG files in one folder."""

    checkpoint: Path = _input("Checkpoint of train-segmenter.")
    split: str = _option("val", "List file of the data set, or a path to any list of ids.")
    tags: Literal["none", "dataset"] = _option(
        "none", "dataset removes classes that the image tags exclude: for pseudo labels, not for honest inference."
    )
    crf: bool = _option(False, "Refine the probabilities with a dense CRF.")
    batch_size: int = _option(16, "Images of one size per forward pass.", role="execution", ge=1)
    precision: Literal["auto", "float32", "bfloat16"] = _option("auto", "Number format of the forward pass.")
    on_error: Literal["stop", "skip"] = _option("stop", "What an unreadable image does.")


class EvaluateMasksOptions(StageOptions):
    """Score masks against ground truth, with everything that the number depends on beside it."""

    masks: Path = _input("Folder of PNG masks, masks.h5, or the folder of export-masks or predict-masks.")
    out: Path | None = _option(None, "Where to write the scores. none: scores.h5 beside the masks.", role="execution")
    dataset: DatasetName | None = _option(None, "Layout of the data set. none: as the masks say.")
    root: Path | None = _option(None, "Folder of the data set. none: as the masks say.", role="input")
    split: str | None = _option(None, "List file of the data set, or a path to any list of ids. none: as the masks say.")
    ignored: IgnoredPolicy = _option(
        "background", "What a predicted 255 counts as: background (IRN), drop (ToCo, CoSA) or miss (SEAM, MCTformer)."
    )
    boundary: float | None = _option(
        0.02, "Boundary IoU's distance as a share of the image diagonal. none: leave it out.", gt=0, lt=1
    )
    resamples: int = _option(1000, "Bootstrap resamples of the images for the 95 % interval; 0: none.", ge=0, le=100_000)
    worst: int = _option(5, "How many of the worst images to name.", ge=0)


STAGES: dict[str, type[StageOptions]] = {
    "train-cam": TrainCamOptions,
    "make-cams": MakeCamsOptions,
    "import-cams": ImportCamsOptions,
    "search-threshold": SearchThresholdOptions,
    "refine-crf": RefineCrfOptions,
    "export-masks": ExportMasksOptions,
    "train-segmenter": TrainSegmenterOptions,
    "predict-masks": PredictMasksOptions,
    "evaluate-masks": EvaluateMasksOptions,
}
"""The one list of stages. The function of ``a-b`` is ``pseudolabel.stages.a_b.a_b``."""


def role_of(model: type[BaseModel], name: str) -> Role:
    """The role of one field of an options model."""
    extra = model.model_fields[name].json_schema_extra
    return extra["role"] if isinstance(extra, dict) else "option"  # type: ignore[return-value]


def is_positional(model: type[BaseModel], name: str) -> bool:
    """Whether the command line takes this field by position."""
    extra = model.model_fields[name].json_schema_extra
    return bool(isinstance(extra, dict) and extra.get("positional"))


def is_optional(model: type[BaseModel], name: str) -> bool:
    """Whether None is a valid value of this field."""
    annotation = model.model_fields[name].annotation
    union = get_origin(annotation) is Union or type(annotation).__name__ == "UnionType"
    return union and type(None) in get_args(annotation)


def default_of(model: type[BaseModel], name: str) -> Any:
    """A field's default, or ``...`` where it is required."""
    default = model.model_fields[name].default
    return ... if default is PydanticUndefined else default


def nearest(word: str, known: list[str] | tuple[str, ...]) -> str:
    """`` (did you mean 'x'?)`` for a misspelt word, or nothing where no known word is near."""
    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def build_options(stage: str, values: Mapping[str, Any], *, where: str = "") -> StageOptions:
    """Validate settings of a stage; dashes and underscores in names mean the same.

    Args:
        stage: A key of STAGES.
        values: Settings by name, as a YAML file or the command line gives them.
        where: What the settings came from, to begin the error with.

    Raises:
        InputError: An unknown name or a wrong value, in one line that names the setting.
    """
    model = STAGES[stage]
    plain = {key.replace("-", "_"): value for key, value in values.items()}
    for key in plain:
        if key not in model.model_fields:
            flag = key.replace("_", "-")
            hint = nearest(key, list(model.model_fields)).replace("_", "-")
            raise InputError(f"{where or stage}: unknown option {flag!r}{hint}; see 'pseudolabel {stage} --help'")
    try:
        return model.model_validate(plain)
    except ValidationError as error:
        raise InputError(f"{where or stage}: {describe(error)}") from None


def describe(error: ValidationError) -> str:
    """The first complaint of a validation as one line: flag, what was wanted, what was found."""
    first = error.errors()[0]
    flag = "--" + str(first["loc"][0]).replace("_", "-") if first["loc"] else ""
    if first["type"] == "missing":
        return f"{flag} is required"
    text = first["msg"].removeprefix("Value error, ")
    text = text[0].lower() + text[1:]
    return f"{flag}: {text}, found {first['input']!r}" if flag else text
