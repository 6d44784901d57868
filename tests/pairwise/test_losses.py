"""The regularised losses against whole matrices, their stated gradients, masks, scaling, autocast and torch.compile."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._dynamo.utils import counters

from pseudolabel.pairwise.features import position_colour
from pseudolabel.pairwise.kernels import ExactKernel, LatticeKernel, WindowKernel
from pseudolabel.pairwise.loss_modules import (
    Bilateral,
    DenseCrfLoss,
    GatedCrfLoss,
    GatedDenseEnergy,
    KernelCut,
    NormalisedCut,
)
from pseudolabel.pairwise.losses import (
    dense_crf_loss,
    disagreement,
    gated_crf_loss,
    gated_dense_energy,
    kernel_cut,
    normalised_cut,
)

SIZE = (4, 5)
POINTS = 20
MODULES: dict[str, type[nn.Module]] = {
    "dense crf": DenseCrfLoss,
    "gated energy": GatedDenseEnergy,
    "normalised cut": NormalisedCut,
    "kernel cut": KernelCut,
    "gated crf": GatedCrfLoss,
}
each_module = pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photographs(batch: int = 2, size: tuple[int, int] = SIZE, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (batch, 3, *size), generator=generator(seed), dtype=torch.uint8)


def some_features(batch: int = 2, size: tuple[int, int] = SIZE) -> Tensor:
    return position_colour(photographs(batch, size).double(), sigma_xy=3, sigma_rgb=90)


def logits(batch: int = 2, count: int = 3, size: tuple[int, int] = SIZE, seed: int = 1) -> Tensor:
    return torch.randn((batch, count, *size), generator=generator(seed), dtype=torch.float64)


def masks(seed: int, size: tuple[int, int] = SIZE) -> Tensor:
    return torch.rand((2, *size), generator=generator(seed)) > 0.4


def matrices(features: Tensor) -> Tensor:
    """A of every image as it is defined: (B, N, N)."""
    return torch.exp(-(features[:, :, None] - features[:, None]).square().sum(dim=3) / 2)


def pair(distance: float, *, dtype: torch.dtype = torch.float64) -> ExactKernel:
    """Two pixels so far apart in features."""
    return ExactKernel(torch.tensor([[[0.0], [distance]]], dtype=dtype))


def two_pixels(*values: tuple[float, float]) -> Tensor:
    """Maps of a 1 x 2 image: (1, K, 1, 2)."""
    return torch.tensor(values, dtype=torch.float64)[None, :, None]


def test_dense_crf_by_hand() -> None:
    k = np.exp(-0.5)
    maps = two_pixels((0.25, 1.0), (0.75, 0.0)).requires_grad_()
    loss = dense_crf_loss(maps, pair(1.0))
    expected = -(0.25**2 + 1 + 2 * k * 0.25) - 0.75**2
    assert loss.item() == pytest.approx(expected)
    loss.backward()
    first, second = -2 * np.array([[0.25 + k, 1 + 0.25 * k], [0.75, 0.75 * k]])
    assert maps.grad is not None
    np.testing.assert_allclose(maps.grad[0, :, 0], [first, second])


def test_gated_energy_by_hand() -> None:
    k = np.exp(-0.5)
    maps = two_pixels((0.25, 0.9), (0.75, 0.1)).requires_grad_()
    loss = gated_dense_energy(maps, pair(1.0), unlabelled=torch.tensor([[[True, False]]]))
    filtered = np.array([[0.25 + 0.9 * k, 0.9 + 0.25 * k], [0.75 + 0.1 * k, 0.1 + 0.75 * k]])
    gated = filtered * [1, 1 - 0.9]  # the second pixel is labelled, and 0.9 sure
    assert loss.item() == pytest.approx(-(gated * [[0.25, 0.9], [0.75, 0.1]]).sum())
    loss.backward()
    assert maps.grad is not None
    np.testing.assert_allclose(maps.grad[0, :, 0], -2 * gated)


def test_normalised_cut_by_hand() -> None:
    k = np.exp(-2)
    maps = two_pixels((1.0, 0.0), (0.0, 1.0))
    assert normalised_cut(maps, pair(2.0)).item() == pytest.approx(2 - 2 / (1 + k))
    assert normalised_cut(maps.flip(3), pair(2.0)).item() == pytest.approx(2 - 2 / (1 + k))
    assert normalised_cut(two_pixels((1.0, 1.0), (0.0, 0.0)), pair(2.0)).item() == pytest.approx(2 - 1)


def test_disagreement_by_hand() -> None:
    k = np.exp(-0.5)
    maps = two_pixels((0.25, 1.0), (0.75, 0.0))
    agreement = 0.25**2 + 0.75**2 + 1 + 2 * k * 0.25
    assert disagreement(maps, pair(1.0)).item() == pytest.approx(1 - agreement / (2 + 2 * k))
    assert disagreement(two_pixels((1.0, 1.0), (0.0, 0.0)), pair(1.0)).item() == pytest.approx(0)
    assert disagreement(two_pixels((1.0, 0.0), (0.0, 1.0)), pair(0.0)).item() == pytest.approx(1 / 2)


def test_disagreement_does_not_care_how_strong_the_kernel_is() -> None:
    features, maps = some_features(1), logits(1).softmax(dim=1)
    twice = torch.cat([features, features], dim=1)  # every pixel two times
    double = torch.cat([maps, maps], dim=2)
    found = disagreement(double, ExactKernel(twice))
    torch.testing.assert_close(found, disagreement(maps, ExactKernel(features)))
    assert dense_crf_loss(double, ExactKernel(twice)).item() == pytest.approx(
        4 * dense_crf_loss(maps, ExactKernel(features)).item()
    )


def test_gated_crf_by_hand() -> None:
    k = np.exp(-0.5)
    kernel = WindowKernel(pair(1.0).features, (1, 2), radius=1)
    maps = two_pixels((0.25, 0.9), (0.75, 0.1))
    assert gated_crf_loss(maps, kernel).item() == pytest.approx(k * (1 - 0.25 * 0.9 - 0.75 * 0.1))
    assert gated_crf_loss(two_pixels((1.0, 1.0), (0.0, 0.0)), kernel).item() == pytest.approx(0)
    alone = gated_crf_loss(maps, kernel, roi=torch.tensor([[[True, False]]]))
    assert alone.item() == pytest.approx(0)


def references(maps: Tensor, kernel: Tensor, roi: Tensor, unlabelled: Tensor) -> dict[str, float]:
    """The formulas as loops over images, classes and pairs."""
    found = dict.fromkeys(("dense crf", "gated energy", "normalised cut", "gated crf", "disagreement"), 0.0)
    inside = roi.flatten(1).double()
    for image, a in enumerate(kernel):
        s = maps[image].flatten(1) * inside[image]
        found["disagreement"] += float(1 - (s @ a * s).sum() / (inside[image] @ a @ inside[image])) / len(maps)
        gate = torch.where(unlabelled[image].flatten(), 1, (inside[image] - s.amax(dim=0)).clamp(min=0))
        for k in range(len(s)):
            agreement = (s[k, :, None] * a * s[k]).sum()
            degree = (inside[image, :, None] * a * s[k]).sum()
            found["dense crf"] -= float(agreement) / len(maps)
            found["gated energy"] -= float((s[k, :, None] * gate[:, None] * a * s[k]).sum()) / len(maps)
            found["normalised cut"] += float(1 - agreement / degree) / len(maps)
        for i in range(POINTS):
            for j in range(POINTS):
                rows, columns = abs(i // 5 - j // 5), abs(i % 5 - j % 5)
                if i != j and max(rows, columns) <= 2:
                    both = float(a[i, j] * inside[image, i] * inside[image, j])
                    found["gated crf"] += both * float(1 - s[:, i] @ s[:, j]) / float(inside.sum())
    return found


@pytest.mark.parametrize("everything", [True, False])
def test_losses_are_the_formulas(everything: bool) -> None:
    features, maps, unlabelled = some_features(), logits().softmax(dim=1), masks(3)
    roi = torch.ones_like(unlabelled) if everything else masks(4)
    expected = references(maps, matrices(features), roi, unlabelled)
    kernel, window = ExactKernel(features), WindowKernel(features, SIZE, radius=2)
    given_roi = None if everything else roi
    found = {
        "dense crf": dense_crf_loss(maps, kernel, roi=given_roi),
        "gated energy": gated_dense_energy(maps, kernel, unlabelled=unlabelled, roi=given_roi),
        "normalised cut": normalised_cut(maps, kernel, roi=given_roi),
        "gated crf": gated_crf_loss(maps, window, roi=given_roi),
        "disagreement": disagreement(maps, kernel, roi=given_roi),
    }
    assert {name: value.item() for name, value in found.items()} == pytest.approx(expected)
    both = kernel_cut(maps, kernel, cut_weight=2, crf_weight=3, roi=given_roi)
    assert both.item() == pytest.approx(2 * expected["normalised cut"] + 3 * expected["dense crf"])


@pytest.mark.parametrize("roi", [None, masks(4)])
def test_gradients_are_the_derivatives(roi: Tensor | None) -> None:
    features, maps = some_features(), logits().requires_grad_()
    kernel, window = ExactKernel(features), WindowKernel(features, SIZE, radius=2)
    everywhere = torch.ones(2, *SIZE, dtype=torch.bool)
    losses: list[Callable[[Tensor], Tensor]] = [
        lambda s: dense_crf_loss(s.softmax(dim=1), kernel, roi=roi),
        lambda s: gated_dense_energy(s.softmax(dim=1), kernel, unlabelled=everywhere, roi=roi),
        lambda s: normalised_cut(s.softmax(dim=1), kernel, roi=roi),
        lambda s: kernel_cut(s.softmax(dim=1), kernel, cut_weight=2, crf_weight=3, roi=roi),
        lambda s: gated_crf_loss(s.softmax(dim=1), window, roi=roi),
        lambda s: disagreement(s.softmax(dim=1), kernel, roi=roi),
        lambda s: disagreement(s.softmax(dim=1), window, roi=roi),
    ]
    for loss in losses:
        assert torch.autograd.gradcheck(loss, maps, fast_mode=True)


def test_the_gated_gradient_is_the_stated_one() -> None:
    features, unlabelled, roi = some_features(), masks(3), masks(4)
    maps = logits().softmax(dim=1).requires_grad_()
    gated_dense_energy(maps, ExactKernel(features), unlabelled=unlabelled, roi=roi).backward()
    inside = roi.flatten(1)[:, None].double()
    s = maps.detach().flatten(2) * inside
    gate = torch.where(unlabelled.flatten(1)[:, None], 1, (inside - s.amax(dim=1, keepdim=True)).clamp(min=0))
    expected = -2 / 2 * inside * gate * (s @ matrices(features))
    assert maps.grad is not None
    torch.testing.assert_close(maps.grad.flatten(2), expected)


def test_the_normalised_cuts_gradient_is_the_stated_one() -> None:
    features, maps = some_features(1), logits(1).softmax(dim=1).requires_grad_()
    normalised_cut(maps, ExactKernel(features)).backward()
    a, s = matrices(features)[0], maps.detach()[0].flatten(1)
    d, filtered = a.sum(dim=1), s @ a
    agreement, degree = (s * filtered).sum(dim=1)[:, None], (s @ d)[:, None]
    assert maps.grad is not None
    torch.testing.assert_close(maps.grad[0].flatten(1), (d * agreement - 2 * filtered * degree) / degree**2)


def test_the_gated_crf_loss_reaches_the_features() -> None:
    features = (some_features(1)).requires_grad_()
    maps = logits(1).softmax(dim=1)
    assert torch.autograd.gradcheck(lambda f: gated_crf_loss(maps, WindowKernel(f, SIZE, radius=2)), features)


def test_features_that_want_a_gradient_are_refused_by_losses_that_give_none() -> None:
    learnt = ExactKernel(some_features().requires_grad_())
    for loss in (dense_crf_loss, normalised_cut, disagreement):
        with pytest.raises(
            ValueError, match=r"^this loss gives the kernel's features no gradient; detach them, or use "
        ):
            loss(logits(), learnt)


def test_padding_has_no_gradient_and_does_not_matter() -> None:
    image, size = photographs(), (4, 8)
    padded = F.pad(image, (0, 3))
    roi = F.pad(torch.ones(2, *SIZE), (0, 3))
    for loss in (dense_crf_loss, normalised_cut, disagreement):
        plain = logits().softmax(dim=1).requires_grad_()
        wide = F.pad(plain.detach(), (0, 3), value=0.5).requires_grad_()
        kernels = [ExactKernel(position_colour(x, sigma_xy=3, sigma_rgb=90)) for x in (image, padded)]
        inner, outer = loss(plain, kernels[0]), loss(wide, kernels[1], roi=roi)
        torch.testing.assert_close(outer, inner)
        inner.backward()
        outer.backward()
        assert plain.grad is not None
        assert wide.grad is not None
        assert wide.grad.shape[2:] == size
        torch.testing.assert_close(wide.grad, F.pad(plain.grad, (0, 3)), rtol=1e-5, atol=1e-5)


def test_classes_without_pixels_and_images_without_region_are_finite() -> None:
    kernel, maps = ExactKernel(some_features()), torch.zeros(2, 3, *SIZE)
    maps[:, 0] = 1
    nothing = torch.zeros(2, *SIZE)
    for roi in (None, nothing):
        s = maps.clone().requires_grad_()
        total = normalised_cut(s, kernel, roi=roi) + dense_crf_loss(s, kernel, roi=roi)
        total += gated_crf_loss(s, WindowKernel(kernel.features, SIZE, radius=2), roi=roi)
        total += disagreement(s, kernel, roi=roi)
        total.backward()
        assert total.isfinite()
        assert s.grad is not None
        assert s.grad.isfinite().all()
    assert normalised_cut(maps, kernel).item() == pytest.approx(2)  # 1 for each class without pixels
    assert normalised_cut(maps, kernel, roi=nothing).item() == 3


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_bounds_and_flips(seed: int) -> None:
    image, maps = photographs(1, seed=seed), logits(1, 4, seed=seed).softmax(dim=1)
    kernel, turned = (
        ExactKernel(position_colour(x.double(), sigma_xy=3, sigma_rgb=90)) for x in (image, image.flip(3))
    )
    assert 0 <= normalised_cut(maps, kernel) <= 4
    assert 0 <= disagreement(maps, kernel) <= 1
    crf, energy = dense_crf_loss(maps, kernel), gated_dense_energy(maps, kernel, unlabelled=masks(0)[:1])
    assert crf <= energy <= 0
    torch.testing.assert_close(dense_crf_loss(maps.flip(3), turned), crf)
    mixed = maps[:, [2, 0, 3, 1]]
    torch.testing.assert_close(normalised_cut(mixed, kernel), normalised_cut(maps, kernel))
    window = WindowKernel(kernel.features, SIZE, radius=2)
    one_class = torch.ones_like(maps[:, :1])
    assert abs(gated_crf_loss(one_class, window).item()) < 1e-12
    assert gated_crf_loss(maps, window) > 0


def run(module: nn.Module, image: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and gradient of a module, half of the pixels unlabelled, some of them padding."""
    scores = scores.clone().requires_grad_()
    unlabelled, roi = masks(3, scores.shape[2:]), masks(4, scores.shape[2:])
    extra = (unlabelled, roi) if "GatedDense" in str(module) else (roi,)
    loss: Tensor = module(image, scores.softmax(dim=1), *extra)
    loss.backward()
    assert scores.grad is not None
    return loss.detach(), scores.grad


def small(module: type[nn.Module], backend: str = "auto", scale: float = 0.5) -> nn.Module:
    return module(bilateral=Bilateral(sigma_xy=8, sigma_rgb=60, scale=scale, backend=backend))  # type: ignore[arg-type]


def test_modules_scale_widths_maps_and_masks() -> None:
    size = (6, 7)
    image, maps, roi = photographs(2, size), logits(size=size).softmax(dim=1), masks(4, size)
    module = DenseCrfLoss(weight=3, bilateral=Bilateral(sigma_xy=8, sigma_rgb=60, scale=0.5))
    inner = F.interpolate(maps.float(), (3, 3), mode="bilinear")
    columns = [0, 2, 4]  # of the nearest pixels: floor(7 / 3 times 0, 1, 2)
    kernel = ExactKernel(position_colour(image[:, :, ::2][..., columns], sigma_xy=4, sigma_rgb=60))
    expected = 3 * dense_crf_loss(inner, kernel, roi=roi[:, ::2][..., columns])
    torch.testing.assert_close(module(image, maps.float(), roi), expected)


def test_released_settings() -> None:
    assert str(DenseCrfLoss()) == (
        "DenseCrfLoss(weight=2e-09, bilateral=Bilateral(sigma_xy=100, sigma_rgb=15, scale=0.5, backend='auto'))"
    )
    assert GatedDenseEnergy().weight == 1e-7
    gated = GatedCrfLoss()
    assert (gated.weight, gated.radius, gated.bilateral.sigma_xy, gated.bilateral.sigma_rgb) == (0.1, 5, 6, 25.5)


@each_module
def test_modules_of_one_class_and_of_81(module: type[nn.Module]) -> None:
    for count in (1, 81):
        loss, gradient = run(small(module), photographs(2, (12, 10)), logits(2, count, (12, 10)).float())
        assert loss.isfinite()
        assert gradient.isfinite().all()


@each_module
def test_autocast_changes_nothing(module: type[nn.Module]) -> None:
    image, scores = photographs(2, (12, 10)), logits(size=(12, 10)).to(torch.bfloat16).float()
    plain = run(small(module, scale=1), image, scores)
    with torch.autocast("cpu", torch.bfloat16):
        cast = run(small(module, scale=1), image, scores)
    assert cast[0].dtype == torch.float32
    torch.testing.assert_close(cast, plain)


@each_module
def test_compiled_is_the_same_and_only_numba_breaks_the_graph(module: type[nn.Module]) -> None:
    image, scores = photographs(2, (12, 10)), logits(size=(12, 10)).float()
    backend = "lattice" if module is GatedDenseEnergy else "exact"
    loss = small(module, backend)
    torch._dynamo.reset()
    counters.clear()
    compiled = torch.compile(loss, backend="eager", fullgraph=backend == "exact")
    torch.testing.assert_close(run(compiled, image, scores), run(loss, image, scores), rtol=1e-5, atol=1e-7)
    for reason in counters["graph_break"]:
        assert "function _build at" in reason or "function _lattice_filter at" in reason


def test_the_lattices_losses_and_gradients_are_near_the_exact_ones() -> None:
    rows, columns = np.mgrid[:48, :40]
    ramp = torch.from_numpy(np.stack([3 * rows, 2 * columns, np.where(rows > 20, 200, 50)])).clip(0, 255)[None]
    features = position_colour(ramp, sigma_xy=10, sigma_rgb=20)
    for loss in (dense_crf_loss, normalised_cut):
        gradients = []
        for kernel in (ExactKernel(features), LatticeKernel(features)):
            maps = logits(1, 3, (48, 40)).float().softmax(dim=1).requires_grad_()
            loss(maps, kernel).backward()
            gradients.append(maps.grad)
        exact, approximate = gradients
        # benchmarks/quality/pairwise_error.py measures about 0.1 on photographs.
        assert (exact - approximate).norm() < 0.2 * exact.norm()


BAD: dict[str, tuple[Callable[[], object], str]] = {
    "another size than the kernel's": (
        lambda: dense_crf_loss(torch.zeros(1, 2, 3, 3), pair(1.0)),
        "probabilities must be (B, K, H, W) with B = 1 and H W = 2 as the kernel has, found (1, 2, 3, 3)",
    ),
    "no class": (
        lambda: normalised_cut(torch.zeros(1, 0, 1, 2), pair(1.0)),
        "probabilities must hold at least one class, found 0",
    ),
    "flat maps": (
        lambda: dense_crf_loss(torch.zeros(1, 2, 2), pair(1.0)),
        "probabilities must be (B, K, H, W) with B = 1 and H W = 2 as the kernel has, found (1, 2, 2)",
    ),
    "region of another size": (
        lambda: dense_crf_loss(torch.zeros(1, 2, 1, 2), pair(1.0), roi=torch.ones(1, 2, 1)),
        "roi must be (1, 1, 2), found (1, 2, 1)",
    ),
    "labels for a mask": (
        lambda: gated_dense_energy(torch.zeros(1, 2, 1, 2), pair(1.0), unlabelled=torch.full((1, 1, 2), 255)),
        "unlabelled must be bool, found torch.int64; compare the labels with 255",
    ),
    "unlabelled of another size": (
        lambda: gated_dense_energy(torch.zeros(1, 2, 1, 2), pair(1.0), unlabelled=torch.ones(1, 2) > 0),
        "unlabelled must be (1, 1, 2), found (1, 2)",
    ),
    "maps smaller than the photograph": (
        lambda: DenseCrfLoss()(torch.zeros(1, 3, 8, 8), torch.zeros(1, 2, 4, 4)),
        "image and probabilities must be (B, 3, H, W) and (B, K, H, W), found (1, 3, 8, 8) and (1, 2, 4, 4); "
        "resize the maps first",
    ),
    "mask smaller than the photograph": (
        lambda: DenseCrfLoss()(torch.zeros(1, 3, 8, 8), torch.zeros(1, 2, 8, 8), torch.ones(1, 4, 4)),
        "masks must be (1, 8, 8), found (1, 4, 4)",
    ),
    "width 0": (lambda: Bilateral(sigma_rgb=0), "sigma_rgb must be a finite number above 0, found 0"),
    "infinite width": (
        lambda: Bilateral(sigma_xy=float("inf")),
        "sigma_xy must be a finite number above 0, found inf",
    ),
    "scale 2": (lambda: Bilateral(scale=2), "scale must be above 0 and at most 1, found 2"),
}


@pytest.mark.parametrize(("call", "message"), BAD.values(), ids=BAD)
def test_errors(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
        call()
    assert str(caught.value) == message


def test_what_the_network_sees_is_no_photograph() -> None:
    module, maps = DenseCrfLoss(), torch.full((1, 2, 4, 4), 0.5)
    for least, most in ((-2.0, 2.0), (0.0, 1.0)):
        image = torch.linspace(least, most, 48).reshape(1, 3, 4, 4)
        with pytest.raises(ValueError, match=rf"^image must be the photograph, RGB in 0-255, found {least:.3g} to "):
            module(image, maps)


def test_a_second_derivative_is_an_error_instead_of_a_wrong_one() -> None:
    maps = torch.rand(1, 2, 1, 2, requires_grad=True)
    (first,) = torch.autograd.grad(normalised_cut(maps, pair(1.0)), maps, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.square().sum().backward()
