"""From class activation maps to label maps: the assignment rule, thresholds and how they are found, box constraints."""

from pseudolabel.labels.assignment import (
    Thresholds,
    assign,
    assign_confident,
    from_soft,
    probabilities,
    quantise,
    read_thresholds,
)
from pseudolabel.labels.inputs import MapsInput, MapsTask, open_maps

__all__ = [
    "MapsInput",
    "MapsTask",
    "Thresholds",
    "assign",
    "assign_confident",
    "from_soft",
    "open_maps",
    "probabilities",
    "quantise",
    "read_thresholds",
]
