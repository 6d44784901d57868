"""Data sets of every layout as one plain table of records, and the images behind them."""

from pseudolabel.data.dataset import Dataset, Record, load_dataset, open_dataset
from pseudolabel.data.images import image_size, read_image

__all__ = ["Dataset", "Record", "image_size", "load_dataset", "open_dataset", "read_image"]
