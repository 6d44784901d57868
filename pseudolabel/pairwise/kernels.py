"""Dense Gaussian kernels between the pixels of images: one interface, three ways to compute A @ S.

A_ij = exp(-|f_i - f_j|^2 / 2) for features f divided by their widths (``features``); docs/pairwise.md says when to use
which. All compute in float32 or float64, whatever autocast says; NaN or infinite maps give such results.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from pseudolabel.pairwise.exact import exact_filter, exact_row_sums
from pseudolabel.pairwise.features import as_float
from pseudolabel.pairwise.lattice import DIMENSIONS, Lattice
from pseudolabel.pairwise.window import window_filter

Backend = Literal["auto", "lattice", "exact"]

FEW_POINTS = 1024
"""Up to so many pixels ``auto`` sums exactly on a processor: some milliseconds, without the lattice's error."""

_SAMPLE = (
    32  # pixels of an image whose exact row sums set the lattice's gain; all of them would change it by 1-4 per cent
)

T = TypeVar("T")
R = TypeVar("R")


class Kernel(ABC):
    """The symmetric matrices A of a batch of images, which are never formed.

    Attributes:
        features: float32 or float64 (B, N, D), divided by their widths.
    """

    def __init__(self, features: Tensor) -> None:
        """Check and keep the features.

        Args:
            features: (B, N, D), any real type; kept as float32 unless float64.

        Raises:
            ValueError: Another number of axes, no pixel, or NaN or infinite features (not looked for while
                ``torch.compile`` traces, as the answer would break the graph).
        """
        if features.ndim != 3 or 0 in features.shape:
            raise ValueError(f"features must be (B, N, D), none of them 0, found {tuple(features.shape)}")
        self.features = as_float(features)
        if not torch.compiler.is_compiling() and not self.features.isfinite().all():
            raise ValueError("features must be finite, found NaN or infinity; check the image and the widths")

    def filter(self, maps: Tensor) -> Tensor:
        """A @ S for every map S.

        Args:
            maps: (B, K, N), any real type and memory order, K >= 0.

        Returns:
            (B, K, N) of the features' type, contiguous, with gradient.

        Raises:
            ValueError: Another shape, a complex type, or another device than the features'.
        """
        batch, points, _ = self.features.shape
        if maps.ndim != 3 or (maps.shape[0], maps.shape[2]) != (batch, points):
            raise ValueError(f"maps must be ({batch}, K, {points}), found {tuple(maps.shape)}")
        if maps.is_complex() or maps.device != self.features.device:
            raise ValueError(
                f"maps must be real and on {self.features.device}, where the features are; "
                f"found {maps.dtype} on {maps.device}"
            )
        return self._filter(maps.to(self.features.dtype))

    @abstractmethod
    def _filter(self, maps: Tensor) -> Tensor:
        """A @ S for checked maps of the features' type."""


class ExactKernel(Kernel):
    """Sums over all pairs of pixels, O(N^2): on a GPU, for few pixels, and where exactness matters."""

    def _filter(self, maps: Tensor) -> Tensor:
        filtered: Tensor = exact_filter(self.features, maps)
        return filtered


class LatticeKernel(Kernel):
    """Approximates A on the permutohedral lattice, O(N), on the processor: float32, with as many threads as torch has.

    Each image's lattice is built once and serves all filters and their gradients. Where points are sparse in feature
    space, corners that they do not touch are missing, and the lattice loses about a fifth of A. One factor an image
    makes up for that: the ratio of exact to approximate row sums over 32 pixels. [ours]
    """

    def __init__(self, features: Tensor) -> None:
        """Build the lattices.

        Args:
            features: (B, N, D), D in 2-16.

        Raises:
            ValueError: As any kernel; or float64 features, features that want a gradient, or another D.
        """
        super().__init__(features)
        if features.dtype == torch.float64:
            raise ValueError("the lattice computes in float32, found float64 features; use backend exact")
        if features.requires_grad:
            raise ValueError("the lattice gives features no gradient; detach them, or use backend exact")
        if features.shape[2] not in DIMENSIONS:
            allowed = f"{DIMENSIONS.start}-{DIMENSIONS.stop - 1}"
            found = f"found {features.shape[2]}"
            raise ValueError(f"the lattice takes {allowed} features a pixel, {found}; use backend exact")
        self._lattices: list[_Scaled] = _build(self.features)

    def _filter(self, maps: Tensor) -> Tensor:
        filtered: Tensor = _lattice_filter(maps, self._lattices)
        return filtered


class WindowKernel(Kernel):
    """A within a square window, 0 outside; differentiable in features and maps, on any device.

    Attributes:
        size: Height and width of the image.
        radius: The largest offset of a row or a column that is still inside.
    """

    def __init__(self, features: Tensor, size: tuple[int, int], *, radius: int) -> None:
        """Keep the features.

        Args:
            features: (B, H W, D), pixels row by row.
            size: (H, W).
            radius: Pixels, at least 1.

        Raises:
            ValueError: As any kernel; or the size is not the features', or the radius less than 1.
        """
        super().__init__(features)
        if size[0] * size[1] != features.shape[1]:
            raise ValueError(f"size {size[0]} x {size[1]} does not hold the {features.shape[1]} pixels of the features")
        if radius < 1:
            raise ValueError(f"radius must be at least 1 pixel, found {radius}")
        self.size = size
        self.radius = radius

    def _filter(self, maps: Tensor) -> Tensor:
        features, grid = (flat.reshape(*flat.shape[:2], *self.size) for flat in (self.features.mT, maps))
        filtered: Tensor = window_filter(features, grid, self.radius)
        return filtered.flatten(2)


def build_kernel(features: Tensor, backend: Backend = "auto") -> ExactKernel | LatticeKernel:
    """The kernel over all pairs of pixels.

    Args:
        features: (B, N, D), finite, divided by their widths.
        backend: ``auto`` sums exactly on a GPU, for up to ``FEW_POINTS`` pixels, and where the lattice cannot serve:
            float64 features, features that want a gradient, D outside 2-16. Else it takes the lattice.

    Raises:
        ValueError: The features are not as stated or do not fit the named backend; or an unknown backend.
    """
    if backend not in ("auto", "lattice", "exact"):
        raise ValueError(f"backend must be auto, lattice or exact, found {backend}")
    exact = backend == "exact" or (backend == "auto" and _better_exact(features))
    return ExactKernel(features) if exact else LatticeKernel(features)


def _better_exact(features: Tensor) -> bool:
    unfit = features.dtype == torch.float64 or features.requires_grad or features.shape[-1] not in DIMENSIONS
    return unfit or features.device.type != "cpu" or features.shape[-2] <= FEW_POINTS


class _Scaled(NamedTuple):
    """A lattice, and the root of its gain at every point: float32 (N,)."""

    lattice: Lattice
    scale: np.ndarray


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _build(features: Tensor) -> list[_Scaled]:
    return _in_threads(_build_one, list(features.detach().cpu().contiguous()))


def _build_one(points: Tensor) -> _Scaled:
    lattice = Lattice(points.numpy())
    chosen = torch.linspace(0, len(points) - 1, min(_SAMPLE, len(points)), dtype=torch.float64).round().long()
    approximate = lattice.row_sums()[chosen.numpy()].sum()
    gain = float(exact_row_sums(points, chosen).sum()) / approximate
    return _Scaled(lattice, np.full(len(points), gain**0.5, np.float32))


class _LatticeFilter(torch.autograd.Function):
    """A @ S, whose gradient is A @ g: the lattice's A is symmetric to rounding."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, lattices: list[_Scaled]) -> Tensor:
        ctx.lattices = lattices
        if not maps.numel():
            return torch.empty_like(maps)
        threads = max(1, torch.get_num_threads() // len(lattices))

        def one(pair: tuple[_Scaled, np.ndarray]) -> Tensor:
            scaled, values = pair
            return torch.from_numpy(scaled.lattice.filter(values, scaled.scale, threads=threads))

        pairs = list(zip(lattices, maps.detach().cpu().contiguous().numpy(), strict=True))
        return torch.stack(_in_threads(one, pairs)).to(maps.device)

    @staticmethod
    def backward(ctx: Any, *arriving: Tensor) -> tuple[Tensor, None]:
        gradient: Tensor = _lattice_filter(arriving[0], ctx.lattices)
        return gradient, None


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _lattice_filter(maps: Tensor, lattices: list[_Scaled]) -> Tensor:
    filtered: Tensor = _LatticeFilter.apply(maps, lattices)
    return filtered


def _in_threads(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """The function of each item, on as many threads as torch uses; Numba's code does not hold the interpreter."""
    threads = min(torch.get_num_threads(), len(items))
    if threads == 1:
        return [function(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, items))
