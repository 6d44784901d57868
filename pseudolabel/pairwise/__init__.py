"""Dense pairwise kernels between pixels, and what is computed with them; what needs torch or Numba is imported late."""

from pseudolabel.pairwise.crf import (
    PRESETS,
    CrfSettings,
    Refined,
    dense_crf,
    describe,
    require_engine,
    resolve,
)
from pseudolabel.pairwise.memory import memory_free, memory_of_crf, require_memory

__all__ = [
    "PRESETS",
    "CrfSettings",
    "Refined",
    "dense_crf",
    "describe",
    "memory_free",
    "memory_of_crf",
    "require_engine",
    "require_memory",
    "resolve",
]
