"""cams.h5 against full-resolution float32 .npy files of the same maps: bytes, and mIoU.

    python benchmarks/cams_size.py work/cam.h5 --root VOCdevkit/VOC2012 --split train

grid: the artefact of make-cams with its defaults (summed at the network's grid, float16, compressed), enlarged when it
is read. full: what peers write, one dictionary an image with ``high_res``, float32 (P, H, W). Its maps come from the
same forward passes, but each scale's are enlarged to the photograph's size first; there the maximum with the mirrored
one is taken, ReLU, the sum over scales, and there each class is normalised (the order of CoSA's released code). Each is
scored at its own best threshold against the masks, which the split must have.

The targets are at most 3 % of the bytes and at most 0.1 points of mIoU between the two, whichever is better.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import best_miou, conditions, first_images, make_parser, report, target

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from pseudolabel.artefacts import Header
    from pseudolabel.data import Dataset, Record
    from pseudolabel.options import MakeCamsOptions


def main() -> None:
    arguments = parse()
    found = conditions()
    with tempfile.TemporaryDirectory() as folder:
        figures, share, apart = compare(arguments, Path(folder))
    targets = [
        target("bytes, grid to full", share, "<= 0.03"),
        target("points of mIoU between grid and full", abs(apart), "<= 0.1"),
    ]
    report(__file__, arguments, found, figures, targets)


def parse() -> argparse.Namespace:
    parser = make_parser(__doc__, __file__)
    parser.add_argument("checkpoint", type=Path, help="of train-cam")
    parser.add_argument("--split", default="train", help="list file of the data set (default: %(default)s)")
    parser.add_argument("--root", type=Path, help="where the data set lies now, if it has moved")
    parser.add_argument("--images", type=int, help="first images of the split (default: all)")
    parser.add_argument("--device", default="auto", help="as of make-cams (default: %(default)s)")
    return parser.parse_args()


def compare(arguments: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], float, float]:
    """Make both; returns the figures, the share of the bytes and the difference of the mIoU."""
    from pseudolabel.artefacts import open_artefact, read_header
    from pseudolabel.options import MakeCamsOptions
    from pseudolabel.stages.make_cams import make_cams

    parent = read_header(arguments.checkpoint, "checkpoint")
    dataset = first_images(parent.dataset, arguments.split, arguments.root, arguments.images, folder)
    options = MakeCamsOptions(
        checkpoint=arguments.checkpoint,
        split=dataset.split,
        root=arguments.root,
        device=arguments.device,
        out=folder / "cams.h5",
    )
    make_cams(options)
    with open_artefact(options.out, "cams") as artefact:
        header, maps = artefact.header, len(artefact.file["maps/image"])
    taken = {"grid": options.out.stat().st_size, "full": write_full(options, dataset, header, folder / "full.h5")}
    grid, full = best_miou(options.out, dataset.root), best_miou(folder / "full.h5", dataset.root)
    apart = grid["miou"] - full["miou"]
    return (
        {
            "images": len(dataset.records),
            "maps": maps,
            "backbone": parent.network.get("backbone"),
            **{name: header.protocol[name] for name in ("head", "scales", "flip", "size")},
            **{name: header.environment[name] for name in ("device", "dtype")},
            "bytes": taken,
            "grid": {key: round(value, 3) for key, value in grid.items()},
            "full": {key: round(value, 3) for key, value in full.items()},
            "miou_grid_minus_full": round(apart, 3),
        },
        taken["grid"] / taken["full"],
        apart,
    )


def write_full(options: MakeCamsOptions, dataset: Dataset, header: Header, out: Path) -> int:
    """Write the maps at image size, for the sweep, and return how many bytes they take as ``.npy`` files."""
    import torch

    from pseudolabel.artefacts import MapsWriter
    from pseudolabel.data import image_size
    from pseudolabel.devices import autocast, normalise, pick_device, pick_dtype
    from pseudolabel.inference import compute_maps, make_plan, scaled_views
    from pseudolabel.models.cam import CamNetwork
    from pseudolabel.models.checkpoint import load_network
    from pseudolabel.progress import Progress
    from pseudolabel.stages.make_cams import pick_head

    network, parent = load_network(options.checkpoint, "cam")
    assert isinstance(network, CamNetwork)
    device = pick_device(options.device)
    dtype = pick_dtype(options.precision, device)
    network.to(device).to(memory_format=torch.channels_last).eval()
    backbone, head = network.backbone, pick_head(network, options)
    long_side = options.size or 2 * int(parent.network["crop"])
    plan = make_plan(dataset, long_side=long_side, multiple=backbone.stride, batch_size=options.batch_size, skip=False)
    taken = []

    def compute(pixels: Tensor, records: list[Record]) -> list[dict[int, np.ndarray]]:
        images = normalise(pixels.to(device), backbone.mean, backbone.std)
        with autocast(device, dtype), torch.inference_mode():
            views = scaled_views(images, options.scales, flip=True, multiple=backbone.stride)
            outputs = [network(view) for view in views]
        scales = [(output.maps if head == "main" else output.auxiliary).float().cpu() for output in outputs]
        found = []
        for row, record in enumerate(records):
            classes = list(record.tags or ())
            pairs = [maps[[row, row + len(records)]][:, [label - 1 for label in classes]] for maps in scales]
            maps = enlarged(pairs, image_size(record.image)).numpy()
            taken.append(npy_bytes(out.with_name("cam.npy"), classes, maps))
            found.append(dict(zip(classes, maps, strict=True)))
        return found

    with MapsWriter(out, header, plan.images, dtype="float32") as writer:
        compute_maps(writer, dataset, plan, compute, skip=False, workers=options.workers, progress=Progress())
    return sum(taken)


def npy_bytes(path: Path, classes: list[int], maps: np.ndarray) -> int:
    """The size of the file that peers write of one image's maps, float32 (P, H, W)."""
    import numpy as np

    found = {"keys": np.asarray(classes) - 1, "high_res": maps}
    np.save(path, np.asarray(found, dtype=object), allow_pickle=True)
    return path.stat().st_size


def enlarged(scales: list[Tensor], size: tuple[int, int]) -> Tensor:
    """One image's normalised maps float32 (P, H, W).

    Args:
        scales: For each scale (2, P, h, w), those of the image and of its mirror image.
        size: (H, W) of the photograph.
    """
    import torch
    import torch.nn.functional as F

    total = torch.zeros(scales[0].shape[1], *size)
    if not len(total):
        return total
    for maps in scales:
        straight, mirrored = F.interpolate(maps, size, mode="bilinear")
        total += torch.maximum(straight, mirrored.flip(2)).relu()
    total -= total.amin(dim=(1, 2), keepdim=True)
    return total / total.amax(dim=(1, 2), keepdim=True).clamp_min(1e-6)


if __name__ == "__main__":
    main()
