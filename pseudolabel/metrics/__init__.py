"""Scores of label maps: what is counted, what is not, and how sure the number is. Pure functions of arrays."""

from pseudolabel.metrics.confusion import PixelCounter, boundary_counts, class_counts
from pseudolabel.metrics.intervals import Jackknife
from pseudolabel.metrics.scores import class_mean, iou, summarise

__all__ = ["Jackknife", "PixelCounter", "boundary_counts", "class_counts", "class_mean", "iou", "summarise"]
