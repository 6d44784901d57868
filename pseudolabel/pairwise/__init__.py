"""Dense pairwise kernels between pixels, and what is computed with them; what needs torch or Numba is imported late."""

from pseudolabel.pairwise.crf import (
    PRESETS,
    CrfSettings,
    Refined,
    dense_crf,
    describe,
    memory_free,
    memory_needed,
    require_engine,
    require_memory,
    resolve,
)

__all__ = [
    "PRESETS",
    "CrfSettings",
    "Refined",
    "dense_crf",
    "describe",
    "memory_free",
    "memory_needed",
    "require_engine",
    "require_memory",
    "resolve",
]
