"""DFR's parts, feature consistency and dynamic kernel, and all regularisers by name."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pseudolabel.pairwise.features import position_colour
from pseudolabel.pairwise.loss_modules import Bilateral, DenseCrfLoss, GatedCrfLoss, KernelCut, NormalisedCut
from pseudolabel.scribble.boxes import tags_allow
from pseudolabel.scribble.consistency import consistency_loss, known_labels, labels_on_grid
from pseudolabel.scribble.kernel import DynamicLoss, dynamic_features
from pseudolabel.scribble.regularisers import Name, build_regulariser, default_weight

B, C, D, SIZE = 4, 3, 5, (8, 10)
NAMES: list[Name] = [name for name in get_args(Name) if name != "none"]
KERNEL = Bilateral(sigma_xy=8, sigma_rgb=60, scale=0.5, backend="exact")


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=generator(seed), dtype=torch.float64)


def embedding(size: tuple[int, int] = (3, 4), batch: int = B, seed: int = 0) -> Tensor:
    return F.normalize(normal(batch, D, *size, seed=seed), dim=1)


def some_labels(size: tuple[int, int] = (3, 4), seed: int = 0) -> Tensor:
    """0 to C and 255 at random."""
    found = torch.randint(0, C + 2, (B, *size), generator=generator(seed))
    return found.masked_fill(found == C + 1, 255).to(torch.uint8)


def photographs(seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (B, 3, *SIZE), generator=generator(seed), dtype=torch.uint8)


def shares(seed: int = 0) -> Tensor:
    return normal(B, C + 1, *SIZE, seed=seed).softmax(dim=1)


def test_the_commonest_label_of_a_cell_by_hand() -> None:
    labels = torch.full((1, 4, 6), 255, dtype=torch.uint8)
    labels[0, 0, 1] = 7  # one pixel is enough
    labels[0, 1, 2:4] = 3  # as many of 3 as of 2 in the next cell
    labels[0, 0, 2:4] = 2
    labels[0, 3, 4:6] = 0
    labels[0, 2, 5] = 5
    assert labels_on_grid(labels, (2, 3)).tolist() == [[[7, 2, 255], [255, 255, 0]]]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 999), st.integers(1, 8), st.integers(1, 10))
def test_the_commonest_label_of_a_cell_against_a_loop(seed: int, height: int, width: int) -> None:
    labels = some_labels(SIZE, seed).masked_fill(uniform(B, *SIZE, seed=seed) > 0.3, 255)
    expected = torch.full((B, height, width), 255, dtype=torch.uint8)
    for image in range(B):
        pixels: dict[tuple[int, int], list[int]] = {}
        for y in range(SIZE[0]):
            for x in range(SIZE[1]):
                if (label := int(labels[image, y, x])) != 255:
                    pixels.setdefault((y * height // SIZE[0], x * width // SIZE[1]), []).append(label)
        for cell, found in pixels.items():
            expected[image, *cell] = min(set(found), key=lambda label, all_=found: (-all_.count(label), label))
    assert torch.equal(labels_on_grid(labels, (height, width)), expected)
    assert torch.equal(labels_on_grid(labels, SIZE), labels)


def test_known_labels_by_hand() -> None:
    scribbles = torch.tensor([[[2, 255, 255, 255]]], dtype=torch.uint8)
    chances = torch.tensor([[0.95, 0.95, 0.5, 0.1], [0.0, 0.0, 0.5, 0.7], [0.05, 0.05, 0.0, 0.2]])[None, :, None]
    assert known_labels(scribbles, chances, None).tolist() == [[[2, 255, 255, 255]]]
    assert known_labels(scribbles, chances, 0.9).tolist() == [[[2, 0, 255, 255]]]
    assert known_labels(scribbles, chances, 0.5).tolist() == [[[2, 0, 0, 1]]]  # at least as sure; of equals the lower
    assert known_labels(scribbles, chances, 0.6).tolist() == [[[2, 0, 255, 1]]]
    second = tags_allow(torch.tensor([[0, 1]]))  # without the first class the last cell has 1/3 and 2/3
    assert known_labels(scribbles, chances, 0.6, allowed=second).tolist() == [[[2, 0, 0, 2]]]


def consistency_by_hand(vectors: Tensor, labels: Tensor, temperature: float, bias: float) -> float:
    """Image by image, pair by pair."""
    total = 0.0
    for image in range(len(labels)):
        points, label = vectors[image].flatten(1).T, labels[image].flatten().tolist()
        costs: tuple[list[float], list[float]] = ([], [])
        for i in range(len(label)):
            for j in range(i):
                if 255 in (label[i], label[j]):
                    continue
                chance = 1 / (1 + math.exp(-(float(points[i] @ points[j]) - bias) / temperature))
                same = label[i] == label[j]
                costs[same].append(-math.log(chance if same else 1 - chance))
        total += sum(sum(found) / len(found) for found in costs if found) / 2
    return total / len(labels)


def test_consistency_by_hand() -> None:
    vectors = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])[None, :, None]
    labels, noise = torch.tensor([[[2, 2, 0]]], dtype=torch.uint8), torch.rand(1, 1, 3)
    found = consistency_loss(vectors, labels, noise, most=3, temperature=0.25, bias=0.5)
    assert found.item() == pytest.approx(math.log1p(math.exp(-2)))  # all pairs are 0.5 on the right side
    wrong = consistency_loss(vectors, labels[..., [0, 2, 1]], noise, most=3, temperature=0.25, bias=0.5)
    assert wrong.item() == pytest.approx((math.log1p(math.exp(2)) + (math.log1p(math.exp(2)) + found.item()) / 2) / 2)


@pytest.mark.parametrize("seed", range(3))
def test_consistency_against_loops(seed: int) -> None:
    vectors, labels, noise = embedding(seed=seed), some_labels(seed=seed), uniform(B, 3, 4)
    found = consistency_loss(vectors, labels, noise, most=99)
    assert found.item() == pytest.approx(consistency_by_hand(vectors, labels, 0.1, 0.5))
    found = consistency_loss(vectors, labels, noise, most=99, temperature=0.5, bias=-0.1)
    assert found.item() == pytest.approx(consistency_by_hand(vectors, labels, 0.5, -0.1))


def test_consistency_of_chosen_cells() -> None:
    labels = torch.tensor([[[0, 0, 0, 1]]], dtype=torch.uint8).expand(B, -1, -1)
    vectors, noise = embedding((1, 4)), torch.tensor([[[0.3, 0.1, 0.2, 0.4]]]).expand(B, -1, -1)
    two = labels.clone()
    two[..., [0, 2]] = 255  # in turn from each label: the first background cell and the only other one
    found = consistency_loss(vectors, labels, noise, most=2)
    assert found.item() == pytest.approx(consistency_by_hand(vectors, two, 0.1, 0.5))


def test_consistency_slopes_shares_and_autocast() -> None:
    vectors, labels, noise = embedding(), some_labels(seed=2), uniform(B, 3, 4)
    values = vectors[:2].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda h: consistency_loss(h, labels[:2], noise[:2], most=8), (values,))
    whole = consistency_loss(vectors, labels, noise, most=8)
    parts = [consistency_loss(vectors[i:][:1], labels[i:][:1], noise[i:][:1], most=8, images=B) for i in range(B)]
    assert torch.stack(parts).sum().item() == pytest.approx(whole.item())
    with torch.autocast("cpu", torch.bfloat16):
        assert consistency_loss(vectors.float(), labels, noise, most=8).item() == pytest.approx(whole.item(), rel=1e-5)


@pytest.mark.parametrize("label", [0, 2, 255])
def test_consistency_of_one_class_or_none_is_finite(label: int) -> None:
    vectors = embedding().requires_grad_()
    labels = torch.full((B, 3, 4), label, dtype=torch.uint8)
    loss = consistency_loss(vectors, labels, uniform(B, 3, 4), most=8)
    loss.backward()
    assert vectors.grad is not None
    assert vectors.grad.isfinite().all()
    assert (loss.item() == 0) == (label == 255)
    assert (vectors.grad == 0).all().item() == (label == 255)


def test_consistency_teaches_three_classes_to_be_apart() -> None:
    labels = torch.tensor([[[0, 0, 1, 1, 2, 2]]], dtype=torch.uint8)
    free = normal(1, D, 1, 6).requires_grad_()
    optimiser = torch.optim.Adam([free], lr=0.1)
    for _ in range(60):
        optimiser.zero_grad()
        loss = consistency_loss(F.normalize(free, dim=1), labels, uniform(1, 1, 6), most=6)
        loss.backward()
        optimiser.step()
    points = F.normalize(free, dim=1)[0, :, 0].T.detach()
    cosines, same = points @ points.T, labels[0, 0, :, None] == labels[0, 0]
    assert cosines[same].min() > 0.9
    assert cosines[~same].max() < 0.2


def test_dynamic_features_by_hand() -> None:
    shallow = torch.arange(10.0).view(1, 2, 5)
    deep = torch.tensor([[1.0, 0.0], [0.0, 1.0]])[None, :, None].requires_grad_()
    found = dynamic_features(shallow, deep, (1, 2), sigma=0.5)
    assert found[0].tolist() == [[0, 1, 2, 3, 4, 2, 0], [5, 6, 7, 8, 9, 0, 2]]
    assert not found.requires_grad
    distance = (found[0, 0, 5:] - found[0, 1, 5:]).square().sum()
    assert math.exp(-distance / 2) == pytest.approx(math.exp(-4))


def dynamic_by_hand(image: Tensor, maps: Tensor, deep: Tensor, sigma: float) -> float:
    """1 - sum of S^T A S over 1^T A 1, with whole matrices, at the photograph's own size."""
    place = position_colour(image, sigma_xy=KERNEL.sigma_xy, sigma_rgb=KERNEL.sigma_rgb)
    h = F.interpolate(deep, SIZE, mode="bilinear").flatten(2).mT
    total = 0.0
    for i in range(B):
        squares = torch.cdist(place[i], place[i]).square() + torch.cdist(h[i], h[i]).square() / sigma**2
        a, s = torch.exp(-squares / 2), maps[i].flatten(1)
        total += float(1 - (s @ a * s).sum() / a.sum())
    return total / B


def test_the_dynamic_loss_is_the_formula() -> None:
    whole = Bilateral(sigma_xy=8, sigma_rgb=60, scale=1, backend="exact")
    image, maps, deep = photographs().double(), shares(), embedding()
    found = DynamicLoss(weight=3, bilateral=whole, sigma=0.7)(image, maps, embedding=deep)
    assert found.item() == pytest.approx(3 * dynamic_by_hand(image, maps, deep, 0.7))
    shallow = DynamicLoss(bilateral=whole)(image, maps)
    assert shallow.item() == pytest.approx(dynamic_by_hand(image, maps, torch.zeros_like(deep), 1))
    wide = DynamicLoss(bilateral=whole, sigma=1e6)(image, maps, embedding=deep)
    assert wide.item() == pytest.approx(shallow.item())


def test_the_dynamic_kernel_parts_what_colours_do_not() -> None:
    grey = torch.full((1, 3, 4, 8), 127, dtype=torch.uint8)
    left = torch.zeros(1, 1, 4, 8)
    left[..., :4] = 1
    deep = torch.cat([left, 1 - left], dim=1)
    loss = DynamicLoss(bilateral=Bilateral(scale=1, backend="exact"), sigma=0.3)
    with_edge, across = torch.cat([left, 1 - left], dim=1), torch.cat([left.roll(2, 3), 1 - left.roll(2, 3)], dim=1)
    assert loss(grey, with_edge, embedding=deep) < 0.01 < 0.4 < loss(grey, across, embedding=deep)
    torch.testing.assert_close(loss(grey, with_edge), loss(grey, across), atol=0.01, rtol=0)  # colours see no edge


def test_the_dynamic_loss_gives_shares_a_gradient_and_the_embedding_none() -> None:
    logits, deep = normal(B, C + 1, *SIZE).requires_grad_(), embedding().requires_grad_()
    loss = DynamicLoss(bilateral=Bilateral(sigma_xy=8, sigma_rgb=60, scale=0.5, backend="exact"))

    def of_logits(values: Tensor) -> Tensor:
        found: Tensor = loss(photographs().double(), values.softmax(dim=1), embedding=deep)
        return found

    assert torch.autograd.gradcheck(of_logits, (logits,), fast_mode=True)
    of_logits(logits).backward()
    assert logits.grad is not None
    assert (logits.grad != 0).any()
    assert deep.grad is None


def test_a_window_ties_near_pixels_only() -> None:
    image, maps, deep = photographs(), shares().float(), embedding().float()
    every = DynamicLoss(bilateral=KERNEL)(image, maps, embedding=deep)
    wide = DynamicLoss(bilateral=KERNEL, radius=10)(image, maps, embedding=deep)
    near = DynamicLoss(bilateral=KERNEL, radius=1)(image, maps, embedding=deep)
    torch.testing.assert_close(wide, every)
    assert abs(near - every) > 1e-3


def test_the_lattice_takes_eleven_dimensions_and_no_more() -> None:
    lattice = Bilateral(sigma_xy=8, sigma_rgb=60, scale=1, backend="lattice")
    for dimensions in (11, 12):
        deep = F.normalize(torch.ones(B, dimensions, 3, 4), dim=1)
        if dimensions == 11:
            found = DynamicLoss(bilateral=lattice)(photographs(), shares().float(), embedding=deep)
            assert 0 < found < 1
            continue
        with pytest.raises(ValueError, match=r"^the lattice takes 2-16 features a pixel, found 17; use backend exact$"):
            DynamicLoss(bilateral=lattice)(photographs(), shares().float(), embedding=deep)


def test_regularisers_are_the_engines_losses() -> None:
    image, maps, deep = photographs(), shares().float(), embedding().float()
    inside = uniform(B, *SIZE) > 0.2
    own = {
        "densecrf": DenseCrfLoss(bilateral=KERNEL),
        "normalised-cut": NormalisedCut(bilateral=KERNEL),
        "kernel-cut": KernelCut(bilateral=KERNEL),
        "gated-crf": GatedCrfLoss(bilateral=KERNEL),
    }
    assert {*own, "dfr"} == set(NAMES)
    for name in NAMES:
        loss = build_regulariser(name, bilateral=KERNEL, sigma=0.4)
        assert loss is not None
        if name == "dfr":
            expected = DynamicLoss(bilateral=KERNEL, sigma=0.4)(image, maps, inside, deep)
        elif name == "gated-crf":
            expected = torch.stack([own[name](image[i, None], maps[i, None], inside[i, None]) for i in range(B)]).mean()
        else:
            expected = own[name](image, maps, inside)
        torch.testing.assert_close(loss(image, maps, inside, deep), expected)
    assert build_regulariser("none") is None
    with pytest.raises(ValueError, match=r"^regulariser must be one of none, densecrf, .*, dfr, found crf$"):
        build_regulariser("crf")  # type: ignore[arg-type]


def test_regularisers_have_the_published_settings() -> None:
    published = {name: build_regulariser(name) for name in NAMES}
    released = "bilateral=Bilateral(sigma_xy=100, sigma_rgb=15, scale=0.5, backend='auto')"
    assert f"weight=2e-09, {released}" in str(published["densecrf"])
    assert f"weight=0.1, {released}" in str(published["kernel-cut"])
    assert "weight=0.1, bilateral=Bilateral(sigma_xy=6, sigma_rgb=25.5" in str(published["gated-crf"])
    assert "scale=0.25, backend='exact'" in str(published["dfr"])


def test_a_regularisers_weight_is_its_own_or_the_one_given() -> None:
    assert default_weight("densecrf", 513) == 2e-9
    assert default_weight("densecrf", 171) == pytest.approx(2e-9 * 81)  # a third of the side: 1 / 3^4 of the pairs
    assert [default_weight(name, 171) for name in ("none", "gated-crf", "dfr")] == [0, 0.1, 1]
    assert [default_weight(name, 171) for name in ("normalised-cut", "kernel-cut")] == [0.1, 0.1]
    image, maps = photographs(), shares().float()
    for name in NAMES:
        once, twice = (
            build_regulariser(name, weight=factor * default_weight(name, 171), crop=171, bilateral=KERNEL)
            for factor in (1, 2)
        )
        own = build_regulariser(name, crop=171, bilateral=KERNEL)
        assert once is not None
        assert twice is not None
        assert own is not None
        torch.testing.assert_close(once(image, maps), own(image, maps))
        torch.testing.assert_close(twice(image, maps), 2 * own(image, maps))
    small = build_regulariser("densecrf", crop=171, bilateral=KERNEL)
    assert small is not None
    torch.testing.assert_close(small(image, maps), 81 * DenseCrfLoss(bilateral=KERNEL)(image, maps))
    shallow = build_regulariser("dfr", bilateral=KERNEL, sigma=None)
    assert shallow is not None
    torch.testing.assert_close(
        shallow(image, maps, None, embedding().float()), DynamicLoss(bilateral=KERNEL)(image, maps)
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("padded", [False, True])
def test_regularisers_are_means_over_images(name: Name, padded: bool) -> None:
    image, deep, inside = photographs(), embedding().float(), uniform(B, *SIZE) > 0.2
    inside[2] = False  # nothing but padding
    loss = build_regulariser(name, bilateral=KERNEL)
    assert loss is not None
    found = []
    for parts in ([slice(B)], [slice(1), slice(1, B)]):
        logits = normal(B, C + 1, *SIZE).float().requires_grad_()
        total = torch.zeros(())
        for p in parts:
            mean = loss(image[p], logits[p].softmax(dim=1), inside[p] if padded else None, deep[p])
            total = total + mean * len(image[p]) / B
        total.backward()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()
        found.append((total.detach(), logits.grad))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("name", NAMES)
def test_regularisers_of_no_image_and_under_autocast(name: Name) -> None:
    image, maps, deep = photographs(), shares().to(torch.bfloat16).float(), embedding().to(torch.bfloat16).float()
    loss = build_regulariser(name, bilateral=KERNEL)
    assert loss is not None
    nothing = maps[:0].clone().requires_grad_()
    empty = loss(image[:0], nothing, None, deep[:0])
    empty.backward()
    assert empty.item() == 0
    plain = loss(image, maps, None, deep)
    with torch.autocast("cpu", torch.bfloat16):
        cast = loss(image, maps.bfloat16(), None, deep.bfloat16())
    assert cast.dtype == torch.float32
    torch.testing.assert_close(cast, plain)
