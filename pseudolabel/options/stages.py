"""The list of stages, and settings by name: from words to options and back."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from pseudolabel.errors import InputError
from pseudolabel.options.base import StageOptions
from pseudolabel.options.fields import as_word, default_of, is_positional, nearest, validated
from pseudolabel.options.masks import (
    EvaluateMasksOptions,
    ExportMasksOptions,
    ImportCamsOptions,
    MakeCamsOptions,
    PredictMasksOptions,
    RefineCrfOptions,
    SearchCrfOptions,
    SearchThresholdOptions,
)
from pseudolabel.options.training import TrainCamOptions, TrainCosaOptions, TrainScribbleOptions, TrainSegmenterOptions

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
