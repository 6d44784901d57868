"""A ViT's attention in training on a processor: matrix products against torch's fused operation.

    python -m benchmarks.speed.attention

Forward and backward pass of a ViT-Tiny without weights, batch 5, in bfloat16, at three sizes. ``Backbone`` takes the
matrix products up to the size where a block's scores take much memory; the target is that they are quicker.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.common import alternate, conditions, make_parser, report, summary, target

SIZES = (224, 320, 448)
BATCH = 5


def main() -> None:
    """Measure and report."""
    import timm
    import torch

    parser = make_parser(__doc__, __file__)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    found = conditions()
    torch.manual_seed(0)
    model: Any = timm.create_model("vit_tiny_patch16_224", num_classes=0, dynamic_img_size=True)
    attentions: list[Any] = [module for module in model.modules() if hasattr(module, "fused_attn")]

    def step(images: torch.Tensor, *, fused: bool) -> None:
        """Forward and backward."""
        for module in attentions:
            module.fused_attn = fused
        with torch.autocast("cpu", torch.bfloat16):
            features = model.forward_features(images)
        features.float().pow(2).mean().backward()

    figures, targets = {}, []
    for size in SIZES:
        images = torch.randn(BATCH, 3, size, size)
        forms: dict[str, Callable[[], object]] = {
            name: partial(step, images, fused=name == "fused") for name in ("fused", "products")
        }
        for form in forms.values():
            form()
        medians = {name: summary(times)["median"] for name, times in alternate(forms, arguments.rounds).items()}
        figures[str(size)] = medians
        targets.append(target(f"fused over products at {size}", medians["fused"] / medians["products"], ">= 1.1"))
    report(__file__, arguments, found, {"seconds_per_step": figures, "batch": BATCH}, targets)


if __name__ == "__main__":
    main()
