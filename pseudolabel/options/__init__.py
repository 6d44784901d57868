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
        DataSplitOptions,
        DataTagsOptions,
        DemoOptions,
        SimulateBoxesOptions,
        SimulateOptions,
        SimulatePointsOptions,
        SimulateScribblesOptions,
        SynthOptions,
    )
    from pseudolabel.options.masks import (
        EvaluateMasksOptions,
        ExportMasksOptions,
        ExportModelOptions,
        IgnoredPolicy,
        ImportCamsOptions,
        ImportMasksOptions,
        InferenceOptions,
        MakeCamsOptions,
        NetworkOptions,
        PictureOptions,
        PredictionOptions,
        PredictMasksOptions,
        PredictorOptions,
        SearchThresholdOptions,
    )
    from pseudolabel.options.refiners import (
        CrfEngine,
        CrfOptions,
        CrfPreset,
        RefineAffinityOptions,
        RefineCrfOptions,
        RefineParOptions,
        SearchCrfOptions,
    )
    from pseudolabel.options.regions import ImportRegionsOptions, MakeRegionsOptions, VoteRegionsOptions
    from pseudolabel.options.scribble import MixedLabelOptions, TrainScribbleOptions
    from pseudolabel.options.semi import TrainSemiOptions
    from pseudolabel.options.stages import STAGES, build_options, check_names, command_line
    from pseudolabel.options.training import (
        AverageOptions,
        BackboneOptions,
        ClassifierOptions,
        MaskTrainingOptions,
        TrainAffinityOptions,
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
    "DataSplitOptions",
    "DataTagsOptions",
    "DatasetName",
    "DatasetOptions",
    "DemoOptions",
    "EvaluateMasksOptions",
    "ExportMasksOptions",
    "ExportModelOptions",
    "IgnoredPolicy",
    "ImportCamsOptions",
    "ImportMasksOptions",
    "ImportRegionsOptions",
    "InferenceOptions",
    "LaterOptions",
    "MakeCamsOptions",
    "MakeRegionsOptions",
    "MaskTrainingOptions",
    "MixedLabelOptions",
    "NetworkOptions",
    "PictureOptions",
    "PredictMasksOptions",
    "PredictionOptions",
    "PredictorOptions",
    "RefineAffinityOptions",
    "RefineCrfOptions",
    "RefineParOptions",
    "SearchCrfOptions",
    "SearchThresholdOptions",
    "SimulateBoxesOptions",
    "SimulateOptions",
    "SimulatePointsOptions",
    "SimulateScribblesOptions",
    "StageOptions",
    "SynthOptions",
    "TagSource",
    "TrainAffinityOptions",
    "TrainCamOptions",
    "TrainCosaOptions",
    "TrainScribbleOptions",
    "TrainSegmenterOptions",
    "TrainSemiOptions",
    "TrainingOptions",
    "VoteRegionsOptions",
    "WatchedOptions",
    "WeakLabelOptions",
    "build_options",
    "check_names",
    "command_line",
]


def __getattr__(name: str) -> Any:
    """A name of ``__all__``; its module is imported when it is asked for, so that one command's help is quick."""
    modules = ("stages", "base", "data", "masks", "refiners", "training", "cosa", "scribble", "semi", "regions")
    for module in modules if name in __all__ else ():
        found = vars(import_module(f"{__name__}.{module}"))
        if name in found:
            return found[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
