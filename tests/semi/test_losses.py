"""What images without masks teach: by hand, by a slow reference, in parts, and without a gradient to the targets."""

import pytest
import torch

from pseudolabel.scribble.step import Known
from pseudolabel.semi.losses import confident_cells, drop_channels, hard_cross_entropy, mixed, squared_difference
from pseudolabel.semi.step import (
    Method,
    Totals,
    hard_targets,
    mask_loss,
    mean_teacher_loss,
    soft_targets,
    targets_of_views,
    totals,
    unimatch_loss,
    weak_losses,
)


def logits_of(*shares):
    """Logits (1, K, 1, cells) whose softmax these are, a tuple of shares a cell."""
    return torch.tensor(shares).log().T[None, :, None]


def test_squared_difference_by_hand():
    logits = logits_of((0.5, 0.5), (0.25, 0.75))
    targets = torch.tensor([[[[1.0, 0.25]], [[0.0, 0.75]]]])
    assert squared_difference(logits, targets).item() == pytest.approx((0.5 + 0.0) / 2)
    counted = torch.tensor([[[False, True]]])
    assert squared_difference(logits, targets, counted=counted).item() == pytest.approx(0.0)
    counted = torch.tensor([[[True, False]]])
    assert squared_difference(logits, targets, counted=counted).item() == pytest.approx(
        0.25
    )  # of all cells all the same


def test_squared_difference_is_a_share_of_the_batch_and_teaches_no_target():
    torch.manual_seed(0)
    logits, targets = torch.randn(4, 3, 2, 5, requires_grad=True), torch.rand(4, 3, 2, 5, requires_grad=True)
    whole = squared_difference(logits, targets.softmax(dim=1))
    parts = [squared_difference(logits[i : i + 2], targets.softmax(dim=1)[i : i + 2], images=4) for i in (0, 2)]
    torch.testing.assert_close(torch.stack(parts).sum(), whole)
    whole.backward()
    assert logits.grad is not None
    assert targets.grad is None
    assert 0 <= whole.item() <= 2
    opposite = squared_difference(torch.tensor([[[[50.0]], [[-50.0]]]]), torch.tensor([[[[0.0]], [[1.0]]]]))
    assert opposite.item() == pytest.approx(2)


def test_confident_cells_reach_the_confidence():
    shares = torch.tensor([[[[0.5, 0.9, 0.6]], [[0.5, 0.1, 0.4]]]])
    assert confident_cells(shares, 0.6).tolist() == [[[False, True, True]]]
    assert confident_cells(shares, 0.0).all()


def test_mixed_targets_are_the_other_images_inside():
    inside = torch.tensor([[[True, False]]])
    own, other = torch.tensor([[[1, 2]]]), torch.tensor([[[3, 4]]])
    assert mixed(own, other, inside).tolist() == [[[3, 2]]]
    soft = mixed(torch.zeros(1, 2, 1, 2), torch.ones(1, 2, 1, 2), inside)
    assert soft.tolist() == [[[[1, 0]], [[1, 0]]]]
    regions = torch.stack([inside, ~inside], dim=1)
    assert targets_of_views(own, other, regions, 2).tolist() == [[[[3, 2]], [[1, 4]]]]
    assert targets_of_views(own, None, None, 2).tolist() == [[[[1, 2]], [[1, 2]]]]


def test_targets_are_restricted_to_what_is_allowed():
    logits = logits_of((0.2, 0.5, 0.3))
    allowed = torch.tensor([True, False, True]).view(1, 3, 1, 1)
    found = soft_targets(logits, allowed, restrict=True).flatten()
    torch.testing.assert_close(found, torch.tensor([0.4, 0.0, 0.6]))
    torch.testing.assert_close(soft_targets(logits, allowed, restrict=False).flatten(), torch.tensor([0.2, 0.5, 0.3]))


def test_mean_teacher_counts_views_alike_and_says_how_many_cells_count():
    method = Method("mean-teacher", confidence=0.8)
    logits = torch.cat([logits_of((0.5, 0.5)), logits_of((0.5, 0.5))])[None]  # (1, 2, 2, 1, 1)
    targets = torch.tensor([[[[[1.0]], [[0.0]]], [[[0.6]], [[0.4]]]]])
    loss, counted = mean_teacher_loss(logits, targets, method, images=1)
    assert loss.item() == pytest.approx(0.5 / 2)  # the second view's target is not sure
    assert counted.item() == pytest.approx(0.5)


def test_masks_count_by_pixel_or_by_image():
    logits = torch.cat([logits_of((0.5, 0.5), (0.5, 0.5)), logits_of((0.25, 0.75), (0.25, 0.75))])
    labels = torch.tensor([[[0, 0]], [[1, 255]]], dtype=torch.uint8)
    found = totals(labels, None)
    assert found.tolist() == [3, 0]
    half, quarter = torch.tensor(0.5).log(), torch.tensor(0.75).log()
    total = Totals(found[0], found[1], 2)
    torch.testing.assert_close(mask_loss(logits, labels, total, Method("supervised")), -(2 * half + quarter) / 3)
    by_image = Method("supervised", by_image=True)
    torch.testing.assert_close(mask_loss(logits, labels, total, by_image), -(half + quarter) / 2)


def test_weak_labels_add_the_losses_that_are_switched_on():
    logits = logits_of((0.5, 0.25, 0.25), (0.5, 0.25, 0.25))
    allowed = torch.tensor([True, True, False]).view(1, 3, 1, 1).expand(1, 3, 1, 2)
    labels = torch.tensor([[[0, 255]]], dtype=torch.uint8)
    known = Known(labels, allowed, torch.tensor([[True, False]]))
    assert totals(labels, labels).tolist() == [1, 1]
    total = Totals(torch.tensor(5.0), torch.tensor(2.0), 1)
    method = Method("supervised", partial=1.0, exclusion=0.1, presence=0.2)
    found = weak_losses(logits, known, total, method)
    expected = {"partial": -torch.tensor(0.5).log() / 2, "exclusion": -torch.tensor(0.75).log()}
    expected["presence"] = -torch.tensor(0.25).log()
    assert {name: weight for name, (weight, _) in found.items()} == {"partial": 1.0, "exclusion": 0.1, "presence": 0.2}
    for name, (_, loss) in found.items():
        torch.testing.assert_close(loss, expected[name])
    assert weak_losses(logits, known, total, Method("supervised")) == {}


def test_hard_cross_entropy_by_hand():
    logits = logits_of((0.5, 0.5), (0.25, 0.75), (0.9, 0.1))
    labels = torch.tensor([[[0, 1, 255]]], dtype=torch.uint8)
    expected = -(torch.tensor(0.5).log() + torch.tensor(0.75).log()) / 3  # of all cells, whether they are sure or not
    torch.testing.assert_close(hard_cross_entropy(logits, labels), expected)
    torch.testing.assert_close(hard_cross_entropy(logits, labels, images=4), expected / 4)
    nothing = torch.full_like(labels, 255)
    assert hard_cross_entropy(logits, nothing).item() == 0


def test_dropped_channels_by_hand():
    features = torch.tensor([[1.0, 2.0, 3.0]]).view(1, 3, 1, 1)
    noise = torch.tensor([[0.1, 0.5, 0.9]])
    assert drop_channels(features, noise, 0.5).flatten().tolist() == [0, 4, 6]
    assert drop_channels(features, noise, 0.0).flatten().tolist() == [1, 2, 3]
    torch.manual_seed(0)
    many = drop_channels(torch.ones(4, 1000, 1, 1), torch.rand(4, 1000), 0.5)
    assert many.mean().item() == pytest.approx(1, abs=0.06)  # four standard errors


def test_hard_targets_are_sure_allowed_or_drawn():
    logits = logits_of((0.05, 0.95, 0.0001), (0.3, 0.6, 0.1), (0.02, 0.96, 0.02), (0.4, 0.3, 0.3))
    labels = torch.tensor([[[255, 255, 255, 2]]], dtype=torch.uint8)
    everything = torch.ones(1, 3, 1, 4, dtype=torch.bool)
    method = Method("unimatch", confidence=0.9)
    assert hard_targets(logits, labels, everything, method).tolist() == [[[1, 255, 1, 2]]]
    allowed = everything.clone()
    allowed[:, 1, :, 0] = False  # background has nearly all that is left there
    allowed[:, 1, :, 2] = False  # and here half of it
    assert hard_targets(logits, labels, allowed, method).tolist() == [[[0, 255, 255, 2]]]
    free = Method("unimatch", confidence=0.9, restrict=False)
    assert hard_targets(logits, labels, allowed, free).tolist() == [[[1, 255, 1, 2]]]


def test_unimatch_halves_its_two_parts():
    own = torch.tensor([[[0]]], dtype=torch.uint8)
    views = torch.tensor([[[[0]], [[1]]]], dtype=torch.uint8)
    strong = torch.stack([logits_of((0.5, 0.5)), logits_of((0.25, 0.75))], dim=1)
    perturbed = logits_of((0.2, 0.8))
    first, second, third = (-torch.tensor(share).log() for share in (0.5, 0.75, 0.2))
    whole = unimatch_loss(strong, perturbed, own, views, images=1)
    torch.testing.assert_close(whole, ((first + second) / 2 + third) / 2)
    torch.testing.assert_close(unimatch_loss(strong, None, own, views, images=1), (first + second) / 2)
    torch.testing.assert_close(unimatch_loss(None, perturbed, own, views, images=1), third)
