"""Every setting of every stage, once: its default, bounds and help text.

These models make the command line's flags, validate the pipelines' YAML and are stored as JSON in the artefact that
they produced. This module imports no torch, so that ``--help`` stays quick.

A field has one of three roles, kept in its JSON schema under ``role``:

* ``input``: an earlier artefact or a place of data. What was read is recorded by digest: a moved file is no change.
* ``option``: changes what is computed. A stored artefact is fresh only while these are equal.
* ``execution``: where and how fast (output path, device, workers). Never makes an artefact stale.

Its panel says where the help shows it: by default that of its role; ``rare``, shown last, for what is rarely changed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pseudolabel.options.base import (
        DataOptions,
        DatasetName,
        DatasetOptions,
        LaterOptions,
        StageOptions,
        TagSource,
        WeakLabelOptions,
    )
    from pseudolabel.options.cosa import TrainCosaOptions
    from pseudolabel.options.data import (
        DataCheckOptions,
        DataShowOptions,
        DataTagsOptions,
        DemoOptions,
        SimulateBoxesOptions,
        SimulateOptions,
        SimulatePointsOptions,
        SimulateScribblesOptions,
        SynthOptions,
    )
    from pseudolabel.options.masks import (
        CrfEngine,
        CrfOptions,
        CrfPreset,
        EvaluateMasksOptions,
        ExportMasksOptions,
        IgnoredPolicy,
        ImportCamsOptions,
        ImportMasksOptions,
        MakeCamsOptions,
        NetworkOptions,
        PredictionOptions,
        PredictMasksOptions,
        RefineCrfOptions,
        SearchCrfOptions,
        SearchThresholdOptions,
    )
    from pseudolabel.options.scribble import TrainScribbleOptions
    from pseudolabel.options.stages import STAGES, build_options, check_names, command_line
    from pseudolabel.options.training import (
        AverageOptions,
        BackboneOptions,
        ClassifierOptions,
        TrainCamOptions,
        TrainingOptions,
        TrainSegmenterOptions,
        WatchedOptions,
    )

__all__ = [
    "STAGES",
    "AverageOptions",
    "BackboneOptions",
    "ClassifierOptions",
    "CrfEngine",
    "CrfOptions",
    "CrfPreset",
    "DataCheckOptions",
    "DataOptions",
    "DataShowOptions",
    "DataTagsOptions",
    "DatasetName",
    "DatasetOptions",
    "DemoOptions",
    "EvaluateMasksOptions",
    "ExportMasksOptions",
    "IgnoredPolicy",
    "ImportCamsOptions",
    "ImportMasksOptions",
    "LaterOptions",
    "MakeCamsOptions",
    "NetworkOptions",
    "PredictMasksOptions",
    "PredictionOptions",
    "RefineCrfOptions",
    "SearchCrfOptions",
    "SearchThresholdOptions",
    "SimulateBoxesOptions",
    "SimulateOptions",
    "SimulatePointsOptions",
    "SimulateScribblesOptions",
    "StageOptions",
    "SynthOptions",
    "TagSource",
    "TrainCamOptions",
    "TrainCosaOptions",
    "TrainScribbleOptions",
    "TrainSegmenterOptions",
    "TrainingOptions",
    "WatchedOptions",
    "WeakLabelOptions",
    "build_options",
    "check_names",
    "command_line",
]


def __getattr__(name: str) -> Any:
    """A name of ``__all__``; its module is imported when it is asked for, so that one command's help is quick."""
    for module in ("stages", "base", "data", "masks", "training", "cosa", "scribble") if name in __all__ else ():
        found = vars(import_module(f"{__name__}.{module}"))
        if name in found:
            return found[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
