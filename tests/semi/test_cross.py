"""CCVC's losses: by hand, against slow references, in parts, and who learns from whom."""

import pytest
import torch
from torch.nn.functional import cosine_similarity

from pseudolabel.semi.cross import conflict_weights, cross_supervision, discrepancy
from tests.semi.test_losses import logits_of


def test_conflict_weights_by_hand():
    own = logits_of((0.95, 0.05), (0.95, 0.05), (0.6, 0.4), (0.9, 0.1)).softmax(dim=1)
    other = logits_of((0.3, 0.7), (0.8, 0.2), (0.4, 0.6), (0.1, 0.9)).softmax(dim=1)
    # in conflict and sure; agreed; in conflict and not sure; in conflict and just at the threshold
    assert conflict_weights(own, other, confidence=0.92, weight=2.0).tolist() == [[[2, 1, 1, 1]]]
    assert conflict_weights(own, other, confidence=0.0, weight=2.0).tolist() == [[[2, 1, 2, 2]]]
    assert conflict_weights(own, other, confidence=0.0, weight=1.0).tolist() == [[[1, 1, 1, 1]]]


def slow_weights(own, other, confidence, weight):
    """Cell by cell."""
    found = torch.ones(own.shape[0], *own.shape[2:])
    for image in range(own.shape[0]):
        for row in range(own.shape[2]):
            for column in range(own.shape[3]):
                mine, yours = own[image, :, row, column].tolist(), other[image, :, row, column].tolist()
                if mine.index(max(mine)) != yours.index(max(yours)) and max(mine) > confidence:
                    found[image, row, column] = weight
    return found


@pytest.mark.parametrize("confidence", [0.0, 0.5, 0.9])
def test_conflict_weights_are_the_slow_ones(confidence):
    torch.manual_seed(0)
    own, other = ((3 * torch.randn(3, 4, 5, 6)).softmax(dim=1) for _ in range(2))
    found = conflict_weights(own, other, confidence=confidence, weight=1.5)
    torch.testing.assert_close(found, slow_weights(own, other, confidence, 1.5))
    assert 0 < (found == 1.5).float().mean() < 1


def test_cross_supervision_by_hand_and_in_parts():
    logits = logits_of((0.5, 0.5), (0.25, 0.75))
    labels, weights = torch.tensor([[[0, 1]]], dtype=torch.uint8), torch.tensor([[[2.0, 1.0]]])
    expected = -(2 * torch.tensor(0.5).log() + torch.tensor(0.75).log()) / 2
    torch.testing.assert_close(cross_supervision(logits, labels, weights), expected)
    torch.manual_seed(0)
    many, wanted = torch.randn(4, 3, 2, 2), torch.randint(3, (4, 2, 2))
    ones = torch.ones(4, 2, 2)
    parts = [cross_supervision(many[i : i + 2], wanted[i : i + 2], ones[:2], images=4) for i in (0, 2)]
    torch.testing.assert_close(torch.stack(parts).sum(), cross_supervision(many, wanted, ones))
    torch.testing.assert_close(cross_supervision(many, wanted, ones), torch.nn.functional.cross_entropy(many, wanted))


def test_discrepancy_by_hand():
    first = torch.tensor([[1.0, 0.0], [1.0, 2.0]]).T[None, :, None]  # two cells of two channels
    second = torch.tensor([[0.0, 3.0], [2.0, 4.0]]).T[None, :, None]
    assert discrepancy(first, second).item() == pytest.approx(1 + (0 + 1) / 2)
    assert discrepancy(first, -first).item() == pytest.approx(0)
    assert discrepancy(first, first).item() == pytest.approx(2)


def test_discrepancy_teaches_each_network_half_and_sums_over_parts():
    torch.manual_seed(0)
    first, second = (torch.randn(4, 5, 2, 3, requires_grad=True) for _ in range(2))
    whole = discrepancy(first, second)
    whole.backward()
    expected = torch.autograd.grad(cosine_similarity(first, second, dim=1).mean() / 2, (first, second))
    torch.testing.assert_close(first.grad, expected[0])
    torch.testing.assert_close(second.grad, expected[1])
    parts = [discrepancy(first[i : i + 2], second[i : i + 2], images=4) for i in (0, 2)]
    torch.testing.assert_close(torch.stack(parts).sum(), whole)
