"""Scores of label maps: what is counted, what is not, and how sure the number is. Pure functions of arrays."""

from pseudolabel.metrics.bootstrap import PoissonBootstrap
from pseudolabel.metrics.confusion import PixelCounter, boundary_counts, class_counts
from pseudolabel.metrics.scores import class_mean, iou, summarise

__all__ = ["PixelCounter", "PoissonBootstrap", "boundary_counts", "class_counts", "class_mean", "iou", "summarise"]
