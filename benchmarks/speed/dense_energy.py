"""The gated dense energy at CoSA's size against a training step of a classification network, and against pydensecrf.

    python -m benchmarks.speed.dense_energy VOC/JPEGImages --rounds 5

Batch 4, 21 classes, crops of 448 scaled by a half to 224 x 224, sigma_xy 100 (50 after scaling), sigma_rgb 15. All are
measured in alternation, on as many threads as torch takes:

    energy      forward and backward of GatedDenseEnergy from softmax maps at 448, lattices built anew
    step        forward, backward and AdamW of ViT-S/16 at 448 (timm, random weights, bfloat16 autocast), batch 4
    filter      A S alone, from maps and photographs at 224: features, LatticeKernel, one filter
    pydensecrf  the same through pydensecrf's lattice

pydensecrf offers no product A S, only a mean-field step, Q <- softmax(-U + w A Q). With U = 0 and one more class whose
map is 0, the logarithms of Q over that class's are w A S; the maps are written into the buffer that startInference
returns. The step's softmax is timed along. The target: the energy takes less than 0.1 of the step, on two cores.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.common import alternate, conditions, make_parser, photographs, report, summary, target

if TYPE_CHECKING:
    import numpy as np
    import torch

BATCH, CLASSES, CROP, SCALE = 4, 21, 448, 0.5
SIGMA_XY, SIGMA_RGB = 100, 15
WEIGHT = 1e-3  # w: A S is at most some thousands at this size, and exp(w A S) must not overflow


def main() -> None:
    """Time the energy, a training step and both engines' filters in turn, and report."""
    parser = make_parser(__doc__, __file__)
    parser.add_argument("folder", type=Path, help="of .jpg photographs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--crop", type=int, default=CROP, help="for a quick trial; the figures are for the default")
    arguments = parser.parse_args()

    import torch

    found = conditions()
    images = photographs(arguments.folder, BATCH, (arguments.crop, arguments.crop))
    maps = random_maps(arguments.crop)
    functions = {
        "energy": dense_energy(images, maps),
        "step": training_step(images),
        "filter": one_filter(images, maps),
        "pydensecrf": other_engine(images, maps),
    }
    for function in functions.values():
        function()  # compiles, allocates
    seconds = alternate(functions, arguments.rounds)
    medians = {name: summary(times)["median"] for name, times in seconds.items()}
    figures = {
        "threads": torch.get_num_threads(),
        "seconds": {name: summary(times, 4) for name, times in seconds.items()},
        "pydensecrf_over_filter": round(medians["pydensecrf"] / medians["filter"], 2),
        "row_sums_over_exact": gains(images),
    }
    report(
        __file__, arguments, found, figures, [target("energy over step", medians["energy"] / medians["step"], "< 0.1")]
    )


def random_maps(crop: int) -> torch.Tensor:
    """The softmax of smooth random scores: (B, K, crop, crop)."""
    import torch

    coarse = torch.randn((BATCH, CLASSES, 14, 14), generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(4 * coarse, (crop, crop), mode="bilinear").softmax(dim=1)


def dense_energy(images: np.ndarray, maps: torch.Tensor) -> Callable[[], object]:
    """Value and gradient of the module, half of the pixels unlabelled."""
    import torch

    from pseudolabel.pairwise.loss_modules import Bilateral, GatedDenseEnergy

    module = GatedDenseEnergy(bilateral=Bilateral(SIGMA_XY, SIGMA_RGB, SCALE, backend="lattice"))
    photos = torch.from_numpy(images).permute(0, 3, 1, 2)
    unlabelled = maps.amax(dim=1) < maps.amax(dim=1).median()
    leaf = maps.clone().requires_grad_()

    def once() -> object:
        """The loss and its gradient."""
        return torch.autograd.grad(module(photos, leaf, unlabelled), leaf)

    return once


def training_step(images: np.ndarray) -> Callable[[], object]:
    """A step of ViT-S/16 on image tags."""
    import timm
    import torch

    torch.manual_seed(0)
    model = timm.create_model("vit_small_patch16_224", img_size=images.shape[1], num_classes=CLASSES - 1)
    optimiser = torch.optim.AdamW(model.parameters(), lr=6e-5)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    tags = (torch.rand(BATCH, CLASSES - 1) > 0.9).float()

    def once() -> None:
        """A step of training."""
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(pixels)
        torch.nn.functional.multilabel_soft_margin_loss(logits.float(), tags).backward()
        optimiser.step()

    return once


def one_filter(images: np.ndarray, maps: torch.Tensor) -> Callable[[], object]:
    """A S of the scaled maps by LatticeKernel."""
    import torch

    from pseudolabel.pairwise.kernels import LatticeKernel

    small, reduced = scaled(images, maps)
    values = torch.from_numpy(reduced)
    return lambda: LatticeKernel(bilateral(small)).filter(values)


def bilateral(photos: np.ndarray) -> torch.Tensor:
    """The features of photographs (B, h, w, 3) that are scaled already."""
    import torch

    from pseudolabel.pairwise.features import position_colour

    pixels = torch.from_numpy(photos).permute(0, 3, 1, 2)
    return position_colour(pixels, sigma_xy=SIGMA_XY * SCALE, sigma_rgb=SIGMA_RGB)


def other_engine(images: np.ndarray, maps: torch.Tensor) -> Callable[[], np.ndarray]:
    """A S of the scaled maps by pydensecrf: float32 (B, K, h w)."""
    import numpy as np
    from pydensecrf import densecrf

    small, reduced = scaled(images, maps)
    height, width = small.shape[1:3]
    energy = np.zeros((CLASSES + 1, height * width), np.float32)

    def one(photo: np.ndarray, values: np.ndarray) -> np.ndarray:
        """The filtered values of one photograph."""
        crf = densecrf.DenseCRF2D(width, height, CLASSES + 1)
        crf.setUnaryEnergy(energy)
        crf.addPairwiseBilateral(
            sxy=SIGMA_XY * SCALE,
            srgb=SIGMA_RGB,
            rgbim=photo,
            compat=WEIGHT,
            kernel=densecrf.DIAG_KERNEL,
            normalization=densecrf.NO_NORMALIZATION,
        )
        current, first, second = crf.startInference()
        buffer = np.asarray(current)
        buffer[:-1], buffer[-1] = values, 0
        crf.stepInference(current, first, second)
        logs = np.log(np.asarray(current))
        return np.asarray((logs[:-1] - logs[-1]) / WEIGHT, dtype=np.float32)

    return lambda: np.stack([one(*pair) for pair in zip(small, reduced, strict=True)])


def scaled(images: np.ndarray, maps: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Photographs (B, h, w, 3) by nearest pixel and maps (B, K, h w) bilinearly, as the module scales them."""
    import numpy as np
    import torch

    smaller = torch.nn.functional.interpolate(maps, scale_factor=SCALE, mode="bilinear", align_corners=False)
    step = round(1 / SCALE)
    return np.ascontiguousarray(images[:, ::step, ::step]), smaller.flatten(2).numpy()


def gains(images: np.ndarray) -> dict[str, float]:
    """Both engines' row sums of A over the exact ones, at 64 pixels of each photograph: 1 is right."""
    import numpy as np
    import torch

    from pseudolabel.pairwise.exact import exact_row_sums
    from pseudolabel.pairwise.kernels import LatticeKernel

    ones = torch.ones(BATCH, CLASSES, *images.shape[1:3]) / CLASSES
    small, _ = scaled(images, ones)
    theirs = other_engine(images, ones)().sum(axis=1)
    features = bilateral(small)
    ours = LatticeKernel(features).filter(torch.ones_like(features[..., :1]).mT)[:, 0].numpy()
    chosen = torch.linspace(0, ours.shape[1] - 1, 64).round().long()
    exact = np.stack([exact_row_sums(points, chosen).numpy() for points in features])
    return {
        name: round(float(sums[:, chosen.numpy()].sum() / exact.sum()), 3)
        for name, sums in {"lattice": ours, "pydensecrf": theirs}.items()
    }


if __name__ == "__main__":
    main()
