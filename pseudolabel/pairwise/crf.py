"""Mean-field inference in a dense conditional random field (Krähenbühl & Koltun 2011; docs/methods.md, section 3).

Pixels i and j of one image, at positions p and with colours I in 0-255, are tied by two Gaussian kernels::

    k(i, j) = w_b exp(-|p_i - p_j|^2 / (2 s_xy^2) - |I_i - I_j|^2 / (2 s_rgb^2))    bilateral
            + w_s exp(-|p_i - p_j|^2 / (2 s_s^2))                                    spatial

and Q <- softmax(-U + sum over kernels of w norm(A Q)), where A is a kernel's matrix, norm is symmetric
(D^-1/2 A D^-1/2, D the row sums of A) and U the unary term, -log of the probabilities one starts from.

Three engines multiply by the bilateral A: ``lattice`` approximates it on the permutohedral lattice, ``exact`` computes
it whole (for small images, or a GPU), and the package pydensecrf, lattice and all, is there to compare with.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pseudolabel.errors import MissingExtraError
from pseudolabel.options import CrfEngine, CrfOptions

if TYPE_CHECKING:
    from pseudolabel.pairwise.meanfield import Filter

_SMALLEST = 1e-5  # a probability of 0 would be an infinite energy; pydensecrf's own floor


@dataclass(frozen=True)
class CrfSettings:
    """The numbers of one dense CRF.

    Attributes:
        iterations: Mean-field iterations.
        spatial_xy: Width s_s of the spatial kernel, pixels.
        spatial_weight: Its weight w_s.
        bilateral_xy: Width s_xy of the bilateral kernel in position, pixels.
        bilateral_rgb: Width s_rgb of the bilateral kernel in colour, grey levels.
        bilateral_weight: Its weight w_b.
        unary: ``soft`` starts from the probabilities; ``hard`` from their argmax, which is given ``gt_prob``.
        gt_prob: Probability of a hard label; the other classes share the rest. Unused where the unary is soft.
    """

    iterations: int
    spatial_xy: float
    spatial_weight: float
    bilateral_xy: float
    bilateral_rgb: float
    bilateral_weight: float
    unary: Literal["soft", "hard"] = "soft"
    gt_prob: float = 0.7


PRESETS: dict[str, CrfSettings] = {
    "deeplab": CrfSettings(10, 1, 3, 67, 3, 4),
    "toco": CrfSettings(10, 1, 1, 121, 5, 4),  # also DuPL and SeCo
    "cosa": CrfSettings(1, 1, 1, 121, 5, 4),
    "afa": CrfSettings(10, 3, 3, 64, 5, 4),
    "toco-labels": CrfSettings(10, 3, 3, 36, 3, 4),
    "psa": CrfSettings(10, 3, 3, 80, 13, 10),
    "irn": CrfSettings(10, 3, 3, 50, 5, 10, unary="hard", gt_prob=0.7),
}
"""The settings of published systems, as found in their released code."""


def resolve(options: CrfOptions) -> CrfSettings:
    """The preset's settings, with every number that the options give in its place."""
    return replace(PRESETS[options.preset], **_given(options))


def describe(options: CrfOptions) -> str:
    """The preset and what differs from it, for instance ``irn, iterations 5``: what a score must state."""
    changes = [f"{name.replace('_', ' ')} {value}" for name, value in _given(options).items()]
    if options.engine != "lattice":
        changes.append(f"engine {options.engine}")
    return ", ".join([options.preset, *changes])


@dataclass(frozen=True)
class Refined:
    """What a CRF made of one image's probabilities.

    Attributes:
        probabilities: float32 (K, H, W) in [0, 1], summing to 1 at every pixel.
        steps: Mean-field iterations done: fewer than asked for where nothing moved any more.
    """

    probabilities: np.ndarray
    steps: int


def dense_crf(
    image: np.ndarray,
    probabilities: np.ndarray,
    settings: CrfSettings,
    *,
    engine: CrfEngine = "lattice",
    compatibility: np.ndarray | None = None,
    device: str = "cpu",
) -> Refined:
    """Refine class probabilities so that they follow the edges of the photograph.

    Args:
        image: uint8 (H, W, 3), the original photograph in RGB, 0-255.
        probabilities: float32 (K, H, W) in [0, 1], summing to 1 at every pixel, K in 1-256.
        settings: The numbers, for instance of ``PRESETS``.
        engine: ``lattice``, ``exact`` or ``pydensecrf``.
        compatibility: float32 (K, K), see ``meanfield.mean_field``; None is the Potts model. Not for pydensecrf.
        device: Where the engine ``exact`` computes, as torch names it; the others use the processor.

    Returns:
        The refined probabilities. With one class there is nothing to decide: all ones, after 0 steps.

    Raises:
        MissingExtraError: The engine pydensecrf is not installed.
        ValueError: Shapes or dtypes are not as stated, a probability is no number, or pydensecrf is given a
            compatibility.
    """
    count = len(probabilities)
    if image.dtype != np.uint8 or image.shape != (*probabilities.shape[1:], 3):
        raise ValueError(f"image must be uint8 {(*probabilities.shape[1:], 3)}, found {image.dtype} {image.shape}")
    if not 1 <= count <= 256:
        raise ValueError(f"a CRF takes 1 to 256 classes, found {count}")
    probabilities = np.ascontiguousarray(probabilities, dtype=np.float32)
    if not np.isfinite(probabilities).all():
        raise ValueError("probabilities must be numbers, found NaN or infinity")
    if count == 1:
        return Refined(np.ones_like(probabilities), 0)
    if not all(0 <= weight < np.inf for weight in (settings.spatial_weight, settings.bilateral_weight)):
        raise ValueError(
            f"kernel weights must be numbers of at least 0, found spatial {settings.spatial_weight} and bilateral "
            f"{settings.bilateral_weight}"
        )
    if compatibility is not None and (compatibility.shape != (count, count) or not np.isfinite(compatibility).all()):
        raise ValueError(f"compatibility must be numbers {(count, count)}, found {compatibility.shape}")
    if engine == "pydensecrf" and compatibility is not None:
        raise ValueError("the engine pydensecrf takes no compatibility matrix here; leave one of them out")
    if engine == "pydensecrf":
        return Refined(_with_pydensecrf(image, _energy(probabilities, settings), settings), settings.iterations)
    if settings.unary == "hard" and compatibility is None:
        return _refine_hard(image, probabilities, settings, engine, device)
    energy = _energy(probabilities, settings)
    return _refine(image, energy, settings, engine, device, compatibility=compatibility)


def require_engine(engine: CrfEngine) -> None:
    """Fail now rather than at the first image.

    Raises:
        MissingExtraError: The engine is pydensecrf, which is not installed.
    """
    if engine == "pydensecrf":
        _pydensecrf()


def _given(options: CrfOptions) -> dict[str, Any]:
    names = CrfSettings.__dataclass_fields__
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def _energy(probabilities: np.ndarray, settings: CrfSettings) -> np.ndarray:
    """U: float32 (K, H, W)."""
    start = probabilities
    if settings.unary == "hard":
        count = len(probabilities)
        chosen = probabilities.argmax(axis=0) == np.arange(count)[:, None, None]
        start = np.where(chosen, np.float32(settings.gt_prob), np.float32((1 - settings.gt_prob) / (count - 1)))
    energy: np.ndarray = np.clip(start, _SMALLEST, 1, dtype=np.float32)
    np.log(energy, out=energy)
    np.negative(energy, out=energy)
    return energy


def _refine_hard(
    image: np.ndarray, probabilities: np.ndarray, settings: CrfSettings, engine: CrfEngine, device: str
) -> Refined:
    """Hard labels: the classes that label no pixel have equal unaries, so that one row stands for all of them."""
    used = np.bincount(probabilities.argmax(axis=0).ravel(), minlength=len(probabilities)) > 0
    rows = np.append(np.flatnonzero(used), np.flatnonzero(~used)[:1])
    members = np.ones(len(rows), np.float32)
    if not used.all():
        members[-1] = np.count_nonzero(~used)
    found = _refine(image, _energy(probabilities, settings)[rows], settings, engine, device, members=members)
    result = np.empty_like(probabilities)
    result[rows] = found.probabilities
    if not used.all():
        result[~used] = found.probabilities[-1] / members[-1]
    return Refined(result, found.steps)


def _refine(
    image: np.ndarray,
    energy: np.ndarray,
    settings: CrfSettings,
    engine: CrfEngine,
    device: str,
    **model: np.ndarray | None,
) -> Refined:
    from pseudolabel.pairwise.meanfield import mean_field  # Numba takes a while to load

    filters = [_spatial(image.shape[:2], settings), _bilateral(image, settings, engine, device)]
    found, steps = mean_field(energy.reshape(len(energy), -1), filters, settings.iterations, **model)
    return Refined(found.reshape(energy.shape), steps)


def _spatial(size: tuple[int, ...], settings: CrfSettings) -> Filter:
    """w norm(A) of the spatial kernel."""
    from pseudolabel.pairwise.spatial import gaussian

    degree = gaussian(np.ones((1, *size), np.float32), settings.spatial_xy)[0]
    scale = np.sqrt(np.float32(settings.spatial_weight) / degree)
    return lambda maps, out: gaussian(maps.reshape(-1, *size), settings.spatial_xy, scale, out=out.reshape(-1, *size))


def _bilateral(image: np.ndarray, settings: CrfSettings, engine: CrfEngine, device: str) -> Filter:
    """w norm(A) of the bilateral kernel."""
    from pseudolabel.pairwise.lattice import Lattice, position_colour

    features = position_colour(image, settings.bilateral_xy, settings.bilateral_rgb)
    if engine == "exact":
        return _exact(features, settings.bilateral_weight, device)
    lattice = Lattice(features)
    scale = np.sqrt(np.float32(settings.bilateral_weight) / lattice.row_sums())
    return lambda maps, out: lattice.filter(maps, scale, symmetric=False, out=out)


def _exact(features: np.ndarray, weight: float, device: str) -> Filter:
    import torch

    from pseudolabel.pairwise.kernels import ExactKernel

    kernel = ExactKernel(torch.from_numpy(features)[None].to(device))
    scale = (weight / kernel.filter(torch.ones(1, 1, len(features), device=device))).sqrt()

    def add(maps: np.ndarray, out: np.ndarray) -> None:
        out += (scale * kernel.filter(scale * torch.from_numpy(maps)[None].to(device)))[0].cpu().numpy()

    return add


def _with_pydensecrf(image: np.ndarray, energy: np.ndarray, settings: CrfSettings) -> np.ndarray:
    count, height, width = energy.shape
    crf = _pydensecrf().DenseCRF2D(width, height, count)
    crf.setUnaryEnergy(np.ascontiguousarray(energy.reshape(count, -1)))  # pydensecrf reads C-contiguous memory only
    crf.addPairwiseGaussian(sxy=settings.spatial_xy, compat=settings.spatial_weight)
    crf.addPairwiseBilateral(
        sxy=settings.bilateral_xy,
        srgb=settings.bilateral_rgb,
        rgbim=np.ascontiguousarray(image),
        compat=settings.bilateral_weight,
    )
    return np.array(crf.inference(settings.iterations), dtype=np.float32).reshape(energy.shape)


def _pydensecrf() -> ModuleType:
    try:
        import pydensecrf.densecrf
    except ImportError as error:
        raise MissingExtraError(
            "--engine pydensecrf needs the package pydensecrf2, which is not installed; leave --engine out, or run: "
            'pip install "pseudolabel[pydensecrf]"'
        ) from error
    module: ModuleType = pydensecrf.densecrf
    return module
