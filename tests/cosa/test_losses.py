"""CoSA's losses: by hand, against loops, as shares of a larger batch, gradients, and batches that teach nothing."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pseudolabel.cosa.assignments import cam_labels, guided_cams, segmentation_labels
from pseudolabel.cosa.losses import (
    c2s_loss,
    classification_loss,
    confident_labels,
    contrastive_loss,
    dense_energy,
    perplexity,
    region_sums,
    region_weights,
    s2c_loss,
    sample_cells,
)
from pseudolabel.pairwise.loss_modules import Bilateral, GatedDenseEnergy

B, C, H, W = 4, 3, 6, 8


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=generator(seed), dtype=torch.float64)


def some_labels(seed: int = 0, size: tuple[int, int] = (H, W), batch: int = B) -> Tensor:
    """0 to C and 255 at random."""
    found = torch.randint(0, C + 2, (batch, *size), generator=generator(seed))
    return torch.where(found == C + 1, 255, found).to(torch.uint8)


def embedding(batch: int = B, size: tuple[int, int] = (3, 4), seed: int = 0) -> Tensor:
    return F.normalize(normal(batch, 5, *size, seed=seed), dim=1)


def assert_slopes(function, values: Tensor) -> None:
    """The gradient against central differences."""
    assert torch.autograd.gradcheck(function, (values.clone().requires_grad_(),), eps=1e-6, atol=1e-6)


def test_classification_by_hand_and_as_shares() -> None:
    logits, tags = torch.tensor([[0.0, math.log(3)]]), torch.tensor([[1.0, 0.0]])
    assert classification_loss(logits, tags).item() == pytest.approx((math.log(2) + math.log(4)) / 2)
    logits, tags = normal(B, C), some_labels()[:, 0, :C] == 1
    whole = classification_loss(logits, tags)
    assert whole.item() == pytest.approx(F.multilabel_soft_margin_loss(logits, tags.double()).item())
    shares = [classification_loss(logits[part], tags[part], images=B) for part in (slice(1), slice(1, B))]
    assert sum(shares).item() == pytest.approx(whole.item())
    assert_slopes(lambda values: classification_loss(values, tags), logits)


def test_perplexity_by_hand() -> None:
    score = torch.tensor([0.0, 0.2, 0.4, 0.7, 1.0])
    found = perplexity(score, 0.4)
    expected = [-math.log(argument) for argument in (0.8, 0.4, 1e-3, 0.4, 0.8)]
    assert found.tolist() == pytest.approx(expected, rel=1e-5)
    assert perplexity(score, 0.4, power=2).tolist() == pytest.approx([value**2 for value in expected], rel=1e-5)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 0.999))
def test_perplexity_is_positive_and_falls_away_from_the_threshold(score: float, other: float, threshold: float) -> None:
    first, second = perplexity(torch.tensor([score, other], dtype=torch.float64), threshold).tolist()
    assert 0 < first <= -math.log(1e-3) + 1e-6
    if (score >= threshold) == (other >= threshold) and abs(score - threshold) > abs(other - threshold):
        assert first <= second


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_perplexity_at_the_ends_is_finite(threshold: float) -> None:
    assert perplexity(torch.tensor([0.0, 0.5, 1.0]), threshold).isfinite().all()


def test_weights_by_hand() -> None:
    labels = torch.tensor([[[0, 0, 2, 255, 1, 3]]], dtype=torch.uint8)
    assert region_weights(labels)[0, 0].tolist() == pytest.approx([1 / 4, 1 / 4, 1 / 6, 0, 1 / 6, 1 / 6])
    confidence = torch.tensor([[[1.0, 3.0, 2.0, 9.0, 1.0, 1.0]]])
    assert region_sums(labels, confidence).tolist() == [[4, 4], [2, 3]]
    assert region_weights(labels, confidence)[0, 0].tolist() == pytest.approx([1 / 8, 3 / 8, 1 / 4, 0, 1 / 8, 1 / 8])
    assert region_weights(labels, even=False)[0, 0].tolist() == pytest.approx([1 / 5, 1 / 5, 1 / 5, 0, 1 / 5, 1 / 5])
    uneven = region_weights(labels, confidence, even=False)[0, 0].tolist()  # 2/5 and 3/5 of the weight
    assert uneven == pytest.approx([1 / 10, 3 / 10, 3 / 10, 0, 3 / 20, 3 / 20])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 9999))
def test_soft_weights_have_mean_one_on_each_region(seed: int) -> None:
    labels, score = some_labels(seed), uniform(B, H, W, seed=seed)
    weights = region_weights(labels, 1 / perplexity(score, 0.4))
    for region in (labels == 0, (labels != 0) & (labels != 255)):
        if region.any():
            assert (2 * region.sum() * weights[region]).mean().item() == pytest.approx(1, rel=1e-5)
    assert (weights[labels == 255] == 0).all()


def c2s_by_hand(logits: Tensor, labels: Tensor, unsureness: Tensor | None) -> float:
    """1/2 mean over background + 1/2 mean over foreground of w CE, w = |R| P^-1 / sum_R P^-1, pixel by pixel."""
    found = 0.0
    every = list(itertools.product(*map(range, labels.shape)))
    for foreground in (False, True):
        pixels = [i for i in every if labels[i] != 255 and (labels[i] > 0) == foreground]
        inverse = [1.0 if unsureness is None else 1 / unsureness[i].item() for i in pixels]
        for (image, y, x), value in zip(pixels, inverse, strict=True):
            weight = len(pixels) * value / sum(inverse)
            entropy = -logits[image, :, y, x].log_softmax(dim=0)[labels[image, y, x].item()].item()
            found += 0.5 * weight * entropy / len(pixels)
    return found


@pytest.mark.parametrize("soft", [False, True])
def test_c2s_against_a_loop_over_pixels(soft: bool) -> None:
    logits, labels = normal(2, C + 1, 3, 4), some_labels(5, (3, 4), 2)
    unsureness = perplexity(uniform(2, 3, 4), 0.4) if soft else None
    weights = region_weights(labels, None if unsureness is None else 1 / unsureness)
    assert c2s_loss(logits, (labels, weights)).item() == pytest.approx(c2s_by_hand(logits, labels, unsureness))
    other = some_labels(6, (3, 4), 2)
    both = c2s_loss(logits, (labels, weights), (other, region_weights(other)))
    expected = (c2s_by_hand(logits, labels, unsureness) + c2s_by_hand(logits, other, None)) / 2
    assert both.item() == pytest.approx(expected)
    uneven = c2s_loss(logits, (labels, weights), (other, region_weights(other)), shares=(0.25, 0.75))
    first, second = c2s_by_hand(logits, labels, unsureness), c2s_by_hand(logits, other, None)
    assert uneven.item() == pytest.approx(0.25 * first + 0.75 * second)
    alone = c2s_loss(logits, (labels, weights), (other, region_weights(other)), shares=(0, 1))
    assert alone.item() == pytest.approx(second)


def test_c2s_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]])[None, :, None]  # shares 1/2, 1/2 and 3/4, 1/4
    labels = torch.tensor([[[1, 0]]], dtype=torch.uint8)
    loss = c2s_loss(logits, (labels, region_weights(labels)))
    assert loss.item() == pytest.approx(0.5 * math.log(2) - 0.5 * math.log(3 / 4))


def test_c2s_has_the_right_slopes_and_ignored_pixels_none() -> None:
    labels = some_labels(1, (4, 6), 2)
    weights = region_weights(labels, uniform(2, 4, 6) + 0.1)
    assert_slopes(lambda values: c2s_loss(values, (labels, weights)), normal(2, C + 1, 2, 3))
    logits = normal(2, C + 1, 4, 6).requires_grad_()
    c2s_loss(logits, (labels, weights)).backward()
    assert (logits.grad.movedim(1, 3)[labels == 255] == 0).all()
    assert (logits.grad.movedim(1, 3)[labels != 255].abs().sum(dim=1) > 0).all()


def test_s2c_by_hand() -> None:
    maps = torch.tensor([-5.0, math.log(3)]).view(1, 2, 1, 1)
    targets = torch.tensor([0.25, 0.75, 0.0]).view(1, 3, 1, 1)
    # relu(-5) = 0, a chance of 1/2 whatever is wanted; log 3, a chance of 3/4 where nothing is
    assert s2c_loss(maps, targets).item() == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_s2c_against_a_loop_and_as_shares() -> None:
    maps, targets = normal(B, C, 3, 4), uniform(B, C + 1, 3, 4)
    inside = uniform(B, 3, 4, seed=3) > 0.3
    total = 0.0
    for image, y, x in inside.nonzero().tolist():
        for label in range(C):
            chance = torch.sigmoid(maps[image, label, y, x].clamp(min=0)).item()
            wanted = targets[image, label + 1, y, x].item()
            total -= (wanted * math.log(chance) + (1 - wanted) * math.log(1 - chance)) / C
    cells = int(inside.sum())
    assert s2c_loss(maps, targets, inside=inside).item() == pytest.approx(total / cells)
    parts = [s2c_loss(maps[i : i + 1], targets[i : i + 1], inside=inside[i : i + 1], cells=cells) for i in range(B)]
    assert sum(parts).item() == pytest.approx(total / cells)
    whole = F.multilabel_soft_margin_loss(maps.clamp(min=0), targets[:, 1:])
    assert s2c_loss(maps, targets).item() == pytest.approx(whole.item())


def test_s2c_slopes_and_its_targets_on_another_grid() -> None:
    maps = normal(2, C, 2, 3)
    maps = maps + 0.1 * maps.sign()  # away from the kink of relu
    assert_slopes(lambda values: s2c_loss(values, uniform(2, C + 1, 4, 6)), maps)
    coarse = s2c_loss(maps, F.interpolate(uniform(2, C + 1, 4, 6), (2, 3), mode="bilinear"))
    assert s2c_loss(maps, uniform(2, C + 1, 4, 6)).item() == pytest.approx(coarse.item())


def test_cells_are_chosen_in_turn_from_every_label() -> None:
    labels = torch.tensor([[[0, 0, 0, 0, 3, 255, 3, 7]]], dtype=torch.uint8)
    noise = torch.tensor([[[0.4, 0.1, 0.3, 0.2, 0.9, 0.0, 0.5, 0.6]]])
    cells, chosen = sample_cells(labels, noise, 5)
    assert sorted(zip(chosen[0].tolist(), cells[0].tolist(), strict=True)) == [(0, 1), (0, 3), (3, 4), (3, 6), (7, 7)]
    cells, chosen = sample_cells(labels, noise, 3)
    assert sorted(zip(chosen[0].tolist(), cells[0].tolist(), strict=True)) == [(0, 1), (3, 6), (7, 7)]
    cells, chosen = sample_cells(labels, noise, 50)
    assert sorted(cells[0].tolist()) == list(range(8))
    assert chosen[0].tolist().count(255) == 1


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.integers(1, 60))
def test_chosen_cells_are_distinct_known_and_spread_over_labels(seed: int, most: int) -> None:
    labels, noise = some_labels(seed), uniform(B, H, W, seed=seed)
    cells, chosen = sample_cells(labels, noise, most)
    for image in range(B):
        assert len(set(cells[image].tolist())) == min(most, H * W)
        assert torch.equal(labels[image].flatten()[cells[image]], chosen[image])
        known = chosen[image][chosen[image] != 255]
        assert len(known) == min(most, int((labels[image] != 255).sum()))
        taken = torch.bincount(known.int(), minlength=C + 1)
        there = torch.bincount(labels[image][labels[image] != 255].int(), minlength=C + 1)
        short = taken < there  # of these there would have been more
        assert not short.any() or taken.max() - taken[short].min() <= 1


def contrast_by_hand(vectors: Tensor, labels: Tensor, temperature: float) -> float:
    """Image by image, anchor by anchor, positive by positive."""
    total = 0.0
    for image in range(len(labels)):
        points = vectors[image].flatten(1).T
        alike = (points @ points.T / temperature).exp().tolist()
        known = [(i, label) for i, label in enumerate(labels[image].flatten().tolist()) if label != 255]
        anchors = []
        for i, label in known:
            positives = [j for j, other in known if other == label and j != i]
            negatives = [n for n, other in known if other != label]
            if label == 0 or not positives or not negatives:
                continue
            against = sum(alike[i][n] for n in negatives)
            anchors.append(sum(-math.log(alike[i][j] / (alike[i][j] + against)) for j in positives) / len(positives))
        total += sum(anchors) / len(anchors) if anchors else 0.0
    return total / len(labels)


def test_contrast_by_hand() -> None:
    vectors = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])[None, :, None]  # two alike, one across
    labels = torch.tensor([[[2, 2, 0]]], dtype=torch.uint8)
    loss = contrastive_loss(vectors, labels, torch.tensor([[[0.1, 0.2, 0.3]]]), most=3, temperature=0.5)
    assert loss.item() == pytest.approx(-math.log(math.exp(2) / (math.exp(2) + 1)))


@pytest.mark.parametrize("seed", range(4))
def test_contrast_against_loops(seed: int) -> None:
    vectors, labels = embedding(seed=seed), some_labels(seed, (3, 4))
    found = contrastive_loss(vectors, labels, uniform(B, 3, 4), most=99)
    assert found.item() == pytest.approx(contrast_by_hand(vectors, labels, 0.5))
    cells, chosen = sample_cells(labels, uniform(B, 3, 4), 6)
    few = torch.full((B, 12), 255, dtype=torch.uint8).scatter(1, cells, chosen).view(B, 3, 4)
    found = contrastive_loss(vectors, labels, uniform(B, 3, 4), most=6, temperature=0.2)
    assert found.item() == pytest.approx(contrast_by_hand(vectors, few, 0.2))


def test_contrast_slopes_shares_and_autocast() -> None:
    vectors, labels, noise = embedding(), some_labels(2, (3, 4)), uniform(B, 3, 4)
    assert_slopes(lambda values: contrastive_loss(values, labels[:2], noise[:2], most=8), vectors[:2])
    whole = contrastive_loss(vectors, labels, noise, most=8)
    parts = [contrastive_loss(vectors[i:][:1], labels[i:][:1], noise[i:][:1], most=8, images=B) for i in range(B)]
    assert sum(parts).item() == pytest.approx(whole.item())
    with torch.autocast("cpu", torch.bfloat16):
        assert contrastive_loss(vectors.float(), labels, noise, most=8).item() == pytest.approx(whole.item(), rel=1e-5)


def test_what_is_apart_costs_less_than_what_is_mixed() -> None:
    labels = torch.tensor([[[1, 1, 0, 0]]], dtype=torch.uint8)
    noise = torch.rand(1, 1, 4)
    apart = F.one_hot(torch.tensor([0, 0, 1, 1]), 2).T.float().view(1, 2, 1, 4)
    mixed = F.one_hot(torch.tensor([0, 1, 0, 1]), 2).T.float().view(1, 2, 1, 4)
    assert contrastive_loss(apart, labels, noise, most=4) < contrastive_loss(mixed, labels, noise, most=4)


def test_only_sure_labels_stay() -> None:
    labels = torch.tensor([[[1, 0, 2, 255]]], dtype=torch.uint8)
    assert confident_labels(labels, torch.tensor([[[0.3, 1.2, 1.0, 0.1]]])).tolist() == [[[1, 255, 2, 255]]]
    score = torch.tensor([[[0.26, 0.28, 0.72, 0.74]]])
    assert (perplexity(score, 0.5) <= 1).tolist() == [[[True, False, False, True]]]


def test_the_energy_is_the_gated_one_of_the_shares() -> None:
    energy = GatedDenseEnergy(weight=1, bilateral=Bilateral(sigma_xy=4, sigma_rgb=40, backend="exact"))
    photographs = torch.randint(0, 256, (B, 3, 8, 12), generator=generator(0), dtype=torch.uint8)
    logits, labels = normal(B, C + 1, 4, 6), some_labels(1, (8, 12))
    inside = torch.ones(B, 8, 12, dtype=torch.bool)
    inside[:, 4:] = False
    shares = F.interpolate(logits, (8, 12), mode="bilinear").softmax(dim=1)
    whole = dense_energy(energy, photographs, logits, labels, inside=inside)
    assert whole.item() == pytest.approx(energy(photographs, shares, labels == 255, inside).item())
    assert whole < 0
    parts = [
        dense_energy(energy, photographs[p], logits[p], labels[p], inside=inside[p], images=B)
        for p in (slice(1), slice(1, B))
    ]
    assert sum(parts).item() == pytest.approx(whole.item())
    logits = logits.clone().requires_grad_()
    dense_energy(energy, photographs, logits, labels, inside=inside).backward()
    assert (logits.grad[:, :, 3:] == 0).all()  # padding, and no neighbour of what is inside
    assert (logits.grad[:, :, :2] != 0).any()


def all_losses(maps: Tensor, logits: Tensor, vectors: Tensor, labels: Tensor, targets: Tensor) -> list[Tensor]:
    """Every term on tensors of one grid, nothing of which is padding."""
    noise = uniform(*labels.shape)
    unsureness = perplexity(uniform(*labels.shape, seed=1).float(), 0.4)
    energy = GatedDenseEnergy(weight=1, bilateral=Bilateral(sigma_xy=4, sigma_rgb=40, backend="exact"))
    photographs = torch.zeros(len(labels), 3, *labels.shape[1:])
    return [
        classification_loss(maps.amax(dim=(2, 3)), targets[:, 1:, 0, 0]),
        c2s_loss(logits, (labels, region_weights(labels)), (labels, region_weights(labels, 1 / unsureness))),
        s2c_loss(maps, targets, inside=labels != 255),
        contrastive_loss(vectors, confident_labels(labels, unsureness), noise, most=6),
        dense_energy(energy, photographs, logits, labels, inside=labels != 255),
    ]


@pytest.mark.parametrize("what", ["background", "foreground", "ignored"])
def test_batches_that_teach_little_have_finite_losses_and_gradients(what: str) -> None:
    label = {"background": 0, "foreground": 2, "ignored": 255}[what]
    labels = torch.full((2, 4, 6), label, dtype=torch.uint8)
    tags = torch.zeros(2, C)
    cams = guided_cams(torch.zeros(2, C, 4, 6), tags)
    assert (cam_labels(cams, tags, (4, 6), low=0.4, high=0.4).labels == 0).all()
    targets = segmentation_labels(normal(2, C + 1, 4, 6), tags).double()
    inputs = [normal(2, channels, 4, 6).requires_grad_() for channels in (C, C + 1, 5)]
    losses = all_losses(*inputs, labels, targets)
    assert all(loss.isfinite() and loss.requires_grad for loss in losses)
    sum(losses).backward()
    assert all(tensor.grad.isfinite().all() for tensor in inputs)
    if what == "ignored":
        assert [loss.item() for loss in losses[1:]] == [0, 0, 0, 0]
        assert all((tensor.grad == 0).all() for tensor in inputs[1:])
    assert losses[3].item() == 0  # no pair of two labels anywhere


def step(maps: Tensor, logits: Tensor, vectors: Tensor, labels: Tensor, targets: Tensor, parts: list[slice]) -> Tensor:
    """Sum of all terms over the parts of a batch, the totals added up over the parts first."""
    confidence = 1 / perplexity(uniform(*labels.shape, seed=1), 0.4)
    noise = uniform(*labels.shape)
    totals = sum(region_sums(labels[p], confidence[p]) for p in parts)
    cells = sum((labels[p] != 255).sum() for p in parts)
    found = torch.zeros((), dtype=torch.float64)
    for p in parts:
        weights = region_weights(labels[p], confidence[p], totals=totals)
        found = found + classification_loss(maps[p].mean(dim=(2, 3)), targets[p, 1:, 0, 0], images=len(labels))
        found = found + c2s_loss(logits[p], (labels[p], weights))
        found = found + s2c_loss(maps[p], targets[p], inside=labels[p] != 255, cells=cells)
        found = found + contrastive_loss(vectors[p], labels[p], noise[p], most=6, images=len(labels))
    return found


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 999), st.integers(1, B - 1))
def test_the_parts_of_a_batch_have_its_loss_and_its_gradient(seed: int, cut: int) -> None:
    labels = some_labels(seed, (3, 4))
    labels[0] = 0  # parts differ much in what they hold
    targets = uniform(B, C + 1, 3, 4, seed=seed)
    found = []
    for parts in ([slice(B)], [slice(cut), slice(cut, B)]):
        inputs = [normal(B, channels, 3, 4, seed=seed).requires_grad_() for channels in (C, C + 1, 5)]
        loss = step(*inputs, labels, targets, parts)
        loss.backward()
        found.append([loss.detach(), *(tensor.grad for tensor in inputs)])
    for whole, cut_up in zip(*found, strict=True):
        torch.testing.assert_close(cut_up, whole)
