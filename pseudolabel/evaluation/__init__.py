"""How good masks are: predictions against ground truth, and whether the images were seen in training."""

from pseudolabel.evaluation.overlap import count_trained_on
from pseudolabel.evaluation.predictions import Predictions, open_predictions
from pseudolabel.evaluation.scoring import Scoring

__all__ = ["Predictions", "Scoring", "count_trained_on", "open_predictions"]
