"""What the benchmarks share: timing in alternation, the conditions, the targets, the one JSON document.

Nothing here imports torch or NumPy before it is needed: a benchmark of memory or of start-up must be small itself.
"""

from __future__ import annotations

import argparse
import json
import operator
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch

    from pseudolabel.artefacts import Header
    from pseudolabel.data import Dataset
    from pseudolabel.models.cam import CamNetwork
    from pseudolabel.models.propagation import Propagation
    from pseudolabel.options import MakeCamsOptions

REPOSITORY = Path(__file__).resolve().parents[1]
COMPARISONS: dict[str, Callable[[float, float], bool]] = {">=": operator.ge, "<=": operator.le, "<": operator.lt}


def make_parser(doc: str, script: str, *, results: str | None = None) -> argparse.ArgumentParser:
    """A parser whose help is the script's docstring, with ``--results``, where the figures go.

    Args:
        doc: The script's docstring.
        script: Its ``__file__``.
        results: Name of the file of figures; None for the script's own name.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {module_of(script)}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    path = Path(__file__).parent / "results" / (results or f"{Path(script).stem}.json")
    parser.add_argument("--results", type=Path, default=path, help=f"file of the figures (default: {path.name} there)")
    return parser


def module_of(script: str) -> str:
    """The name that ``python -m`` runs a benchmark by, from its ``__file__``."""
    path = Path(script).resolve().relative_to(REPOSITORY).with_suffix("")
    return ".".join(path.parts)


def alternate(functions: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Wall seconds of each function in each round, in turn, so that a change of the machine's mood meets all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(rounds):
        for name, function in functions.items():
            begin = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - begin)
            print(f"round {number + 1} of {rounds}: {name} {seconds[name][-1]:.3f} s", file=sys.stderr, flush=True)
    return seconds


def summary(seconds: Sequence[float], digits: int = 3) -> dict[str, Any]:
    """The median and every single time."""
    return {"median": round(statistics.median(seconds), digits), "all": [round(value, digits) for value in seconds]}


def target(figure: str, value: float, wanted: str) -> dict[str, Any]:
    """Whether a figure is what the issue wants.

    Args:
        figure: What it is.
        value: Not rounded.
        wanted: For instance ``>= 3``.
    """
    sign, _, limit = wanted.partition(" ")
    met = COMPARISONS[sign](value, float(limit))
    return {"figure": figure, "value": round(value, 4), "target": wanted, "met": met}


def conditions() -> dict[str, Any]:
    """What the figures depend on besides the arguments; to be asked before anything is measured."""
    changed = _git("status", "--porcelain", "--", "pseudolabel", "cli", "configs")
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "torch": version("torch"),
        "commit": _git("rev-parse", "--short", "HEAD"),
        "uncommitted_changes": None if changed is None else bool(changed),
    }


def report(
    script: str,
    arguments: argparse.Namespace,
    found: Mapping[str, Any],
    figures: Mapping[str, Any],
    targets: Sequence[Mapping[str, Any]],
) -> None:
    """Print one JSON document and write it to ``--results``.

    Args:
        script: ``__file__`` of the benchmark.
        arguments: Its command line; folders of this machine are left out of what is written.
        found: The ``conditions``.
        figures: What was measured.
        targets: From ``target``.
    """
    words = [re.sub(r"(^|=)[^=\s]*/", r"\1", word) for word in sys.argv[1:]]
    document = {
        "benchmark": Path(script).stem,
        "command": shlex.join(["python", "-m", module_of(script), *words]),
        "targets": list(targets),
        "conditions": dict(found),
        **figures,
    }
    text = json.dumps(document, indent=2)
    print(text)
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    arguments.results.write_text(text + "\n")


def first_images(spec: Mapping[str, Any], split: str, root: Path | None, count: int | None, folder: Path) -> Dataset:
    """A split's first images as a data set of its own, whose list is ``ids.txt`` in the folder.

    Args:
        spec: Of the data set, as an artefact's header has it.
        split: List to take them from.
        root: Where the data set lies now, if it has moved.
        count: How many; None takes all.
        folder: An existing one.
    """
    from pseudolabel.data import load_dataset

    names = [record.id for record in load_dataset(spec, split=split, root=root).records[:count]]
    listed = folder / "ids.txt"
    listed.write_text("".join(f"{name}\n" for name in names))
    return load_dataset(spec, split=str(listed), root=root)


def make_cams_parser(doc: str, script: str, *, split: str, images: int) -> argparse.ArgumentParser:
    """As ``make_parser``, with the arguments of a benchmark of make-cams; ``split`` and ``images`` are defaults."""
    parser = make_parser(doc, script)
    parser.add_argument("checkpoint", type=Path, help="of train-cam")
    parser.add_argument("--split", default=split, help="list file of the data set (default: %(default)s)")
    parser.add_argument("--root", type=Path, help="where the data set lies now, if it has moved")
    parser.add_argument("--images", type=int, default=images, help="first images of the split (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="as of make-cams (default: %(default)s)")
    return parser


def cams_options(arguments: argparse.Namespace, folder: Path) -> tuple[MakeCamsOptions, Dataset]:
    """make-cams with its defaults on the images that the arguments name, to ``cams.h5`` in the folder; and these."""
    from pseudolabel.artefacts import read_header
    from pseudolabel.options import MakeCamsOptions

    spec = read_header(arguments.checkpoint, "checkpoint").dataset
    dataset = first_images(spec, arguments.split, arguments.root, arguments.images, folder)
    options = MakeCamsOptions(
        checkpoint=arguments.checkpoint,
        split=dataset.split,
        root=arguments.root,
        device=arguments.device,
        out=folder / "cams.h5",
        overwrite=True,
    )
    return options, dataset


def cams_facts(header: Header) -> dict[str, Any]:
    """What the figures of CAMs depend on: the network and how it looks at images."""
    return {
        "backbone": header.network.get("backbone"),
        **{name: header.protocol[name] for name in ("head", "scales", "flip", "size")},
        "propagate": header.protocol.get("propagate", 0),
        **{name: header.environment[name] for name in ("device", "dtype", "threads")},
    }


@dataclass(frozen=True)
class CamReader:
    """A CAM network as make-cams uses it, for code of a benchmark's own around it.

    Attributes:
        network: In evaluation mode, on its device.
        head: The one that make-cams reads.
        device: Where it computes.
        long_side: Of an image at scale 1, pixels.
        how: Affinity propagation.
    """

    network: CamNetwork
    head: str
    device: torch.device
    long_side: int
    how: Propagation

    def maps(self, view: torch.Tensor) -> torch.Tensor:
        """The head's maps (B, C, h, w) of one normalised view (B, 3, H, W)."""
        output = self.network(view)
        found: torch.Tensor = output.maps if self.head == "main" else output.auxiliary
        return found


def load_cam_reader(options: MakeCamsOptions) -> CamReader:
    """The network of the options' checkpoint, set up as the options say."""
    from pseudolabel.models.cam import CamNetwork
    from pseudolabel.models.checkpoint import load_network
    from pseudolabel.runtime.devices import pick_device
    from pseudolabel.stages.make_cams import pick_head, pick_long_side, pick_propagation

    network, parent = load_network(options.checkpoint, "cam")
    assert isinstance(network, CamNetwork)
    device = pick_device(options.device)
    network.to(device).eval()
    how = pick_propagation(network, options)
    return CamReader(network, pick_head(network, options), device, pick_long_side(parent, how, options), how)


def photographs(folder: Path, count: int, size: tuple[int, int]) -> np.ndarray:
    """Photographs spread over a folder, middle parts of one size.

    Args:
        folder: Of ``.jpg`` files.
        count: B.
        size: (height, width) in pixels; a photograph is resized so that it just covers it.

    Returns:
        uint8 (B, height, width, 3).
    """
    import numpy as np
    from PIL import Image, ImageOps

    paths = sorted(folder.glob("*.jpg"))
    if len(paths) < count:
        raise SystemExit(f"{folder} holds {len(paths)} .jpg files, {count} are wanted")
    chosen = [paths[index * len(paths) // count] for index in range(count)]
    return np.stack([np.asarray(ImageOps.fit(Image.open(path).convert("RGB"), size[::-1])) for path in chosen])


def best_miou(cams: Path, root: Path | None) -> dict[str, float]:
    """Points of mIoU, of 100, at the best threshold of search-threshold's sweep against the masks, and that threshold.

    Args:
        cams: A ``cams`` artefact; the thresholds are written beside it.
        root: Where the data set lies now, if it has moved.
    """
    from pseudolabel.options import SearchThresholdOptions
    from pseudolabel.stages.search_threshold import search_threshold

    out = cams.with_name("threshold.h5")
    options = SearchThresholdOptions(cams=cams, method="sweep", root=root, out=out, overwrite=True)
    found = search_threshold(options)
    return {"miou": 100 * found["miou"], "threshold": found["value"]}


def rounded(best: Mapping[str, float]) -> dict[str, float]:
    """The figures of ``best_miou`` as they are reported."""
    return {name: round(value, 3) for name, value in best.items()}


def _processor() -> str:
    """The model's name: Linux keeps it in /proc/cpuinfo, others tell ``platform``."""
    path = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*:\s*(.+)$", path.read_text(), re.MULTILINE) if path.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


def _git(*words: str) -> str | None:
    """What git says of the repository; None where there is no git or no repository."""
    try:
        done = subprocess.run(["git", *words], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
