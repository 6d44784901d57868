"""Agreement between labels from CAMs and labels from segmentation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pseudolabel.cosa.agreement import agreement, joint_counts


def maps(*rows: list[int]) -> torch.Tensor:
    return torch.tensor([rows], dtype=torch.uint8)


def test_a_case_by_hand() -> None:
    cam = maps([0, 0, 1, 255], [0, 1, 1, 2])
    segmentation = maps([0, 1, 1, 1], [0, 1, 0, 255])
    counts = joint_counts(cam, segmentation, 3)
    assert counts.tolist() == [[2, 1, 0], [1, 2, 0], [0, 0, 0]]
    found = agreement(counts)
    assert found.share == pytest.approx(4 / 6)
    assert found.miou == pytest.approx((2 / 4 + 2 / 4) / 2)  # class 2 is in no pixel that both label


def test_a_class_of_one_map_alone_counts_as_zero() -> None:
    found = agreement(joint_counts(maps([0, 0, 2, 0]), maps([0, 0, 0, 0]), 3))
    assert found.share == pytest.approx(3 / 4)
    assert found.miou == pytest.approx((3 / 4 + 0) / 2)


def test_a_coarse_map_is_enlarged_to_the_nearest_label() -> None:
    cam = maps([0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 0, 0], [2, 2, 0, 1])
    found = agreement(joint_counts(cam, maps([0, 1], [2, 0]).long(), 3))
    assert found.share == pytest.approx(15 / 16)
    assert found.miou == pytest.approx((7 / 8 + 4 / 5 + 1) / 3)


def slow(cam: np.ndarray, segmentation: np.ndarray) -> tuple[float, float]:
    """The definition, pixel by pixel and class by class."""
    both = zip(cam.ravel().tolist(), segmentation.ravel().tolist(), strict=True)
    pairs = [pair for pair in both if 255 not in pair]
    ious = []
    for label in sorted({label for pair in pairs for label in pair}):
        ious.append(sum(pair == (label, label) for pair in pairs) / sum(label in pair for pair in pairs))
    return sum(a == b for a, b in pairs) / len(pairs), sum(ious) / len(ious)


def test_it_is_the_definition_symmetric_and_additive() -> None:
    random = np.random.default_rng(0)
    cam, segmentation = (random.choice([0, 1, 2, 3, 4, 255], size=(3, 7, 9)).astype(np.uint8) for _ in range(2))
    first, second = torch.from_numpy(cam), torch.from_numpy(segmentation)
    counts = joint_counts(first, second, 5)
    assert agreement(counts) == pytest.approx(slow(cam, segmentation))
    assert agreement(joint_counts(second, first, 5)) == pytest.approx(agreement(counts))
    parts = [joint_counts(first[part], second[part], 5) for part in (slice(1), slice(1, 3))]
    assert torch.equal(parts[0] + parts[1], counts)
    assert agreement(joint_counts(first, first, 5)) == (1.0, 1.0)


def test_nothing_that_both_label() -> None:
    found = agreement(joint_counts(maps([255, 1]), maps([0, 255]), 2))
    assert math.isnan(found.share)
    assert math.isnan(found.miou)
