"""How good masks are: predictions against ground truth, and whether the images were seen in training."""
