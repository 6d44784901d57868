"""The list of stages, and settings by name: from words to options and back."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pseudolabel.errors import InputError
from pseudolabel.options.fields import as_word, default_of, flag_of, is_positional, is_repeated, nearest, validated

if TYPE_CHECKING:
    from pseudolabel.options.base import StageOptions


class Stages(Mapping[str, "type[StageOptions]"]):
    """The options model of every stage; a model is imported when it is asked for, so that one command's help is quick.

    Args:
        places: Module in this package and name of each model.
    """

    def __init__(self, places: Mapping[str, tuple[str, str]]) -> None:
        self._places = places

    def __getitem__(self, stage: str) -> type[StageOptions]:
        module, name = self._places[stage]
        model: type[StageOptions] = getattr(import_module(f"pseudolabel.options.{module}"), name)
        return model

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


STAGES = Stages(
    {
        "train-cam": ("training", "TrainCamOptions"),
        "train-cosa": ("cosa", "TrainCosaOptions"),
        "train-scribble": ("scribble", "TrainScribbleOptions"),
        "train-semi": ("semi", "TrainSemiOptions"),
        "make-cams": ("masks", "MakeCamsOptions"),
        "import-cams": ("masks", "ImportCamsOptions"),
        "train-affinity": ("training", "TrainAffinityOptions"),
        "refine-affinity": ("refiners", "RefineAffinityOptions"),
        "make-regions": ("regions", "MakeRegionsOptions"),
        "import-regions": ("regions", "ImportRegionsOptions"),
        "search-threshold": ("masks", "SearchThresholdOptions"),
        "search-crf": ("refiners", "SearchCrfOptions"),
        "refine-crf": ("refiners", "RefineCrfOptions"),
        "refine-par": ("refiners", "RefineParOptions"),
        "vote-regions": ("regions", "VoteRegionsOptions"),
        "export-masks": ("masks", "ExportMasksOptions"),
        "import-masks": ("masks", "ImportMasksOptions"),
        "train-segmenter": ("training", "TrainSegmenterOptions"),
        "predict-masks": ("masks", "PredictMasksOptions"),
        "evaluate-masks": ("masks", "EvaluateMasksOptions"),
    }
)
"""The one list of stages. The function of ``a-b`` is ``pseudolabel.stages.a_b.a_b``."""


def command_line(stage: str, options: StageOptions) -> str:
    """The command that runs a stage with these settings; defaults are left out."""
    model = type(options)
    words, flags = ["pseudolabel", stage], []
    for name in model.model_fields:
        value, flag = getattr(options, name), flag_of(name)
        if is_positional(model, name):
            words.append(as_word(value))
        elif value == default_of(model, name):
            continue
        elif isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        elif value is not None and is_repeated(model, name):
            flags += [word for path in value for word in (f"--{flag}", as_word(path))]
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
    plain = {f"{key}_" if f"{key}_" in known else key: value for key, value in plain.items()}
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
