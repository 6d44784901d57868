"""Data sets of every layout as one plain table of records, and the images behind them."""

from pseudolabel.data.images import image_size, read_image
from pseudolabel.data.opening import load_dataset, open_dataset, reopen_dataset
from pseudolabel.data.records import Dataset, Record
from pseudolabel.data.weak.labels import WeakLabels, load_weak_labels

__all__ = [
    "Dataset",
    "Record",
    "WeakLabels",
    "image_size",
    "load_dataset",
    "load_weak_labels",
    "open_dataset",
    "read_image",
    "reopen_dataset",
]
