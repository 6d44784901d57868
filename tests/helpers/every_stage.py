"""A command of every stage and of ``run``, over a small made data set, for what is done to all of them alike."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from pseudolabel.artefacts import MapsReader, open_artefact, read_header

PROGRAM = (sys.executable, "-m", "pseudolabel")
SIZE = 96
TRAINING = (
    "--backbone test_vit --no-pretrained --epochs 3 --batch-size 4 --crop 64 --save-every 1 --device cpu --workers 2"
)
_DATA = "--dataset voc --root {folder}/data"
_CAMS = "{folder}/cams.h5 --threshold {folder}/threshold.h5"
_INFERENCE = "--device cpu --batch-size 4 --scales 1 --workers 2"

COMMANDS = {
    "train-cam": f"train-cam {_DATA} {TRAINING}",
    "train-cosa": f"train-cosa {_DATA} {TRAINING} --regulariser none",
    "train-scribble": f"train-scribble {_DATA} {TRAINING} --scribbles {{folder}}/strokes",
    "train-semi": f"train-semi {_DATA} {TRAINING} --mask-list {{folder}}/few.txt",
    "train-affinity": f"train-affinity {{folder}}/masks {TRAINING}",
    "train-segmenter": f"train-segmenter {{folder}}/masks {TRAINING}",
    "make-cams": f"make-cams {{folder}}/cam.h5 {_INFERENCE}",
    "import-cams": f"import-cams {{folder}}/dumps {_DATA} --array cam --workers 2",
    "make-regions": f"make-regions {_DATA} --method slic --workers 2",
    "import-regions": f"import-regions {{folder}}/superpixels {_DATA} --model none --licence none --trained-on none",
    "refine-affinity": "refine-affinity {folder}/cams.h5 --network {folder}/affinity.h5 --device cpu --workers 2",
    "search-threshold": "search-threshold {folder}/cams.h5",
    "search-crf": f"search-crf {_CAMS} --trials 2 --images 4 --workers 2",
    "refine-crf": f"refine-crf {_CAMS} --iterations 150 --workers 2",
    "refine-par": f"refine-par {_CAMS} --iterations 300 --device cpu --workers 2",
    "vote-regions": f"vote-regions {_CAMS} --regions {{folder}}/regions.h5 --rule soft --workers 2",
    "export-masks": f"export-masks {_CAMS} --overlays 4 --workers 2",
    "predict-masks": f"predict-masks {{folder}}/segmenter.h5 --split train {_INFERENCE}",
    "import-masks": "import-masks {folder}/coco/coco.json --from coco --masks {folder}/masks",
    "evaluate-masks": "evaluate-masks {folder}/masks --workers 2",
    "run": "run {folder}/pipeline.yaml",
}
"""The words of each, but for ``--out``; ``{folder}`` is where ``prepare`` has been."""

FOLDERS = ("export-masks", "predict-masks", "run")
"""What writes a folder."""

_OF_MASKS = {
    "train-segmenter", "train-affinity", "refine-affinity", "predict-masks", "import-masks", "evaluate-masks"
}  # fmt: skip

_PIPELINE = """
name: small
out: nowhere
defaults: {{dataset: voc, root: {folder}/data}}
stages:
  cam: {{stage: train-cam, backbone: test_vit, pretrained: false, epochs: 2, batch_size: 4, crop: 64, save_every: 1,
         device: cpu, workers: 2}}
  cams: {{stage: make-cams, checkpoint: cam, device: cpu, scales: [1], workers: 2}}
  threshold: {{stage: search-threshold, cams: cams}}
  soft: {{stage: refine-crf, cams: cams, threshold: threshold, iterations: 40, workers: 2}}
  masks: {{stage: export-masks, labels: soft, workers: 2}}
  scores: {{stage: evaluate-masks, masks: masks, workers: 2}}
"""


def settings() -> dict[str, str]:
    """The environment of every command: one thread, so that sums are rounded alike."""
    return os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "NO_COLOR": "1"}


def name_of(stage: str) -> str:
    """The name of its output: a folder's, or an artefact's."""
    return "out" if stage in FOLDERS else "out.h5"


def command(stage: str, folder: Path, out: Path) -> list[str]:
    """The words of a stage."""
    return [*PROGRAM, *COMMANDS[stage].format(folder=folder).split(), "--quiet", "--out", str(out)]


def complete(command_line: Iterable[str]) -> None:
    """Run a command that has to succeed."""
    words = list(command_line)
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=settings())
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"


def prepare(folder: Path, stages: Iterable[str] = tuple(COMMANDS)) -> None:
    """Make the inputs of some stages in a folder: a data set, and, where one of them needs it, what comes before it."""
    wanted = set(stages)
    folder.mkdir(parents=True, exist_ok=True)
    data = f"{folder}/data"
    complete([*PROGRAM, *f"data synth --out {data} --train 24 --val 4 --size {SIZE}".split()])
    if "train-scribble" in wanted:
        complete([*PROGRAM, *f"data scribbles --root {data} --from masks --out {folder}/strokes".split()])
    (folder / "pipeline.yaml").write_text(_PIPELINE.format(folder=folder))
    names = (folder / "data/ImageSets/Segmentation/train.txt").read_text().split()
    (folder / "few.txt").write_text("".join(f"{name}\n" for name in names[:8]))
    if "import-regions" in wanted:
        _superpixels(folder / "superpixels", names)
    if "vote-regions" in wanted:
        complete(command("make-regions", folder, folder / "regions.h5"))
    if wanted <= {"train-cam", "train-cosa", "train-scribble", "train-semi", "make-regions", "import-regions", "run"}:
        return
    short = COMMANDS["train-cam"].format(folder=folder).replace("--epochs 3", "--steps 2").split()
    complete([*PROGRAM, *short, "--out", f"{folder}/cam.h5"])
    complete(command("make-cams", folder, folder / "cams.h5"))
    complete([*PROGRAM, *f"search-threshold {folder}/cams.h5 --method fixed --out {folder}/threshold.h5".split()])
    _dump(folder / "cams.h5", folder / "dumps")
    of_masks = {
        "train-segmenter",
        "train-affinity",
        "refine-affinity",
        "predict-masks",
        "import-masks",
        "evaluate-masks",
    }
    if wanted & of_masks:
        complete(command("export-masks", folder, folder / "masks"))
    if "import-masks" in wanted:
        complete([*command("export-masks", folder, folder / "coco"), "--as", "coco"])
    if "refine-affinity" in wanted:
        short = COMMANDS["train-affinity"].format(folder=folder).replace("--epochs 3", "--steps 2").split()
        complete([*PROGRAM, *short, "--out", f"{folder}/affinity.h5"])
    if "predict-masks" in wanted:
        short = COMMANDS["train-segmenter"].format(folder=folder).replace("--epochs 3", "--steps 2").split()
        complete([*PROGRAM, *short, "--out", f"{folder}/segmenter.h5"])


def _superpixels(folder: Path, names: Iterable[str]) -> None:
    """A label map of squares for each image, as other code writes superpixels."""
    folder.mkdir()
    rows, columns = np.indices((SIZE, SIZE)) // 16
    for name in names:
        Image.fromarray((1 + rows * 6 + columns).astype(np.uint8)).save(folder / f"{name}.png")


def _dump(cams: Path, folder: Path) -> None:
    """CAMs as other code writes them."""
    folder.mkdir()
    with open_artefact(cams, "cams") as artefact:
        reader = MapsReader(artefact)
        for image, name in enumerate(reader.images.ids):
            maps = reader.maps(image)
            found = {"keys": np.array(sorted(maps)) - 1, "cam": np.stack([maps[label] for label in sorted(maps)])}
            np.save(folder / f"{name}.npy", found, allow_pickle=True)  # type: ignore[arg-type]  # as IRN does


def outcome(stage: str, out: Path) -> str:
    """What a stage has made, in one word that equal results share: the digests of all artefacts, and other files."""
    digest = hashlib.sha256()
    for path in [out] if out.is_file() else sorted(path for path in out.rglob("*") if path.is_file()):
        name = str(path.relative_to(out))
        if path.suffix == ".h5" and h5py.is_hdf5(path):
            digest.update(f"{name} {read_header(path).digest}\n".encode())
        elif path.suffix in (".png", ".csv") and ".log" not in name:
            digest.update(name.encode() + path.read_bytes())
    return json.dumps([stage, digest.hexdigest()])


def unfinished(folder: Path) -> list[str]:
    """What should not be in a folder once a stage is through."""
    endings = (".partial", ".training", ".lock", ".tmp")
    found = (path for path in folder.rglob("*") if path.name.endswith(endings) or ".new." in path.name)
    return sorted(str(path.relative_to(folder)) for path in found)
