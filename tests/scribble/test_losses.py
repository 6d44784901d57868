"""The losses of weak labels: by hand, against loops, as shares of a larger batch, gradients, and without any label."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pseudolabel.scribble.boxes import tags_allow
from pseudolabel.scribble.losses import (
    exclusion_loss,
    labelled_pixels,
    objectness_loss,
    partial_cross_entropy,
    presence_loss,
    ramp,
)

B, C, H, W = 4, 3, 6, 8
K = C + 1


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=generator(seed), dtype=torch.float64)


def sparse(seed: int = 0, size: tuple[int, int] = (H, W), share: float = 0.4) -> Tensor:
    """Labels of some pixels, 255 elsewhere."""
    labels = torch.randint(0, K, (B, *size), generator=generator(seed))
    return labels.masked_fill(uniform(B, *size, seed=seed) > share, 255).to(torch.uint8)


def some_allowed(seed: int = 0) -> Tensor:
    """Background and random classes in random cells."""
    allowed = uniform(B, K, H, W, seed=seed) > 0.4
    allowed[:, 0] = True
    return allowed


def some_present(seed: int = 0) -> Tensor:
    return uniform(B, C, seed=seed) > 0.5


def prior(seed: int = 0) -> Tensor:
    """Objectness, unknown in some cells and in a whole image."""
    found = uniform(B, H, W, seed=seed).masked_fill(uniform(B, H, W, seed=seed + 1) > 0.8, torch.nan)
    found[1] = torch.nan
    return found


def assert_slopes(function: Callable[[Tensor], Tensor], values: Tensor) -> None:
    assert torch.autograd.gradcheck(function, (values.clone().requires_grad_(),), fast_mode=True)


def every(
    logits: Tensor, seed: int, part: slice, total: Tensor | None = None, images: int | None = None
) -> list[Tensor]:
    """All losses of a part of the batch."""
    labels, allowed, present = sparse(seed)[part], some_allowed(seed)[part], some_present(seed)[part]
    return [
        partial_cross_entropy(logits[part], labels, total=total),
        partial_cross_entropy(logits[part], labels, images=images, by_image=True),
        exclusion_loss(logits[part], allowed, images=images),
        exclusion_loss(logits[part], allowed, inside=labels != 255, images=images),
        presence_loss(logits[part], present, allowed, images=images),
        objectness_loss(logits[part], prior(seed)[part], images=images),
    ]


@pytest.mark.parametrize(
    ("start", "length", "expected"), [(2, 4, [0, 0, 0, 0.25, 0.5, 0.75, 1, 1]), (3, 0, [0, 0, 0, 1, 1, 1, 1, 1])]
)
def test_a_ramp_by_hand(start: int, length: int, expected: list[float]) -> None:
    assert [ramp(step, start, length) for step in range(8)] == expected


@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99))
def test_a_ramp_rises_from_zero_to_one(step: int, start: int, length: int) -> None:
    assert 0 <= ramp(step, start, length) <= ramp(step + 1, start, length) <= ramp(start + length, start, length) == 1
    assert step > start or length == 0 or ramp(step, start, length) == 0


def test_partial_cross_entropy_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3), 9.0], [0.0, 0.0, 0.0]])[None, :, None]  # shares 1/2, 1/2 and 3/4, 1/4
    labels = torch.tensor([[[1, 0, 255]]], dtype=torch.uint8)
    expected = (math.log(2) - math.log(3 / 4)) / 2
    assert partial_cross_entropy(logits, labels).item() == pytest.approx(expected)
    two = torch.cat([logits, logits]), torch.cat([labels, torch.tensor([[[1, 255, 255]]], dtype=torch.uint8)])
    assert partial_cross_entropy(*two).item() == pytest.approx((2 * expected + math.log(2)) / 3)
    assert partial_cross_entropy(*two, by_image=True).item() == pytest.approx((expected + math.log(2)) / 2)


@pytest.mark.parametrize("seed", range(3))
def test_partial_cross_entropy_is_torchs_of_the_enlarged_logits(seed: int) -> None:
    logits, labels = normal(B, K, 3, 4, seed=seed), sparse(seed)
    enlarged = F.interpolate(logits, (H, W), mode="bilinear")
    expected = F.cross_entropy(enlarged, labels.long(), ignore_index=255)
    assert partial_cross_entropy(logits, labels).item() == pytest.approx(expected.item())
    assert labelled_pixels(labels).item() == (labels != 255).sum().item()
    images = [F.cross_entropy(enlarged[i : i + 1], labels[i : i + 1].long(), ignore_index=255).item() for i in range(B)]
    assert partial_cross_entropy(logits, labels, by_image=True).item() == pytest.approx(sum(images) / B)


def test_whole_masks_give_the_whole_cross_entropy() -> None:
    logits, labels = normal(B, K, H, W), torch.randint(0, K, (B, H, W), generator=generator(1), dtype=torch.uint8)
    expected = F.cross_entropy(logits, labels.long()).item()
    assert partial_cross_entropy(logits, labels).item() == pytest.approx(expected)
    assert partial_cross_entropy(logits, labels, by_image=True).item() == pytest.approx(expected)


def test_unlabelled_pixels_have_no_gradient() -> None:
    logits, labels = normal(B, K, H, W).requires_grad_(), sparse()
    partial_cross_entropy(logits, labels).backward()
    assert logits.grad is not None
    slopes = logits.grad.abs().sum(dim=1)
    assert (slopes[labels == 255] == 0).all()
    assert (slopes[labels != 255] > 0).all()


def test_exclusion_by_hand() -> None:
    logits = torch.tensor([0.0, math.log(2), math.log(5)]).view(1, 3, 1, 1)  # shares 1/8, 2/8, 5/8
    for tags, share in (([1, 0], 3 / 8), ([0, 1], 6 / 8), ([0, 0], 1 / 8), ([1, 1], 1)):
        found = exclusion_loss(logits, tags_allow(torch.tensor([tags])))
        assert found.item() == pytest.approx(-math.log(share), abs=1e-6)


def test_exclusion_against_a_loop() -> None:
    logits, allowed, inside = normal(B, K, H, W), some_allowed(), uniform(B, H, W, seed=9) > 0.3
    shares = logits.softmax(dim=1)
    for where in (None, inside):
        images = []
        for image in range(B):
            cells = [(y, x) for y in range(H) for x in range(W) if where is None or where[image, y, x]]
            sums = [-math.log(shares[image, :, y, x][allowed[image, :, y, x]].sum().item()) for y, x in cells]
            images.append(sum(sums) / len(sums))
        assert exclusion_loss(logits, allowed, inside=where).item() == pytest.approx(sum(images) / B)


def test_exclusion_of_all_but_one_class_is_the_cross_entropy_of_that_class() -> None:
    logits, labels = normal(B, K, H, W), torch.randint(0, K, (B, H, W), generator=generator(1))
    allowed = F.one_hot(labels, K).movedim(3, 1).bool()
    assert exclusion_loss(logits, allowed).item() == pytest.approx(F.cross_entropy(logits, labels).item())
    assert exclusion_loss(logits, torch.ones_like(allowed)).item() == pytest.approx(0, abs=1e-12)


def test_presence_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0], [0.0, 0.0]])[None, :, None]
    # shares of the classes: 3/5 and 1/3 of the first, 1/5 and 1/3 of the second
    everywhere = torch.ones(1, 3, 1, 1, dtype=torch.bool)
    first, both = torch.tensor([[True, False]]), torch.tensor([[True, True]])
    assert presence_loss(logits, first, everywhere).item() == pytest.approx(-math.log(3 / 5))
    expected = (-math.log(3 / 5) - math.log(1 / 3)) / 2
    assert presence_loss(logits, both, everywhere).item() == pytest.approx(expected)
    boxed = torch.tensor([[True, True], [False, True], [False, False]])[None, :, None]
    assert presence_loss(logits, both, boxed).item() == pytest.approx(-math.log(1 / 3))  # the second class is nowhere


def test_presence_against_a_loop() -> None:
    logits, present, allowed = normal(B, K, H, W), some_present(), some_allowed()
    shares, total = logits.softmax(dim=1), 0.0
    for image in range(B):
        classes = [c for c in range(C) if present[image, c]]
        best = [shares[image, c + 1][allowed[image, c + 1]].max().item() for c in classes]
        total += sum(-math.log(share) for share in best) / max(1, len(best))
    assert presence_loss(logits, present, allowed).item() == pytest.approx(total / B)


def test_objectness_by_hand() -> None:
    logits = torch.tensor([0.0, math.log(2), math.log(5)]).view(1, 3, 1, 1)  # an object with a chance of 7/8
    found = objectness_loss(logits, torch.tensor([[[0.25]]]))
    assert found.item() == pytest.approx(-0.25 * math.log(7 / 8) - 0.75 * math.log(1 / 8))


def test_objectness_is_a_binary_cross_entropy_of_known_cells() -> None:
    logits, wanted = normal(B, K, H, W), prior()
    chance = 1 - logits.softmax(dim=1)[:, 0]
    images = [
        F.binary_cross_entropy(chance[i][~wanted[i].isnan()], wanted[i][~wanted[i].isnan()]).item()
        for i in range(B)
        if i != 1  # where nothing is known
    ]
    assert objectness_loss(logits, wanted).item() == pytest.approx(sum(images) / B)
    coarse = normal(B, K, 3, 4)
    expected = objectness_loss(F.interpolate(coarse, (H, W), mode="bilinear"), wanted)
    assert objectness_loss(coarse, wanted).item() == pytest.approx(expected.item())


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 999), st.integers(1, B - 1))
def test_the_parts_of_a_batch_have_its_losses_and_its_gradients(seed: int, cut: int) -> None:
    total = labelled_pixels(sparse(seed))
    found = []
    for parts in ([slice(B)], [slice(cut), slice(cut, B)]):
        logits = normal(B, K, H, W, seed=seed).requires_grad_()
        sums = [
            torch.stack(terms).sum() for terms in zip(*(every(logits, seed, p, total, B) for p in parts), strict=True)
        ]
        slopes = [torch.autograd.grad(term, logits, retain_graph=True)[0] for term in sums]
        found.append((torch.stack(sums), torch.stack(slopes)))
    torch.testing.assert_close(*found)
    alone = torch.stack(every(normal(B, K, H, W, seed=seed), seed, slice(B)))
    torch.testing.assert_close(alone, found[0][0].detach())  # without totals a part is the whole batch


def test_slopes() -> None:
    for index in range(6):
        assert_slopes(lambda values, i=index: every(values, 3, slice(2))[i], normal(B, K, H, W, seed=3))
    assert_slopes(lambda values: partial_cross_entropy(values, sparse()), normal(B, K, 3, 4))


def test_losses_are_not_negative_and_do_not_care_for_a_constant() -> None:
    logits = normal(B, K, H, W)
    found, shifted = (every(values, 0, slice(B)) for values in (logits, logits + 7))
    assert all(loss > 0 for loss in found)
    torch.testing.assert_close(found, shifted)


@pytest.mark.parametrize("label", [0, 2, 255])
def test_batches_that_say_little_have_finite_losses_and_gradients(label: int) -> None:
    labels = torch.full((2, H, W), label, dtype=torch.uint8)
    nothing = torch.full((2, H, W), torch.nan)
    for size in (1.0, 1e4):
        logits = (normal(2, K, H, W) * size).requires_grad_()
        found = [
            partial_cross_entropy(logits, labels),
            partial_cross_entropy(logits, labels, by_image=True),
            exclusion_loss(logits, tags_allow(torch.zeros(2, C)), inside=labels != 255),
            presence_loss(logits, torch.zeros(2, C, dtype=torch.bool), tags_allow(torch.zeros(2, C))),
            presence_loss(logits, torch.ones(2, C, dtype=torch.bool), tags_allow(torch.zeros(2, C))),
            objectness_loss(logits, nothing),
        ]
        assert all(loss.isfinite() and loss.requires_grad for loss in found)
        torch.stack([loss.double() for loss in found]).sum().backward()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()
        assert [loss.item() for loss in found[3:]] == [0, 0, 0]
        if label == 255:
            assert (logits.grad == 0).all()


def test_half_precision_is_computed_in_float32() -> None:
    logits = normal(B, K, H, W).to(torch.bfloat16)
    plain = every(logits.float(), 0, slice(B))
    with torch.autocast("cpu", torch.bfloat16):
        cast = every(logits, 0, slice(B))
    assert all(loss.dtype == torch.float32 for loss in cast)
    torch.testing.assert_close(cast, plain)
