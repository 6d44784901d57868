"""Votes of regions: each rule by hand, against a slow reference, and whatever the order of the regions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pseudolabel.artefacts.run_lengths import Regions, make_regions, mask_runs
from pseudolabel.data.shapes import Box
from pseudolabel.labels.region_votes import split_regions, vote_boxes, vote_fma, vote_sepl, vote_soft

SHAPE = (4, 5)
LABELS = arrays(np.uint8, SHAPE, elements=st.sampled_from([0, 1, 2, 3, 255]))
MASKS = arrays(np.bool_, st.tuples(st.integers(0, 5), *map(st.just, SHAPE)))
MAPS = arrays(np.float32, (2, *SHAPE), elements=st.sampled_from([0, 0.125, 0.25, 0.5, 0.75, 1]))
SHARES = st.sampled_from([0.0, 0.25, 0.5, 0.85, 1.0])


def row(*values: float) -> np.ndarray:
    return np.array([values], dtype=np.uint8)


def of(masks: Sequence[Any] | np.ndarray, size: tuple[int, int] | None = None, **columns: Any) -> Regions:
    found = [np.atleast_2d(np.asarray(mask, dtype=bool)) for mask in masks]
    return make_regions(size or found[0].shape, [mask_runs(mask) for mask in found], **columns)


def kept(masks: np.ndarray) -> np.ndarray:
    return masks[masks.any(axis=(1, 2))]


# SEPL


def test_a_region_takes_the_class_that_fills_half_of_it_by_hand() -> None:
    labels = row(1, 1, 0, 0, 1, 0, 2, 255)
    regions = of([[1, 1, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1, 0]])
    # the first is half full of class 1; of the second a third is 1, and all of class 2
    assert vote_sepl(labels, regions).tolist() == [[1, 1, 1, 1, 2, 2, 2, 255]]
    # strictly more than half, and no cover: neither is assigned, and what is under them is background
    assert vote_sepl(labels, regions, share=0.51, coverage=1.01).tolist() == [[0, 0, 0, 0, 0, 0, 0, 255]]


def test_pixels_outside_of_all_regions_keep_their_labels_by_hand() -> None:
    labels = row(1, 2, 255, 1, 0)
    assert vote_sepl(labels, of([[0, 0, 0, 0, 1]])).tolist() == labels.tolist()
    assert vote_sepl(labels, make_regions((1, 5), [])).tolist() == labels.tolist()


def test_of_two_classes_the_one_with_more_pixels_in_the_region_takes_it() -> None:
    """The released code gives it to class 1, which comes first, and lets class 2 paint over what is left of it."""
    labels = row(1, 2, 2, 2, 0, 0)
    assert vote_sepl(labels, of([[1, 1, 1, 1, 0, 0]])).tolist() == [[2, 2, 2, 2, 0, 0]]
    assert vote_sepl(row(1, 2, 0), of([[1, 1, 0]])).tolist() == [[1, 1, 0]]  # the lowest index among equals


def test_smaller_regions_lie_over_larger_ones() -> None:
    labels = row(1, 1, 1, 2, 2, 0)
    regions = of([[0, 0, 0, 1, 1, 0], [1, 1, 1, 1, 1, 0]])
    assert vote_sepl(labels, regions).tolist() == [[1, 1, 1, 2, 2, 0]]


def test_an_assigned_region_labels_unlabelled_pixels_and_another_does_not() -> None:
    labels = row(1, 1, 255, 255, 0, 0, 0)
    regions = of([[1, 1, 1, 0, 0, 0, 0], [0, 0, 0, 1, 1, 1, 1]])
    assert vote_sepl(labels, regions).tolist() == [[1, 1, 1, 255, 0, 0, 0]]


def slow_sepl(labels: np.ndarray, masks: np.ndarray, share: float, coverage: float) -> np.ndarray:
    found = labels.astype(int)
    assigned = []
    for mask in masks:
        for y, x in np.argwhere(mask):
            found[y, x] = 0 if found[y, x] != 255 else 255
        votes = []
        for label in (1, 2, 3):
            own = labels == label
            common = (own & mask).sum()
            if common and (common >= share * mask.sum() or common >= coverage * own.sum()):
                votes.append((-common, label))
        if votes:
            assigned.append((-mask.sum(), -min(votes)[1], mask))
    for _, label, mask in sorted(assigned, key=lambda item: item[:2]):
        found[mask] = -label
    return found


@given(LABELS, MASKS, SHARES, SHARES)
def test_sepl_agrees_with_a_slow_reference(
    labels: np.ndarray, masks: np.ndarray, share: float, coverage: float
) -> None:
    masks = kept(masks)
    found = vote_sepl(labels, of(masks, SHAPE), share=share, coverage=coverage)
    np.testing.assert_array_equal(found, slow_sepl(labels, masks, share, coverage))
    np.testing.assert_array_equal(found, vote_sepl(labels, of(masks[::-1], SHAPE), share=share, coverage=coverage))


# FMA


def test_fma_by_hand() -> None:
    maps = np.array([[[0.2, 0.4, 0.8, 0.8, 0.1, 0.1]]])
    regions = of([[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1]])
    # means .3 .8 .1, scaled 2/7 1 0; background (1 - v) ** .6 = .817 0 1
    found = vote_fma(row(*[0] * 6), np.array([4]), maps, regions, power=0.6)
    assert found.tolist() == [[0, 0, 4, 4, 0, 0]]
    # (5/7) ** 4 = .26 < 2/7: now the first region is of the class, too
    assert vote_fma(row(*[0] * 6), np.array([4]), maps, regions, power=4).tolist() == [[4, 4, 4, 4, 0, 0]]


def test_the_more_confident_region_lies_on_top_even_if_it_is_larger() -> None:
    maps = np.array([[[1.0, 1.0, 0.5, 0.0]]])
    regions = of([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]])
    # means 1 .75 0: the second one is of the class with .75 > .25 ** .6 = .44
    assert vote_fma(row(0, 0, 0, 0), np.array([3]), maps, regions, power=0.6).tolist() == [[3, 3, 3, 0]]
    maps = np.array([[[0.5, 0.5, 0.0, 0.0]], [[0.0, 1.0, 1.0, 0.0]]])
    # of class 3 means .5 .25 0, scaled 1 .5 0; of class 5 .5 1 0: confidence 1 each, the larger below, here equal
    assert vote_fma(row(0, 0, 0, 0), np.array([3, 5]), maps, regions, power=0.6).tolist() == [[3, 3, 5, 0]]


def test_what_no_region_covers_is_background_or_stays_unlabelled() -> None:
    maps = np.array([[[1.0, 1.0, 0.0, 1.0, 1.0]]])
    regions = of([[1, 0, 0, 0, 0], [0, 0, 1, 0, 0]])
    assert vote_fma(row(1, 1, 0, 255, 255), np.array([1]), maps, regions, power=0.6).tolist() == [[1, 0, 0, 255, 255]]
    assert vote_fma(row(1, 1, 0, 255, 255), np.array([1]), maps, make_regions((1, 5), []), power=0.6).tolist() == [
        [0, 0, 0, 255, 255]
    ]


def test_a_single_region_keeps_its_mean() -> None:
    """The released scaling makes 0 of it, so that it would be background whatever the maps say."""
    maps = np.array([[[0.9, 0.9, 0.0]]])
    assert vote_fma(row(0, 0, 0), np.array([1]), maps, of([[1, 1, 0]]), power=0.6).tolist() == [[1, 1, 0]]
    assert vote_fma(row(0, 0, 0), np.array([1]), maps / 9, of([[1, 1, 0]]), power=0.6).tolist() == [[0, 0, 0]]


def test_without_maps_everything_is_background() -> None:
    assert vote_fma(row(0, 0), np.zeros(0, int), np.zeros((0, 1, 2)), of([[1, 0]]), power=0.6).tolist() == [[0, 0]]


def slow_fma(labels: np.ndarray, maps: np.ndarray, masks: np.ndarray, power: float) -> np.ndarray:
    means, voters = [], []
    for mask in masks:
        pixels = [(y, x) for y, x in np.argwhere(mask) if labels[y, x] != 255]
        if pixels:
            voters.append(mask)
            means.append([sum(float(values[place]) for place in pixels) / len(pixels) for values in maps])
    found = np.where(labels == 255, 255, 0)
    painted = []
    for mask, mean in zip(voters, means, strict=True):
        scores = []
        for index, value in enumerate(mean):
            every = [other[index] for other in means]
            wide = max(every) - min(every)
            scores.append((value - min(every)) / wide if wide > 0 else value)
        best = max(scores)
        background = (1 - min(max(best, 0), 1)) ** power
        label = 0 if background >= best else 1 + scores.index(best)
        painted.append((max(best, background), -mask.sum(), -label, mask))
    for _, _, label, mask in sorted(painted, key=lambda item: item[:3]):
        found[mask] = -label
    return found


@given(LABELS, MAPS, MASKS, st.sampled_from([0.5, 1.0, 2.0]))
def test_fma_agrees_with_a_slow_reference(
    labels: np.ndarray, maps: np.ndarray, masks: np.ndarray, power: float
) -> None:
    masks = kept(masks)
    found = vote_fma(labels, np.array([1, 2]), maps, of(masks, SHAPE), power=power)
    np.testing.assert_array_equal(found, slow_fma(labels, maps, masks, power))
    again = vote_fma(labels, np.array([1, 2]), maps, of(masks[::-1], SHAPE), power=power)
    np.testing.assert_array_equal(found, again)


# Soft assignment


def test_soft_by_hand() -> None:
    shares = np.array([[[1, 0.5, 0, 0.25]], [[0, 0.5, 1, 0.75]]], dtype=np.float32)
    found, unlabelled = vote_soft(shares, None, of([[1, 1, 0, 0], [0, 1, 1, 0]]))
    # the first region has .75 of class 0, the second .25; the pixel in both has the mean of both
    np.testing.assert_allclose(found[0], [[0.75, 0.5, 0.25, 0.25]])
    assert unlabelled is None


def test_unlabelled_pixels_have_no_vote_and_take_part_in_their_regions() -> None:
    shares = np.array([[[1, 0.5, 0, 0]], [[0, 0.5, 1, 1]]], dtype=np.float32)
    mask = np.array([[False, True, True, False]])
    found, unlabelled = vote_soft(shares, mask, of([[1, 1, 0, 0], [0, 0, 1, 0]]))
    np.testing.assert_allclose(found[0], [[1, 1, 0, 0]])
    assert unlabelled is not None
    assert unlabelled.tolist() == [[False, False, True, False]]  # its region has no labelled pixel


@given(MAPS, MASKS, LABELS)
@settings(max_examples=60)
def test_soft_agrees_with_a_slow_reference(maps: np.ndarray, masks: np.ndarray, labels: np.ndarray) -> None:
    masks = kept(masks)
    shares = np.concatenate([maps, 1.5 + 0 * maps[:1]])
    shares /= shares.sum(axis=0)
    unknown = labels == 255
    found, unlabelled = vote_soft(shares, unknown, of(masks, SHAPE))
    wanted, left = shares.copy(), unknown.copy()
    for y, x in np.ndindex(SHAPE):
        votes = [shares[:, mask & ~unknown].mean(axis=1) for mask in masks if mask[y, x] and (mask & ~unknown).any()]
        if votes:
            wanted[:, y, x], left[y, x] = np.mean(votes, axis=0), False
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-6)
    np.testing.assert_array_equal(unlabelled, left)


# Split


def test_regions_are_cut_where_they_fall_apart_and_where_labels_disagree() -> None:
    labels = row(1, 1, 1, 1, 2, 0, 0, 1, 255, 1)
    regions = of([[1, 1, 1, 1, 1, 0, 0, 1, 1, 1]], score=[0.5], label=[2], prompt=["p"])
    found = split_regions(regions, labels, 0.2)
    assert [mask.astype(int).tolist() for mask in found.masks()] == [
        [[0, 0, 0, 0, 1, 0, 0, 0, 0, 0]],
        [[1, 1, 1, 1, 0, 0, 0, 0, 0, 0]],
        [[0, 0, 0, 0, 0, 0, 0, 1, 1, 1]],  # 255 is no class to be cut off
    ]
    assert (found.score.tolist(), found.label.tolist(), found.prompt) == ([0.5] * 3, [2] * 3, ("p",) * 3)
    assert len(split_regions(regions, labels, 0.21)) == 2
    assert len(split_regions(make_regions((1, 10), []), labels, 0.2)) == 0


@given(LABELS, MASKS)
def test_a_split_covers_what_was_there_once(labels: np.ndarray, masks: np.ndarray) -> None:
    masks = kept(masks)
    found = split_regions(of(masks, SHAPE), labels, 0.15)
    np.testing.assert_array_equal(found.spread(np.ones((len(found), 1)))[0], masks.sum(axis=0))
    assert (found.area > 0).all()


# Boxes

DOG = Box(2, 0, 0, 4, 1)


def test_a_box_takes_the_largest_region_inside_by_hand() -> None:
    labels = row(1, 0, 0, 0, 2, 0)
    regions = of([[1, 0, 0, 0, 0, 0], [0, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])
    # of the last, 4 of 6 pixels lie in the box: too few; where they are enough, its IoU 4/6 is below the second's 3/4
    for inside in (0.9, 0.6):  # class 2 outside of the box is background
        assert vote_boxes(labels, regions, [DOG], inside=inside).tolist() == [[255, 2, 2, 2, 0, 0]]
    both = of([[0, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0]])
    assert vote_boxes(labels, both, [DOG], inside=0.8).tolist() == [[2, 2, 2, 2, 2, 0]]


def test_a_box_without_a_region_keeps_its_labels() -> None:
    labels = row(1, 2, 0, 0, 2, 1)
    assert vote_boxes(labels, of([[0, 0, 0, 1, 1, 1]]), [DOG]).tolist() == [[1, 2, 0, 0, 0, 1]]


def test_the_smaller_box_lies_on_top() -> None:
    regions = of([[1, 1, 1, 1, 0, 0], [0, 1, 0, 0, 0, 0]])
    boxes = [Box(1, 1, 0, 2, 1), DOG]
    for order in (boxes, boxes[::-1]):
        assert vote_boxes(row(0, 0, 0, 0, 0, 0), regions, order).tolist() == [[2, 1, 2, 2, 0, 0]]


def test_a_region_with_a_class_is_for_boxes_of_that_class() -> None:
    regions = of([[1, 1, 1, 1, 0, 0], [0, 1, 1, 0, 0, 0]], label=[1, 2])
    assert vote_boxes(row(0, 0, 0, 0, 0, 0), regions, [DOG]).tolist() == [[255, 2, 2, 255, 0, 0]]


def test_a_region_answers_to_the_box_that_it_was_prompted_with() -> None:
    regions = of(
        [[1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 1], [1, 1, 1, 1, 0, 0], [0, 1, 1, 0, 0, 0]],
        box=[(0, 0, 4, 1), (0, 0, 4, 1), (0, 0, 6, 1), None],
        score=[0.25, 0.75, 1.0, 1.0],
    )
    # two of one prompt: the better score, though a third of it lies outside; the third was asked for with another box
    assert vote_boxes(row(0, 0, 0, 0, 0, 0), regions, [DOG]).tolist() == [[2, 2, 255, 255, 0, 2]]


def test_without_boxes_or_regions_nothing_changes_but_where_classes_may_be() -> None:
    labels = row(1, 2, 255, 0, 2, 1)
    assert vote_boxes(labels, of([[1, 1, 0, 0, 0, 0]]), []).tolist() == labels.tolist()
    assert vote_boxes(labels, make_regions((1, 6), []), [DOG]).tolist() == [[1, 2, 255, 0, 0, 1]]


@pytest.mark.parametrize("seed", range(20))
def test_the_box_rule_agrees_with_a_slow_reference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 1, 2, 255], (8, 9)).astype(np.uint8)
    masks = []
    for _ in range(6):
        top, left = rng.integers(0, 6, 2)
        mask = np.zeros((8, 9), bool)
        mask[top : top + rng.integers(1, 4), left : left + rng.integers(1, 5)] = True
        masks.append(mask)
    corners = rng.integers(0, 4, (2, 2)).tolist()
    boxes = [Box(label, x, y, x + 5, y + 4) for label, (x, y) in zip((1, 1 + seed % 2), corners, strict=True)]
    wanted = labels.copy()
    for label in {box.label for box in boxes}:
        for y, x in np.argwhere(labels == label):
            if not any(b.label == label and b.top <= y < b.bottom and b.left <= x < b.right for b in boxes):
                wanted[y, x] = 0
    chosen = []
    for box in sorted(boxes, key=lambda box: -box.label):  # all of one size
        best: tuple[float, int, int] | None = None
        for index, mask in enumerate(masks):
            places = np.argwhere(mask)
            within = np.mean([box.top <= y < box.bottom and box.left <= x < box.right for y, x in places])
            if within < 0.9:
                continue
            (y0, x0), (y1, x1) = places.min(axis=0), places.max(axis=0) + 1
            common = max(0, min(y1, box.bottom) - max(y0, box.top)) * max(0, min(x1, box.right) - max(x0, box.left))
            iou = common / ((y1 - y0) * (x1 - x0) + 20 - common)
            best = max(best, (iou, len(places), -index)) if best else (iou, len(places), -index)
        if best:
            wanted[int(box.top) : int(box.bottom), int(box.left) : int(box.right)] = 255
            chosen.append((box.label, masks[-best[2]]))
    for label, mask in chosen:
        wanted[mask] = label
    np.testing.assert_array_equal(vote_boxes(labels, of(masks), boxes), wanted)
