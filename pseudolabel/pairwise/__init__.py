"""Dense pairwise kernels between pixels, and what is computed with them."""

from pseudolabel.pairwise.crf import PRESETS, CrfSettings, dense_crf, describe, require_engine, resolve

__all__ = ["PRESETS", "CrfSettings", "dense_crf", "describe", "require_engine", "resolve"]
