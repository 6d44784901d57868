"""make-cams against a plain loop: images a second, and what batches and bfloat16 change in the maps.

    python -m benchmarks.speed.make_cams work/cam.h5 --root VOCdevkit/VOC2012 --images 40 --rounds 3

stage: make-cams with its defaults, from opening the checkpoint to the finished artefact. plain: the same scales and
mirror, but one image, one scale and one mirror image at a time, in float32, not channels-last, in one process. The
plain loop resizes, sums on the same grid, passes maps on along attention (of a plain ViT, in a pass of its own) and
normalises as the stage does, so that both make the same maps, and it writes none. Both may use every core. The target
is 3 times the images a second or more, with nothing else running.

Where the split has masks, the mIoU of both at their own best threshold is compared.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.common import (
    CamReader,
    alternate,
    best_miou,
    cams_facts,
    cams_options,
    conditions,
    load_cam_reader,
    make_cams_parser,
    report,
    rounded,
    summary,
    target,
)

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from pseudolabel.data import Dataset
    from pseudolabel.options import MakeCamsOptions

    Maps = dict[int, np.ndarray]


def main() -> None:
    """Time make-cams and the plain loop on the same images, and report."""
    arguments = parse()
    found = conditions()
    with tempfile.TemporaryDirectory() as folder:
        figures, ratio = compare(arguments, Path(folder))
    report(__file__, arguments, found, figures, [target("images a second, stage to plain loop", ratio, ">= 3")])


def parse() -> argparse.Namespace:
    """The command line."""
    parser = make_cams_parser(__doc__, __file__, split="train", images=40)
    parser.add_argument("--rounds", type=int, default=3, help="of both in turn (default: %(default)s)")
    return parser.parse_args()


def compare(arguments: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], float]:
    """Time both, and compare what they made; returns the figures and the ratio of their speeds."""
    from pseudolabel.artefacts import MapsReader, MapsWriter, open_artefact
    from pseudolabel.stages.make_cams import make_cams

    options, dataset = cams_options(arguments, folder)
    plain: list[Maps] = []

    def run_plain() -> None:
        """Keep what the last round made."""
        plain[:] = loop(options, dataset)

    seconds = alternate({"stage": lambda: make_cams(options), "plain": run_plain}, arguments.rounds)
    with open_artefact(options.out, "cams") as artefact:
        reader = MapsReader(artefact)
        header, images = artefact.header, reader.images
        stage = [reader.maps(index) for index in range(len(reader))]
    with MapsWriter(folder / "plain.h5", header, images, dtype="float16") as writer:
        for index, maps in enumerate(plain):
            writer.add(index, maps)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    ratio = medians["plain"] / medians["stage"]
    return {
        "images": len(dataset.records),
        "rounds": arguments.rounds,
        **cams_facts(header),
        "seconds": {name: summary(times) for name, times in seconds.items()},
        "images_per_second": {name: round(len(dataset.records) / value, 3) for name, value in medians.items()},
        "ratio": round(ratio, 3),
        "difference_of_maps": differences(stage, plain),
        "miou": mious(dataset, options.out, folder / "plain.h5") if has_masks(dataset) else None,
    }, ratio


def loop(options: MakeCamsOptions, dataset: Dataset) -> list[Maps]:
    """The plain loop: each image's maps as stored, class index to float16 (h, w) in [0, 1]."""
    import numpy as np
    import torch

    from pseudolabel.data import read_image
    from pseudolabel.data.augmentation import network_size, resized
    from pseudolabel.runtime.devices import normalise
    from pseudolabel.stages.make_cams import normalised

    reader = load_cam_reader(options)
    backbone = reader.network.backbone
    found = []
    for record in dataset.records:
        photograph = read_image(record.image)
        height, width = photograph.shape[:2]
        size = network_size(height, width, reader.long_side, backbone.stride)
        pixels = torch.from_numpy(resized(photograph, size))[None].to(reader.device)
        image = normalise(pixels, backbone.mean, backbone.std, channels_last=False)
        with torch.inference_mode():
            maps = normalised(summed(reader, image, options), list(record.tags or ()), options.normalise)
        found.append({label: array.astype(np.float16) for label, array in maps.items()})
    return found


def summed(reader: CamReader, image: Tensor, options: MakeCamsOptions) -> Tensor:
    """Maps (C, h, w) of one image (1, 3, H, W), one scale and one mirror image after the other."""
    import torch
    import torch.nn.functional as F

    from pseudolabel.models.affinity import patch_affinity, propagate, with_mirrored
    from pseudolabel.models.multiscale import scaled_inputs

    stride = reader.network.backbone.stride
    grid = (image.shape[2] // stride, image.shape[3] // stride)
    by_scale = []
    for view in scaled_inputs(image, options.scales, flip=False, multiple=stride):
        larger = torch.maximum(reader.maps(view), reader.maps(view.flip(3)).flip(3))
        by_scale.append(F.interpolate(larger.relu(), grid, mode="bilinear")[0])
    maps = torch.stack(by_scale).sum(dim=0)
    if not reader.how.times:
        return maps
    backbone = reader.network.backbone
    both = torch.cat([patch_affinity(backbone, view, flip=False) for view in (image, image.flip(3))])
    return propagate(maps[None], with_mirrored(both, grid), reader.how.times)[0]


def differences(stage: list[Maps], plain: list[Maps]) -> dict[str, float]:
    """How far the maps as stored, in [0, 1], lie apart: at most, and in the mean over all values."""
    import numpy as np

    pairs = [
        np.abs(one[label].astype(np.float32) - other[label].astype(np.float32)).ravel()
        for one, other in zip(stage, plain, strict=True)
        for label in one
    ]
    apart = np.concatenate(pairs)
    return {"largest": round(float(apart.max()), 5), "mean": round(float(apart.mean()), 6)}


def has_masks(dataset: Dataset) -> bool:
    """Whether there is ground truth to score against."""
    from pseudolabel.errors import DatasetError

    try:
        dataset.read_mask(dataset.records[0])
    except DatasetError:
        return False
    return True


def mious(dataset: Dataset, stage: Path, plain: Path) -> dict[str, Any]:
    """Points of mIoU at the best threshold of each, and their difference."""
    both = {name: best_miou(path, dataset.root) for name, path in (("stage", stage), ("plain", plain))}
    apart = both["stage"]["miou"] - both["plain"]["miou"]
    return {**{name: rounded(best) for name, best in both.items()}, "stage_minus_plain": round(apart, 3)}


if __name__ == "__main__":
    main()
