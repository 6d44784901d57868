"""Whole runs: pipelines, their lineage and cost, comparisons, the report, the demo."""
