"""What stages share: where the output goes, where a data set enters the chain."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from pseudolabel.options.fields import Meanings, PixelValues, is_optional, is_repeated, option, role_of

DatasetName = Literal["voc", "coco", "folder", "synthetic"]
TagSource = Literal["auto", "xml", "csv", "folders", "instances", "masks", "weak"]


class Mixin(BaseModel):
    """Settings that models of stages share; not to be built alone, so that no import builds their validators."""

    model_config = ConfigDict(defer_build=True)


class DeviceOptions(Mixin):
    """Where a network computes."""

    device: str = option(
        "auto",
        "Device: auto (an accelerator if there is one), cpu, cuda, mps or xpu; cuda:N and xpu:N choose one of several.",
        role="execution",
        pattern=r"^(auto|cpu|mps|(cuda|xpu)(:\d+)?)$",
    )


class StageOptions(DeviceOptions):
    """What every stage takes. Unknown names are errors that name the nearest known one."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True, defer_build=True)

    writes_folder: ClassVar[bool] = False

    out: Path = option(
        ...,
        "Artefact to write: a .h5 file, or a folder for export-masks and predict-masks.",
        role="execution",
        panel="input",
    )
    seed: int = option(0, "Seed of all random numbers.", panel="execution", ge=0, le=2**32 - 1)
    workers: int | None = option(
        None, "Worker processes; 0 or 1: work in the main process. none: one per CPU core.", role="execution", ge=0
    )
    overwrite: bool = option(
        False, "Replace an existing output, and start a half-finished one from scratch.", role="execution"
    )

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
        target = os.path.realpath(self.artefact)  # Path.resolve may raise at a loop of links
        for name in type(self).model_fields:
            given = getattr(self, name) if role_of(type(self), name) == "input" else None
            for path in given if isinstance(given, tuple) else (given,):
                if path is not None and target in (os.path.realpath(path), os.path.realpath(path / "masks.h5")):
                    raise ValueError(f"--out would replace the input {path}; choose another place")
        return self

    @property
    def artefact(self) -> Path:
        """The file that says how the output was made: ``out`` itself, or ``masks.h5`` in the folder ``out``."""
        return self.out / "masks.h5" if self.writes_folder else self.out

    def resolved(self) -> dict[str, Any]:
        """Every setting as plain JSON data, defaults filled in, paths with ``/`` on every system."""
        paths: dict[str, Any] = {name: value.as_posix() for name, value in self if isinstance(value, Path)}
        for name, value in self:
            if value is not None and is_repeated(type(self), name):
                paths[name] = [path.as_posix() for path in value]
        return self.model_dump(mode="json") | paths

    def meaning(self) -> dict[str, Any]:
        """The settings of role ``option``: equal meanings on equal inputs make equal artefacts."""
        return {name: value for name, value in self.resolved().items() if role_of(type(self), name) == "option"}


class MaskValueOptions(Mixin):
    """What the values in mask files mean, where they are not class indices with 255 ignored."""

    mask_values: Meanings | None = option(
        None,
        "Classes of the values in the masks: VALUE=CLASS[,VALUE=CLASS...], such as 255=lesion; 0 is background, other "
        "values are errors. none: values are class indices.",
        panel="rare",
    )
    ignore_value: PixelValues | None = option(
        None, "Values of ignored pixels in the masks. none: 255, unless it stands for a class.", panel="rare"
    )


class DataOptions(MaskValueOptions):
    """Which data set, which part of it, and where its tags come from."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, defer_build=True)

    dataset: DatasetName = option(
        "voc", "Layout of the data set: Pascal VOC, COCO, image folder or synthetic.", panel="input"
    )
    root: Path | None = option(
        None, "Folder of the data set. With --dataset synthetic, it is created if it is missing.", role="input"
    )
    split: str = option(
        "train", "Split to use: a list file of the data set, or a path to any list of image ids.", panel="input"
    )
    tag_source: TagSource = option(
        "auto",
        "Source of the image tags. auto: the layout's own weak source (xml, instances, csv or folders); "
        "weak: the classes of the scribbles, points and boxes; masks: the pixel masks, which marks every "
        "result as oracle.",
        panel="input",
    )
    tags_file: Path | None = option(
        None, "CSV file of image tags, one line per image: id,class[;class...].", role="input"
    )


class PhotographOptions(DataOptions):
    """How photographs are read: asked for once, where the data set enters the chain."""

    alpha: Literal["composite", "drop"] = option(
        "composite",
        "Alpha of photographs. composite: transparent pixels are seen on white; drop: the colours count as stored, for "
        "alpha that is data, such as near infrared.",
    )
    photo_range: int | None = option(
        None,
        "Value of 16-bit photographs that is white, such as 4095 for 12 bits. none: 65535, of which the high byte is "
        "kept.",
        ge=1,
        le=65535,
    )


class WeakLabelOptions(DataOptions):
    """Weak labels beside the tags, in any mixture: asked for once, where the data set enters the chain."""

    scribbles: Path | None = option(
        None, "Folder of scribbles: ID.png (255 is unlabelled), or ID.xml in ScribbleSup's format.", role="input"
    )
    points: Path | None = option(
        None, "Point labels: a CSV file of id,class,x,y, or the JSON file of What's the Point.", role="input"
    )
    boxes: Path | None = option(
        None, "Bounding boxes: a folder of VOC annotations (ID.xml), or a COCO instances JSON file.", role="input"
    )


class DatasetOptions(PhotographOptions, StageOptions):
    """Where a data set enters the chain. Later stages read it from their input artefact."""

    on_error: Literal["stop", "skip"] = option(
        "stop", "What to do with an unreadable image: stop, or skip it and record it in the artefact.", panel="rare"
    )


class LaterOptions(StageOptions):
    """A stage that reads its data set from its input artefact; only the folder may have moved."""

    root: Path | None = option(None, "Folder of the data set, if it has moved since the input was made.", role="input")
