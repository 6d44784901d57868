"""A @ S by every backend against the whole matrix, and the properties of A that all share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pseudolabel.pairwise import exact
from pseudolabel.pairwise.features import as_features, position_colour
from pseudolabel.pairwise.kernels import FEW_POINTS, ExactKernel, Kernel, LatticeKernel, WindowKernel, build_kernel

SIZE = (9, 7)

Maker = Callable[[Tensor], Kernel]
BACKENDS: dict[str, Maker] = {
    "exact": ExactKernel,
    "lattice": LatticeKernel,
    "window": lambda features: WindowKernel(features, SIZE, radius=3),
}
each_backend = pytest.mark.parametrize("make", BACKENDS.values(), ids=BACKENDS)
quick = settings(max_examples=15, deadline=None)
seeds = st.integers(0, 2**32 - 1)


def matrix(points: Tensor) -> Tensor:
    """A as it is defined, float64 (N, N) of features (N, D)."""
    return torch.exp(-(points.double()[:, None] - points.double()[None]).square().sum(dim=2) / 2)


def within(radius: int, size: tuple[int, int] = SIZE) -> Tensor:
    """Which pairs of pixels lie in each other's window: bool (N, N)."""
    rows, columns = (place.flatten() for place in torch.meshgrid(*map(torch.arange, size), indexing="ij"))
    return ((rows[:, None] - rows).abs() <= radius) & ((columns[:, None] - columns).abs() <= radius)


def photographs(batch: int = 2, size: tuple[int, int] = SIZE, seed: int = 0) -> Tensor:
    """Two flat halves of different colour under a little noise: uint8 (B, 3, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.full((batch, 3, *size), 60)
    image[..., size[1] // 2 :] += torch.tensor([120, 60, 30])[:, None, None]
    return (image + torch.randint(-6, 7, image.shape, generator=generator)).to(torch.uint8)


def some_features(batch: int = 2, size: tuple[int, int] = SIZE, seed: int = 0) -> Tensor:
    return position_colour(photographs(batch, size, seed), sigma_xy=4, sigma_rgb=20)


def some_maps(batch: int = 2, count: int = 3, points: int = SIZE[0] * SIZE[1], seed: int = 1) -> Tensor:
    return torch.rand((batch, count, points), generator=torch.Generator().manual_seed(seed))


def test_features_by_hand() -> None:
    image = torch.arange(12, dtype=torch.uint8).reshape(1, 3, 2, 2)
    found = position_colour(image, sigma_xy=2, sigma_rgb=4)
    expected = [[0, 0, 0, 1, 2], [0.5, 0, 0.25, 1.25, 2.25], [0, 0.5, 0.5, 1.5, 2.5], [0.5, 0.5, 0.75, 1.75, 2.75]]
    torch.testing.assert_close(found, torch.tensor([expected]))
    torch.testing.assert_close(as_features(image, 4), found[:, :, 2:])
    assert position_colour(image.double(), sigma_xy=2, sigma_rgb=4).dtype == torch.float64


def test_two_pixels_by_hand() -> None:
    features = torch.tensor([[[0.0, 0.0], [1.0, 2.0]]])
    maps = torch.tensor([[[1.0, 0.0], [0.25, 0.75]]])
    k = float(np.exp(-2.5))
    expected = torch.tensor([[[1, k], [0.25 + 0.75 * k, 0.75 + 0.25 * k]]])
    torch.testing.assert_close(ExactKernel(features).filter(maps), expected)
    torch.testing.assert_close(WindowKernel(features, (1, 2), radius=1).filter(maps), expected)


def test_exact_is_the_whole_matrix() -> None:
    for features in (some_features(), some_features().double(), some_maps(2, 63, 20)):
        maps = some_maps().to(features.dtype)
        expected = torch.stack(
            [values.double() @ matrix(points) for points, values in zip(features, maps, strict=True)]
        )
        # 63 terms of float32 rounding, and the exponent's.
        tolerance = {"rtol": 1e-5, "atol": 1e-5} if features.dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-12}
        torch.testing.assert_close(ExactKernel(features).filter(maps).double(), expected, **tolerance)


@pytest.mark.parametrize("radius", [1, 2, 5, 30])
def test_window_is_the_matrix_within_the_window(radius: int) -> None:
    features, maps = some_features(), some_maps()
    found = WindowKernel(features, SIZE, radius=radius).filter(maps)
    for image in range(2):
        weights = matrix(features[image]) * within(radius)
        torch.testing.assert_close(found[image].double(), maps[image].double() @ weights, rtol=1e-5, atol=1e-5)


def test_a_window_of_the_whole_image_is_exact() -> None:
    features, maps = some_features(), some_maps()
    found = WindowKernel(features, SIZE, radius=8).filter(maps)
    torch.testing.assert_close(found, ExactKernel(features).filter(maps), rtol=1e-5, atol=1e-5)


def test_the_lattice_is_near_the_exact_sum() -> None:
    size = (48, 40)
    features, maps = some_features(1, size), some_maps(1, 4, 48 * 40)
    found, expected = (kernel(features).filter(maps) for kernel in (LatticeKernel, ExactKernel))
    # benchmarks/quality/pairwise_error.py measures about 0.1 on photographs.
    assert (found - expected).norm() < 0.15 * expected.norm()
    assert float(found.sum() / expected.sum()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("width", [1e-3, 1e3])
def test_far_apart_the_filter_is_the_identity_and_close_together_the_sum(width: float) -> None:
    points = torch.rand((1, 30, 5), generator=torch.Generator().manual_seed(3)) / width
    maps = some_maps(1, 2, 30)
    expected = maps if width < 1 else maps.sum(dim=2, keepdim=True).expand_as(maps)
    torch.testing.assert_close(ExactKernel(points).filter(maps), expected, rtol=1e-4, atol=1e-5)
    # How much of itself a lone point gets back depends on where in its simplex it lies.
    tolerance = 0.6 if width < 1 else 0.02
    torch.testing.assert_close(LatticeKernel(points).filter(maps), expected, rtol=tolerance, atol=0.01)


def test_far_from_the_origin_exact_stays_exact() -> None:
    near, maps = some_maps(1, 40, 3, seed=4), some_maps(1, 2, 40)
    far = near.double() + 1e4
    torch.testing.assert_close(
        ExactKernel(far).filter(maps.double()).float(), ExactKernel(near).filter(maps), rtol=1e-5, atol=1e-5
    )
    spread = torch.cat([near, near + torch.tensor([3e4, 0, 0])], dim=1)  # float32 would lose the exponent: 4.5e8 of 1
    exactly = torch.cat([maps, maps], dim=2)
    expected = exactly[0].double() @ matrix(spread[0])
    torch.testing.assert_close(ExactKernel(spread).filter(exactly)[0].double(), expected, rtol=1e-4, atol=1e-4)


@each_backend
@quick
@given(seed=seeds, mapped=seeds)
def test_symmetry(make: Maker, seed: int, mapped: int) -> None:
    kernel = make(some_features(1, seed=seed))
    x, y = some_maps(1, 2, seed=mapped)[0, :, None, :]
    left, right = (x * kernel.filter(y[None])).sum(), (kernel.filter(x[None]) * y).sum()
    torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-5)


@each_backend
@quick
@given(seed=seeds, mapped=seeds)
def test_positive_maps_stay_positive_and_sums_are_sums(make: Maker, seed: int, mapped: int) -> None:
    kernel = make(some_features(1, seed=seed))
    maps = some_maps(1, 3, seed=mapped)
    filtered = kernel.filter(maps)
    assert (filtered > 0).all()
    together = kernel.filter(2 * maps.sum(dim=1, keepdim=True))
    torch.testing.assert_close(together, 2 * filtered.sum(dim=1, keepdim=True), rtol=1e-5, atol=1e-5)


@each_backend
@quick
@given(seed=seeds, level=st.floats(0.0625, 1, width=32))
def test_a_constant_map_divided_by_the_row_sums_is_constant(make: Maker, seed: int, level: float) -> None:
    kernel = make(some_features(1, seed=seed))
    ones = torch.ones(1, 1, SIZE[0] * SIZE[1])
    torch.testing.assert_close(kernel.filter(level * ones) / kernel.filter(ones), level * ones, rtol=1e-5, atol=0)


@pytest.mark.parametrize("axis", [2, 3])
@each_backend
def test_a_flipped_photograph_filters_to_flipped_maps(make: Maker, axis: int) -> None:
    image, maps = photographs(), some_maps().reshape(2, 3, *SIZE)
    plain = make(position_colour(image, sigma_xy=4, sigma_rgb=20)).filter(maps.flatten(2)).reshape(maps.shape)
    turned = make(position_colour(image.flip(axis), sigma_xy=4, sigma_rgb=20)).filter(maps.flip(axis).flatten(2))
    difference = (turned.reshape(maps.shape).flip(axis) - plain).norm() / plain.norm()
    # The lattice lies otherwise around a flipped photograph, so that its error is another.
    assert difference < (0.2 if make is LatticeKernel else 1e-6)


@each_backend
def test_the_same_input_gives_the_same_bits_and_stays_untouched(make: Maker) -> None:
    features, maps = some_features(), some_maps()
    kept = features.clone(), maps.clone()
    kernel = make(features)
    first = kernel.filter(maps)
    assert torch.equal(first, kernel.filter(maps))
    assert torch.equal(first, make(features).filter(maps))
    assert torch.equal(features, kept[0])
    assert torch.equal(maps, kept[1])


def test_the_lattice_gives_the_same_bits_on_any_number_of_threads() -> None:
    features, maps, before = some_features(3), some_maps(3, 12), torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(LatticeKernel(features).filter(maps))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@each_backend
def test_images_of_a_batch_do_not_mix(make: Maker) -> None:
    features = torch.cat([some_features(1, seed=0), some_features(1, seed=9)])
    maps = some_maps()
    apart = torch.cat([make(features[i : i + 1]).filter(maps[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(make(features).filter(maps), apart, rtol=1e-6, atol=1e-6)


@each_backend
@pytest.mark.parametrize("count", [0, 1, 255])
def test_any_number_of_maps(make: Maker, count: int) -> None:
    kernel, maps = make(some_features()), some_maps(count=count)
    found = kernel.filter(maps)
    assert found.shape == maps.shape
    if count:
        torch.testing.assert_close(found[:, -1:], kernel.filter(maps[:, -1:]), rtol=1e-5, atol=1e-5)


@each_backend
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float64, torch.bool])
def test_other_types_are_filtered_in_the_features_type(make: Maker, dtype: torch.dtype) -> None:
    kernel, maps = make(some_features()), (some_maps() * 4).to(dtype)
    found = kernel.filter(maps)
    assert found.dtype == torch.float32
    assert torch.equal(found, kernel.filter(maps.float()))
    features = make(some_features()).features
    assert ExactKernel(features.to(torch.bfloat16)).filter(maps).dtype == torch.float32


@each_backend
def test_memory_order_does_not_matter(make: Maker) -> None:
    features, maps = some_features(), some_maps()
    strided = features.mT.contiguous().mT, maps.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    assert not strided[1].is_contiguous()
    found = make(strided[0]).filter(strided[1])
    assert found.is_contiguous()
    torch.testing.assert_close(found, make(features).filter(maps), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (300, 1)])
def test_one_row_or_column(size: tuple[int, int]) -> None:
    features, maps = some_features(1, size), some_maps(1, 2, size[0] * size[1])
    expected = maps[0].double() @ matrix(features[0])
    for kernel in (ExactKernel(features), WindowKernel(features, size, radius=300)):
        torch.testing.assert_close(kernel.filter(maps)[0].double(), expected, rtol=1e-4, atol=1e-4)
    found = LatticeKernel(features).filter(maps)[0].double()
    assert (found - expected).norm() < 0.2 * expected.norm()


@each_backend
def test_zeros_ones_and_nan(make: Maker) -> None:
    kernel, maps = make(some_features()), some_maps()
    assert not kernel.filter(torch.zeros_like(maps)).any()
    assert kernel.filter(torch.ones_like(maps)).isfinite().all()
    maps[0, 1] = torch.nan
    found = kernel.filter(maps)
    assert found[0, 1].isnan().all()
    assert found[:, [0, 2]].isfinite().all()


def test_rows_longer_than_a_chunk_and_chunks_of_several_rows_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    features, maps = some_features().requires_grad_(), some_maps().requires_grad_()
    found = []
    for size in (1, 1000, 2**24):
        monkeypatch.setitem(exact.CHUNK_BYTES, "cpu", size)
        filtered = ExactKernel(features).filter(maps)
        found.append((filtered.detach(), *torch.autograd.grad(filtered.square().sum(), (features, maps))))
    for other in found[1:]:
        for value, expected in zip(other, found[0], strict=True):
            assert (value - expected).norm() < 1e-5 * expected.norm()


def test_exact_and_window_gradients_are_right_for_features_and_maps() -> None:
    features = (some_features(2, (3, 4)).double() / 3).requires_grad_()
    maps = some_maps(2, 2, 12).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda f, m: ExactKernel(f).filter(m), (features, maps))
    for radius in (1, 5):
        assert torch.autograd.gradcheck(
            lambda f, m, r=radius: WindowKernel(f, (3, 4), radius=r).filter(m), (features, maps)
        )


@each_backend
def test_the_gradient_of_the_maps_is_the_filter(make: Maker) -> None:
    kernel, maps, arriving = make(some_features()), some_maps().requires_grad_(), some_maps(seed=5)
    (found,) = torch.autograd.grad(kernel.filter(maps), maps, arriving)
    torch.testing.assert_close(found, kernel.filter(arriving), rtol=1e-6, atol=1e-6)


@each_backend
def test_custom_operators_keep_torchs_rules(make: Maker) -> None:
    features = some_features(1).requires_grad_(make is not LatticeKernel)
    maps = some_maps(1).requires_grad_()
    if make is ExactKernel:
        torch.library.opcheck(
            exact.exact_filter,
            (features, maps),
            test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
        )
    kernel = make(features)
    with torch.autocast("cpu", torch.bfloat16):
        found = kernel.filter(maps.bfloat16())
        assert found.dtype == torch.float32
        found.sum().backward()
    torch.testing.assert_close(found, kernel.filter(maps.bfloat16().float()))
    assert maps.grad is not None


def test_auto_takes_what_serves() -> None:
    few, many = torch.rand(1, FEW_POINTS, 5), torch.rand(1, FEW_POINTS + 1, 5)
    assert isinstance(build_kernel(few), ExactKernel)
    assert isinstance(build_kernel(many), LatticeKernel)
    assert isinstance(build_kernel(few, "lattice"), LatticeKernel)
    assert isinstance(build_kernel(many, "exact"), ExactKernel)
    for unfit in (many.double(), many.clone().requires_grad_(), torch.rand(1, FEW_POINTS + 1, 17), many[..., :1]):
        assert isinstance(build_kernel(unfit), ExactKernel)


BAD: dict[str, tuple[Callable[[], object], str]] = {
    "no axis for the batch": (
        lambda: ExactKernel(torch.zeros(4, 5)),
        "features must be (B, N, D), none of them 0, found (4, 5)",
    ),
    "no pixel": (
        lambda: LatticeKernel(torch.zeros(1, 0, 5)),
        "features must be (B, N, D), none of them 0, found (1, 0, 5)",
    ),
    "infinite": (
        lambda: ExactKernel(torch.full((1, 2, 5), torch.inf)),
        "features must be finite, found NaN or infinity; check the image and the widths",
    ),
    "NaN": (
        lambda: LatticeKernel(torch.full((1, 2, 5), torch.nan)),
        "features must be finite, found NaN or infinity; check the image and the widths",
    ),
    "float64 lattice": (
        lambda: build_kernel(torch.zeros(1, 2, 5).double(), "lattice"),
        "the lattice computes in float32, found float64 features; use backend exact",
    ),
    "lattice with gradient": (
        lambda: build_kernel(torch.zeros(1, 2, 5, requires_grad=True), "lattice"),
        "the lattice gives features no gradient; detach them, or use backend exact",
    ),
    "too many dimensions": (
        lambda: build_kernel(torch.zeros(1, 2, 17), "lattice"),
        "the lattice takes 2-16 features a pixel, found 17; use backend exact",
    ),
    "unknown backend": (
        lambda: build_kernel(torch.zeros(1, 2, 5), "window"),  # type: ignore[arg-type]
        "backend must be auto, lattice or exact, found window",
    ),
    "window of another size": (
        lambda: WindowKernel(torch.zeros(1, 6, 5), (2, 4), radius=1),
        "size 2 x 4 does not hold the 6 pixels of the features",
    ),
    "window of radius 0": (
        lambda: WindowKernel(torch.zeros(1, 6, 5), (2, 3), radius=0),
        "radius must be at least 1 pixel, found 0",
    ),
    "maps of another size": (
        lambda: ExactKernel(torch.zeros(1, 6, 5)).filter(torch.zeros(1, 3, 7)),
        "maps must be (1, K, 6), found (1, 3, 7)",
    ),
    "complex maps": (
        lambda: ExactKernel(torch.zeros(1, 6, 5)).filter(torch.zeros(1, 3, 6, dtype=torch.complex64)),
        "maps must be real and on cpu, where the features are; found torch.complex64 on cpu",
    ),
    "maps elsewhere": (
        lambda: ExactKernel(torch.zeros(1, 6, 5)).filter(torch.zeros(1, 3, 6, device="meta")),
        "maps must be real and on cpu, where the features are; found torch.float32 on meta",
    ),
    "grey image": (
        lambda: position_colour(torch.zeros(1, 1, 4, 4), sigma_xy=1, sigma_rgb=1),
        "image must be (B, 3, H, W), found (1, 1, 4, 4)",
    ),
    "width 0": (
        lambda: position_colour(torch.zeros(1, 3, 4, 4), sigma_xy=0, sigma_rgb=1),
        "sigma_xy must be a finite number above 0, found 0",
    ),
    "negative width": (
        lambda: position_colour(torch.zeros(1, 3, 4, 4), sigma_xy=1, sigma_rgb=-2.5),
        "sigma_rgb must be a finite number above 0, found -2.5",
    ),
    "width NaN": (
        lambda: as_features(torch.zeros(1, 3, 4, 4), float("nan")),
        "sigma must be a finite number above 0, found nan",
    ),
    "feature maps without batch": (
        lambda: as_features(torch.zeros(3, 4, 4), 1),
        "feature maps must be (B, D, H, W), found (3, 4, 4)",
    ),
}


@pytest.mark.parametrize(("call", "message"), BAD.values(), ids=BAD)
def test_errors(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
        call()
    assert str(caught.value) == message


TRITON = """
import torch
from pseudolabel.pairwise.exact import exact_filter
from pseudolabel.pairwise.triton_filter import triton_filter
for batch, count, points, dimensions in [(2, 3, 130, 5), (1, 130, 70, 7)]:
    features, maps = torch.randn(batch, points, dimensions) * 2, torch.rand(batch, count, points)
    strided = maps.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    found = triton_filter(features, strided)
    expected = exact_filter(features, maps)
    assert (found - expected).norm() < 1e-5 * expected.norm()
print("equal")
"""


needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")


@needs_triton
@pytest.mark.parametrize("capability", [80, 90])
def test_the_triton_kernel_compiles_for_gpus(capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    triton, targets = (pytest.importorskip(name) for name in ("triton", "triton.backends.compiler"))
    from pseudolabel.pairwise.triton_filter import _kernel

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")  # else Triton 3.9 warns that its default will change
    constants = {"dimensions": 2, "padded": 16, "row_block": 16, "column_block": 16}
    types = dict.fromkeys(("features", "maps", "filtered"), "*fp32") | dict.fromkeys(("points", "count"), "i32")
    source = triton.compiler.ASTSource(
        fn=_kernel, signature=types | dict.fromkeys(constants, "constexpr"), constexprs=constants
    )
    assert "ex2.approx" in triton.compile(source, target=targets.GPUTarget("cuda", capability, 32)).asm["ptx"]


@needs_triton
def test_the_triton_kernel_in_its_interpreter() -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", TRITON], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "equal\n", done.stderr
