"""Whole runs: pipelines, their lineage and cost, comparisons, the report, the demo."""

from pseudolabel.runs.comparison import compare_runs
from pseudolabel.runs.lineage import RunFolder, read_runs
from pseudolabel.runs.pipeline import Pipeline, read_pipeline
from pseudolabel.runs.runner import run_pipeline, run_stage

__all__ = ["Pipeline", "RunFolder", "compare_runs", "read_pipeline", "read_runs", "run_pipeline", "run_stage"]
