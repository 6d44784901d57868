"""The lattice against the exact kernel: the error of filters and of the losses' gradients, by kernel width.

    python -m benchmarks.quality.pairwise_error VOC/JPEGImages --images 4 --size 96 128

Photographs are reduced to ``--size``, and widths in position with them: they are given as pixels of a photograph whose
long side is 500. The maps are the softmax of smooth random scores of four classes. Errors are norms of the difference
over norms of the exact result, means over photographs:

    filter            A S, as LatticeKernel gives it
    without_gain      A S, as the lattice alone gives it
    normalised        D^-1/2 A D^-1/2 S, each with its own D, as in mean-field inference
    dense_crf, gated_energy, normalised_cut
                      the gradient of the loss with respect to the scores

Writes ``benchmarks/results/pairwise_error.json`` and the plot ``docs/pairwise_error.svg``. There is no target.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.common import REPOSITORY, conditions, make_parser, photographs, report

if TYPE_CHECKING:
    from torch import Tensor

    from pseudolabel.pairwise.kernels import Kernel

LONG_SIDE = 500
CLASSES = 4
WIDTHS_XY = (25, 50, 100)
WIDTHS_RGB = (3, 5, 10, 15, 30, 60)
TITLES = {"filter": "A S", "normalised": "normalised A S", "gated_energy": "gradient of the gated energy"}


def main() -> None:
    """Measure the errors for every pair of widths, plot them, and report."""
    parser = make_parser(__doc__, __file__)
    parser.add_argument("folder", type=Path, help="of .jpg photographs")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--size", type=int, nargs=2, default=(96, 128), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--plot", type=Path, default=REPOSITORY / "docs" / "pairwise_error.svg")
    arguments = parser.parse_args()
    found = conditions()
    rows = measure(arguments)
    plot(rows, arguments.plot)
    report(__file__, arguments, found, {"pixels": arguments.size[0] * arguments.size[1], "errors": rows}, [])


def measure(arguments: argparse.Namespace) -> list[dict[str, float]]:
    """Mean errors for every pair of widths."""
    import torch

    from pseudolabel.pairwise.features import position_colour

    images = torch.from_numpy(photographs(arguments.folder, arguments.images, arguments.size)).permute(0, 3, 1, 2)
    coarse = torch.randn((1, CLASSES, 6, 8), generator=torch.Generator().manual_seed(0))
    scores = 4 * torch.nn.functional.interpolate(coarse, tuple(arguments.size), mode="bicubic")
    shrink = max(arguments.size) / LONG_SIDE
    rows = []
    for sigma_xy in WIDTHS_XY:
        for sigma_rgb in WIDTHS_RGB:
            features = position_colour(images, sigma_xy=sigma_xy * shrink, sigma_rgb=sigma_rgb)
            every = [errors(points[None], scores) for points in features]
            means = {name: round(sum(one[name] for one in every) / len(every), 4) for name in every[0]}
            rows.append({"sigma_xy": sigma_xy, "sigma_rgb": sigma_rgb, **means})
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def errors(features: Tensor, scores: Tensor) -> dict[str, float]:
    """All errors of one photograph."""
    from pseudolabel.pairwise.kernels import ExactKernel, LatticeKernel
    from pseudolabel.pairwise.lattice import Lattice

    lattice = LatticeKernel(features)
    approximate, exact = results(lattice, scores), results(ExactKernel(features), scores)
    found = {name: relative(approximate[name], exact[name]) for name in exact}
    maps = scores.softmax(dim=1).flatten(2)
    alone = Lattice(features[0].numpy()).filter(maps[0].numpy())
    return found | {"without_gain": relative(maps.new_tensor(alone), exact["filter"][0])}


def results(kernel: Kernel, scores: Tensor) -> dict[str, Tensor]:
    """What one kernel makes of the scores."""
    import torch

    from pseudolabel.pairwise.losses import dense_crf_loss, gated_dense_energy, normalised_cut

    unlabelled = torch.zeros(1, *scores.shape[2:], dtype=torch.bool)
    unlabelled[:, :, ::2] = True
    losses: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "dense_crf": lambda maps: dense_crf_loss(maps, kernel),
        "gated_energy": lambda maps: gated_dense_energy(maps, kernel, unlabelled=unlabelled),
        "normalised_cut": lambda maps: normalised_cut(maps, kernel),
    }
    gradients = {}
    for name, loss in losses.items():
        leaf = scores.clone().requires_grad_()
        (gradients[name],) = torch.autograd.grad(loss(leaf.softmax(dim=1)), leaf)
    maps = scores.softmax(dim=1).flatten(2)
    both = kernel.filter(torch.cat([torch.ones_like(maps[:, :1]), maps], dim=1))
    scale = both[:, :1].rsqrt()
    return {"filter": both[:, 1:], "normalised": scale * kernel.filter(scale * maps), **gradients}


def relative(found: Tensor, exact: Tensor) -> float:
    """The norm of the difference over the norm of what is exact."""
    return float((found - exact).norm() / exact.norm())


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Errors over the width in colour, a curve for each width in position."""
    import matplotlib
    import matplotlib.pyplot as plt

    matplotlib.rcParams.update({"svg.hashsalt": "pairwise", "svg.fonttype": "none", "font.size": 9})
    figure, axes = plt.subplots(1, len(TITLES), figsize=(9, 3), sharey=True, layout="constrained")
    for axis, (name, title) in zip(axes, TITLES.items(), strict=True):
        for sigma_xy in WIDTHS_XY:
            chosen = [row for row in rows if row["sigma_xy"] == sigma_xy]
            values = [100 * row[name] for row in chosen]
            axis.plot([row["sigma_rgb"] for row in chosen], values, "o-", ms=3, label=f"xy {sigma_xy} px")
        axis.set(title=title, xscale="log", xlabel="width in colour, grey levels")
        axis.set_xticks(WIDTHS_RGB, labels=[str(width) for width in WIDTHS_RGB], minor=False)
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].set(ylabel="error, per cent", ylim=(0, None))
    axes[-1].legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
