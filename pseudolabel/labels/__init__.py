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
from pseudolabel.labels.inputs import Item, Source, open_source

__all__ = [
    "Item",
    "Source",
    "Thresholds",
    "assign",
    "assign_confident",
    "from_soft",
    "open_source",
    "probabilities",
    "quantise",
    "read_thresholds",
]
