"""Which classes boxes and tags allow, and label maps from boxes that CAMs fill."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pseudolabel.data.shapes import Box
from pseudolabel.scribble.boxes import (
    bounded,
    boxes_allow,
    boxes_in_crop,
    fill_boxes,
    objectness,
    outside_boxes,
    tags_allow,
)

C = 3


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@st.composite
def some_boxes(draw: st.DrawFn, height: int = 8, width: int = 10) -> list[Box]:
    found = []
    for _ in range(draw(st.integers(0, 4))):
        left, top = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
        right, bottom = draw(st.integers(left + 1, width)), draw(st.integers(top + 1, height))
        found.append(Box(draw(st.integers(1, C)), left, top, right, bottom))
    return found


def test_tags_allow_their_classes_and_background() -> None:
    allowed = tags_allow(torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0]]))
    assert allowed.shape == (2, 4, 1, 1)
    assert allowed[..., 0, 0].tolist() == [[True, False, True, False], [True, True, False, True]]


def test_boxes_allow_by_hand() -> None:
    allowed = boxes_allow([Box(1, 1, 0, 3, 2), Box(3, 3.5, 1.5, 9, 9)], C, (3, 5))
    assert allowed[0].all()
    assert allowed[1].int().tolist() == [[0, 1, 1, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0]]
    assert not allowed[2].any()
    assert allowed[3].int().tolist() == [[0, 0, 0, 0, 0], [0, 0, 0, 1, 1], [0, 0, 0, 1, 1]]
    coarse = boxes_allow([Box(1, 3, 0, 5, 4)], C, (8, 12), (2, 3))  # cells of 4 x 4 pixels
    assert coarse[1].int().tolist() == [[1, 1, 0], [0, 0, 0]]


@settings(max_examples=40, deadline=None)
@given(some_boxes())
def test_boxes_allow_what_lies_in_them_on_every_grid(boxes: list[Box]) -> None:
    fine = boxes_allow(boxes, C, (8, 10))
    for label in range(1, C + 1):
        for y in range(8):
            for x in range(10):
                around = [b for b in boxes if b.label == label and b.left <= x < b.right and b.top <= y < b.bottom]
                assert fine[label, y, x].item() == bool(around)
    coarse = boxes_allow(boxes, C, (8, 10), (4, 5))
    pooled = torch.nn.functional.max_pool2d(fine[None].float(), 2)[0].bool()
    assert torch.equal(coarse, pooled)  # a cell that a box touches is inside
    assert torch.equal(
        boxes_allow([b._replace(left=b.left - 20, right=b.right - 20) for b in boxes], C, (8, 10))[1:],
        torch.zeros(C, 8, 10, dtype=torch.bool),
    )


def test_boxes_in_a_view_by_hand() -> None:
    boxes = [Box(1, 10, 20, 30, 40, "a"), Box(2, 0, 0, 12, 22), Box(3, 50, 0, 60, 90), Box(1, 0, 30, 10, 40)]
    view = (10.0, 20.0, 50.0, 40.0)  # half as wide and as high again as the square
    assert boxes_in_crop(boxes, view, 80, mirrored=False) == [Box(1, 0, 0, 40, 80, "a"), Box(2, 0, 0, 4, 8)]
    assert boxes_in_crop(boxes, view, 80, mirrored=True) == [Box(1, 40, 0, 80, 80, "a"), Box(2, 76, 0, 80, 8)]


@settings(max_examples=40, deadline=None)
@given(some_boxes(), st.integers(0, 5), st.integers(0, 4), st.booleans())
def test_boxes_in_a_view_are_the_view_of_the_boxes(boxes: list[Box], left: int, top: int, mirrored: bool) -> None:
    whole = boxes_allow(boxes, C, (8, 10))[:, top : top + 4, left : left + 4]
    part = whole.flip(2) if mirrored else whole
    found = boxes_in_crop(boxes, (left, top, left + 4, top + 4), 8, mirrored=mirrored)
    assert torch.equal(boxes_allow(found, C, (8, 8)), part.repeat_interleave(2, 1).repeat_interleave(2, 2))


def test_a_bounded_prediction_by_hand() -> None:
    shares = torch.tensor([[0.2, 0.5, 0.3, 0.0], [0.0, 0.9, 0.1, 0.0]]).view(2, 4, 1, 1)
    found = bounded(shares, tags_allow(torch.tensor([[1, 0, 1], [0, 0, 1]])))
    torch.testing.assert_close(found.flatten(1), torch.tensor([[2 / 7, 5 / 7, 0, 0], [1.0, 0, 0, 0]]))


def test_a_bounded_prediction_sums_to_one_and_keeps_to_its_boxes() -> None:
    shares = uniform(2, C + 1, 8, 10).softmax(dim=1)
    allowed = torch.stack(
        [boxes_allow([Box(1, 1, 1, 5, 5), Box(2, 3, 3, 10, 8)], C, (8, 10)), boxes_allow([], C, (8, 10))]
    )
    found = bounded(shares, allowed)
    torch.testing.assert_close(found.sum(dim=1), torch.ones_like(found[:, 0]))
    assert (found[~allowed] == 0).all()
    assert (found[1, 0] == 1).all()
    torch.testing.assert_close(bounded(found, allowed), found)
    torch.testing.assert_close(bounded(shares, torch.ones_like(allowed)), shares)


def test_boxes_are_filled_by_hand() -> None:
    cams = torch.zeros(2, 2, 6)
    cams[0, 0] = torch.tensor([0.9, 0.4, 0.1, 0.2, 0.1, 0.02])
    cams[1, 0] = torch.tensor([0.0, 0.5, 0.5, 0.0, 0.0, 0.0])
    boxes = [Box(1, 0, 0, 2, 1), Box(1, 3, 0, 6, 2)]
    # scores 1 and 0.44 in the first box; 1, 0.5 and 0.1 in the second, for all that its object is weak
    assert fill_boxes(cams, boxes, low=0.3, high=0.6).tolist() == [[1, 255, 0, 1, 255, 0], [0] * 6]
    both = [*boxes, Box(2, 1, 0, 3, 1)]  # its 1 beats the 0.44
    assert fill_boxes(cams, both, low=0.3, high=0.6)[0].tolist() == [1, 2, 2, 1, 255, 0]
    silent = [Box(2, 0, 1, 2, 2)]
    for high in (0.3, 0.6):
        assert fill_boxes(cams, silent, low=0.3, high=high).tolist() == [[0] * 6, [255, 255, 0, 0, 0, 0]]
    assert (fill_boxes(cams, [], low=0.3, high=0.6) == 0).all()


def test_of_two_boxes_that_are_as_sure_the_smaller_one_is_in_front() -> None:
    cams = torch.ones(2, 2, 4)
    boxes = [Box(2, 1, 0, 3, 2), Box(1, 0, 0, 4, 2)]
    for order in (boxes, boxes[::-1]):
        assert fill_boxes(cams, order, low=0.3, high=0.6).tolist() == [[1, 2, 2, 1]] * 2


def filled_by_hand(cams: Tensor, boxes: list[Box], low: float, high: float) -> Tensor:
    """Pixel by pixel: the box of the largest score, and of equal scores the smallest box, the last of equal ones."""
    labels = torch.zeros(cams.shape[1:], dtype=torch.uint8)
    for y in range(cams.shape[1]):
        for x in range(cams.shape[2]):
            scores = []
            for number, b in enumerate(boxes):
                if b.left <= x < b.right and b.top <= y < b.bottom:
                    inside = cams[b.label - 1, int(b.top) : int(b.bottom), int(b.left) : int(b.right)]
                    score = (cams[b.label - 1, y, x] / inside.max()).item()
                    scores.append((score, -(b.right - b.left) * (b.bottom - b.top), number, b.label))
            if scores:
                score, _, _, label = max(scores)
                labels[y, x] = label if score >= high else 255 if score >= low else 0
    return labels


@settings(max_examples=40, deadline=None)
@given(some_boxes(), st.integers(0, 99))
def test_boxes_are_filled_as_a_loop_fills_them(boxes: list[Box], seed: int) -> None:
    cams = uniform(C, 8, 10, seed=seed) + 0.01
    found = fill_boxes(cams, boxes, low=0.4, high=0.7)
    assert torch.equal(found, filled_by_hand(cams, boxes, 0.4, 0.7))
    allowed = boxes_allow(boxes, C, (8, 10))
    for label in range(1, C + 1):
        assert (allowed[label] | (found != label)).all()  # nothing outside any box of its class
    assert (found[~allowed[1:].any(dim=0)] == 0).all()
    assert torch.equal(fill_boxes(cams * 0.1, boxes, low=0.4, high=0.7), found)  # maps have no scale


@pytest.mark.parametrize("label", range(1, C + 1))
def test_a_lone_box_has_some_of_its_class(label: int) -> None:
    found = fill_boxes(uniform(C, 8, 10) * 0.01, [Box(label, 2, 3, 6, 7)], low=0.4, high=0.7)
    assert (found == label).any()


def test_a_view_may_cut_boxes_or_leave_them_out() -> None:
    boxes = [Box(1, -4, -4, 2, 2), Box(2, 20, 3, 30, 9), Box(3, -9, 0, -2, 4)]
    found = fill_boxes(torch.ones(C, 4, 5), boxes, low=0.4, high=0.7)
    assert found.tolist() == [[1, 1, 0, 0, 0]] * 2 + [[0] * 5] * 2
    allowed = boxes_allow(boxes, C, (4, 5))
    assert allowed[1:].sum(dim=(1, 2)).tolist() == [4, 0, 0]


def test_objectness_is_the_strongest_tagged_map() -> None:
    cams = torch.tensor([[0.2, 0.9], [0.5, 0.1], [0.8, 0.8]])[None, :, None].expand(2, -1, -1, -1)
    found = objectness(cams, torch.tensor([[1, 1, 0], [0, 0, 0]]))
    torch.testing.assert_close(found[0], torch.tensor([[0.5, 0.9]]))
    assert found[1].isnan().all()


def test_what_no_box_touches_is_background() -> None:
    labels = outside_boxes([Box(2, 1, 0, 3, 2), Box(1, 3, 3, 4, 4)], (4, 5))
    assert labels.dtype == torch.uint8
    assert labels.tolist() == [[0, 255, 255, 0, 0], [0, 255, 255, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 255, 0]]
    assert not outside_boxes([], (2, 2)).any()
