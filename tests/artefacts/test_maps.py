"""Maps at image size, as a whole and in bands of columns."""

from __future__ import annotations

import numpy as np
import pytest

from pseudolabel.artefacts import maps
from pseudolabel.artefacts.maps import at_size, bands


def test_bands_by_hand() -> None:
    column = 4 * 3 * 100
    assert bands(3, (100, 1000)) == [(0, 1000)]
    assert bands(0, (5, 5)) == [(0, 5)]
    most = (1 << 28) // column
    assert bands(3, (100, 2 * most + 1)) == [(0, most), (most, 2 * most), (2 * most, 2 * most + 1)]


@pytest.mark.parametrize("size", [(97, 61), (7, 9), (40, 30)])
def test_bands_are_parts_of_the_whole(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    stored = {0: random.random((40, 30)).astype(np.float16), 3: random.integers(0, 255, (12, 31), dtype=np.uint8)}
    labels, whole = at_size(stored, size)
    monkeypatch.setattr(maps, "_MOST", 4 * 2 * size[0] * 5)
    parts = [at_size(stored, size, columns) for columns in bands(2, size)]
    assert len(parts) == -(-size[1] // 5)
    assert [found.tolist() for found, _ in parts] == [labels.tolist()] * len(parts)
    assert np.array_equal(np.concatenate([part for _, part in parts], axis=2), whole)


def test_no_maps_at_all() -> None:
    assert at_size({}, (6, 4), (2, 4))[1].shape == (0, 6, 2)
