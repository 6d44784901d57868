"""CoSA's pseudo labels: cases by hand, both rules against loops over images and pixels, padding, no tags."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pseudolabel.cosa.assignments import (
    cam_labels,
    cells_inside,
    guided_cams,
    released_cam_labels,
    segmentation_labels,
)
from pseudolabel.labels.assignment import assign, assign_confident

RULES = pytest.mark.parametrize("rule", [cam_labels, released_cam_labels])


def some_maps(batch: int = 3, classes: int = 4, size: tuple[int, int] = (3, 5), seed: int = 0) -> Tensor:
    return torch.rand((batch, classes, *size), generator=torch.Generator().manual_seed(seed))


def some_tags(batch: int = 3, classes: int = 4, seed: int = 0) -> Tensor:
    return (torch.rand((batch, classes), generator=torch.Generator().manual_seed(seed + 9)) > 0.5).float()


def row(*values: list[float]) -> Tensor:
    """Maps of an image one pixel high: (1, C, 1, W)."""
    return torch.tensor(values)[None, :, None]


def test_guided_cams_by_hand() -> None:
    sums = row([1.0, 2.0, 3.0], [5.0, 0.0, 10.0], [4.0, 4.0, 4.0])
    found = guided_cams(sums, torch.tensor([[1.0, 0.0, 1.0]]))
    assert found[0, :, 0].tolist() == [[0, 0.5, 1], [0, 0, 0], [0, 0, 0]]  # absent: zero; without variation: zero


def test_padding_sets_no_extremes_and_keeps_no_value() -> None:
    inside = torch.tensor([[[True, True, True, False]]])
    found = guided_cams(row([1.0, 2.0, 3.0, 9.0], [6.0, 5.0, 7.0, 0.0]), torch.ones(1, 2), inside)
    assert found[0, :, 0].tolist() == [[0, 0.5, 1, 0], [0.5, 0, 1, 0]]
    nothing = guided_cams(row([1.0, 2.0]), torch.ones(1, 1), torch.zeros(1, 1, 2, dtype=torch.bool))
    assert nothing.tolist() == [[[[0, 0]]]]


def test_labels_by_hand() -> None:
    cams = row([0.9, 0.3, 0.1, 0.5, 0.7], [1.0, 1.0, 1.0, 1.0, 1.0], [0.5, 0.6, 0.2, 0.5, 0.1])
    tags = torch.tensor([[1, 0, 1]])
    one = cam_labels(cams, tags, (1, 5), low=0.5, high=0.5)
    assert one.labels.tolist() == [[[1, 3, 0, 1, 1]]]  # the tie goes to class 1
    assert one.labels.dtype == torch.uint8
    torch.testing.assert_close(one.score, torch.tensor([[[0.9, 0.6, 0.2, 0.5, 0.7]]]))
    two = cam_labels(cams, tags, (1, 5), low=0.25, high=0.7)
    assert two.labels.tolist() == [[[1, 255, 0, 255, 1]]]


@RULES
def test_padding_is_ignored_and_an_image_without_tags_is_background(rule) -> None:
    cams, tags = some_maps(2), torch.tensor([[0, 0, 0, 0], [1, 0, 0, 1]])
    inside = torch.ones(2, 6, 10, dtype=torch.bool)
    inside[:, :, 7:] = False
    found = rule(guided_cams(cams, tags), tags, (6, 10), low=0.25, high=0.6, inside=inside)
    assert (found.labels[:, :, 7:] == 255).all()
    assert (found.labels[0, :, :7] == 0).all()
    assert (found.score[0] == 0).all()
    assert {0, 255} < set(found.labels[1].unique().tolist()) <= {0, 1, 4, 255}
    none = rule(cams, torch.zeros(2, 4), (6, 10), low=0.0, high=0.0)
    assert (none.labels == 0).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 999), st.floats(0.05, 0.9), st.floats(0.0, 0.1))
def test_labels_are_those_of_the_rule_for_arrays(seed: int, low: float, between: float) -> None:
    cams, tags = some_maps(seed=seed), some_tags(seed=seed)
    found = cam_labels(cams, tags, (6, 9), low=low, high=low + between)
    enlarged = F.interpolate(cams, (6, 9), mode="bilinear").numpy()
    lows, highs = np.full(5, low), np.full(5, low + between)
    for image in range(3):
        classes = tags[image].nonzero().flatten().numpy()
        maps = enlarged[image, classes]
        expected = assign_confident(classes + 1, maps, lows, highs) if len(classes) else np.zeros((6, 9))
        edge = np.abs(maps[..., None] - np.array([low, low + between])).min(axis=(0, 3), initial=1) < 1e-6
        assert (found.labels[image].numpy() == expected)[~edge].all()
        if between == 0 and len(classes):
            assert (expected == assign(classes + 1, maps, lows)).all()


def released_by_hand(cams: Tensor, tags: Tensor, size: tuple[int, int], low: float, high: float) -> Tensor:
    """As the rule is stated: image by image, threshold by threshold, over background and the classes present."""
    half = (size[0] // 2, size[1] // 2)
    labels = torch.zeros(len(cams), *size, dtype=torch.int64)
    for image in range(len(cams)):
        present = tags[image].nonzero().flatten()
        key = torch.cat([torch.zeros(1, dtype=torch.int64), present + 1])
        maps = F.interpolate(cams[image : image + 1, present], half, mode="bilinear") if len(present) else None
        winners = []
        for threshold in (low, high):
            layers = [torch.full((1, 1, *half), threshold)] + ([] if maps is None else [maps])
            shares = F.interpolate(torch.cat(layers, dim=1).softmax(dim=1), size, mode="bilinear")
            winners.append(key[shares[0].argmax(dim=0)])
        for y in range(size[0]):
            for x in range(size[1]):
                under_low, under_high = int(winners[0][y, x]), int(winners[1][y, x])
                labels[image, y, x] = under_high or (0 if under_low == 0 else 255)
    return labels


@pytest.mark.parametrize("seed", range(5))
def test_the_released_rule_against_loops(seed: int) -> None:
    cams, tags = some_maps(seed=seed), some_tags(seed=seed)
    found = released_cam_labels(cams, tags, (6, 10), low=0.3, high=0.6)
    assert torch.equal(found.labels.long(), released_by_hand(cams, tags, (6, 10), 0.3, 0.6))


def test_both_rules_agree_inside_regions() -> None:
    cams = torch.zeros(1, 2, 8, 8)
    cams[0, 0, :, :3], cams[0, 1, :, 5:] = 0.9, 0.8
    tags = torch.ones(1, 2)
    described, released = (
        rule(cams, tags, (32, 32), low=0.25, high=0.7).labels for rule in (cam_labels, released_cam_labels)
    )
    assert described[0, 0, [0, 5, 16, 26, 31]].tolist() == [1, 1, 0, 2, 2]
    assert released[0, 0, [0, 5, 16, 26, 31]].tolist() == [1, 1, 0, 2, 2]
    assert (described == released).float().mean() > 0.8  # the rest lies where maps meet


@RULES
def test_an_image_gets_the_same_labels_alone_as_in_a_batch(rule) -> None:
    cams, tags = some_maps(4, 6), some_tags(4, 6)
    together = rule(cams, tags, (6, 10), low=0.3, high=0.6)
    for image in range(4):
        alone = rule(cams[image : image + 1], tags[image : image + 1], (6, 10), low=0.3, high=0.6)
        assert torch.equal(alone.labels[0], together.labels[image])
        torch.testing.assert_close(alone.score[0], together.score[image])
        present = (tags[image].nonzero() + 1).flatten().tolist()
        assert set(together.labels[image].unique().tolist()) <= {0, 255, *present}


def test_segmentation_labels_by_hand() -> None:
    logits = torch.tensor([0.30, 0.31, 5.0])[None, :, None, None]
    found = segmentation_labels(logits, torch.tensor([[1, 0]]))
    assert found.flatten().tolist() == pytest.approx([1 / (1 + np.e), np.e / (1 + np.e), 0], abs=1e-5)
    assert segmentation_labels(logits, torch.zeros(1, 2)).flatten().tolist() == [1, 0, 0]
    flat = segmentation_labels(logits, torch.ones(1, 2), temperature=1e6)
    assert flat.flatten().tolist() == pytest.approx([1 / 3] * 3, abs=1e-5)


def test_segmentation_labels_are_shares_of_the_present_classes() -> None:
    tags = some_tags().bool()
    found = segmentation_labels(torch.randn(3, 5, 4, 4).bfloat16(), tags)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.sum(dim=1), torch.ones(3, 4, 4))
    assert (found[:, 1:][~tags] == 0).all()


def test_a_cell_is_inside_if_all_its_pixels_are() -> None:
    inside = torch.ones(1, 4, 6, dtype=torch.bool)
    inside[0, 3, 1] = inside[0, :2, 4] = False
    assert cells_inside(inside, (2, 3)).tolist() == [[[True, True, False], [False, True, True]]]
