"""cams.h5 against full-resolution float32 .npy files: bytes, and mIoU.

    python -m benchmarks.speed.cams_size work/cam.h5 --root VOCdevkit/VOC2012

cams_h5: the artefact of make-cams with its defaults: summed at the network's grid, float16, compressed, enlarged when
it is read. The other two are stored as peers store theirs, one dictionary an image with ``high_res``, float32
(P, H, W):

* same_maps: the same maps before they were stored, in float32, enlarged as readers enlarge the artefact's. What sets
  them apart from cams_h5 is storage alone: 16 bits at the grid.
* per_scale: what peers make. The forward passes are the same, but each scale's maps are enlarged to the photograph's
  size first; there the maximum with the mirrored one is taken, ReLU, the sum over scales, and there each class is
  normalised (the order of CoSA's released code). Maps that are propagated along attention are so on the grid, by peers
  too: of these, the sum is enlarged, and normalised at the photograph's size.

Each is scored at its own best threshold against the masks, which the split must have. The targets are at most 3 % of
the bytes of same_maps, and at most 0.1 points of mIoU to either of the two, whichever is better.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.common import (
    CamReader,
    best_miou,
    cams_facts,
    cams_options,
    conditions,
    load_cam_reader,
    make_cams_parser,
    report,
    rounded,
    target,
)

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from pseudolabel.artefacts import Header
    from pseudolabel.data import Dataset, Record
    from pseudolabel.options import MakeCamsOptions

    FullMaps = Callable[[CamReader, Tensor, list[Record], MakeCamsOptions], list[np.ndarray]]


def main() -> None:
    """Make the three kinds of maps, score them, and report."""
    arguments = make_cams_parser(__doc__, __file__, split="val", images=100).parse_args()
    found = conditions()
    with tempfile.TemporaryDirectory() as folder:
        figures, targets = compare(arguments, Path(folder))
    report(__file__, arguments, found, figures, targets)


def compare(arguments: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Make all three and score them; returns the figures and the targets."""
    from pseudolabel.artefacts import open_artefact
    from pseudolabel.stages.make_cams import make_cams

    options, dataset = cams_options(arguments, folder)
    make_cams(options)
    with open_artefact(options.out, "cams") as artefact:
        header, count = artefact.header, len(artefact.file["maps/image"])
    paths = {"cams_h5": options.out, "same_maps": folder / "same_maps.h5", "per_scale": folder / "per_scale.h5"}
    taken = {"cams_h5": options.out.stat().st_size}
    for name, full_maps in (("same_maps", same_maps), ("per_scale", per_scale_maps)):
        taken[name] = write_full(options, dataset, header, paths[name], full_maps)
    best = {name: best_miou(path, dataset.root) for name, path in paths.items()}
    apart = {name: best["cams_h5"]["miou"] - best[name]["miou"] for name in ("same_maps", "per_scale")}
    figures = {
        "images": len(dataset.records),
        "maps": count,
        **cams_facts(header),
        "bytes": taken,
        "best": {name: rounded(values) for name, values in best.items()},
        "miou_cams_h5_minus": rounded(apart),
    }
    said = "points of mIoU between cams.h5 and"
    return figures, [
        target("bytes, cams.h5 to full-resolution float32 .npy", taken["cams_h5"] / taken["same_maps"], "<= 0.03"),
        target(f"{said} the same maps as full-resolution float32 .npy", abs(apart["same_maps"]), "<= 0.1"),
        target(f"{said} maps summed and normalised at full resolution", abs(apart["per_scale"]), "<= 0.1"),
    ]


def write_full(options: MakeCamsOptions, dataset: Dataset, header: Header, out: Path, full_maps: FullMaps) -> int:
    """Write the maps at image size, for the sweep, and return how many bytes they take as ``.npy`` files.

    Args:
        options: Of make-cams.
        dataset: The images.
        header: Of make-cams' artefact.
        out: Where to write them, as a ``cams`` artefact in float32.
        full_maps: A batch to each image's maps of its tags, float32 (P, H, W) in [0, 1].
    """
    import torch

    from pseudolabel.artefacts import MapsWriter
    from pseudolabel.models.inference import compute_maps, make_plan
    from pseudolabel.runtime.devices import autocast, normalise, pick_dtype
    from pseudolabel.runtime.progress import Progress

    reader = load_cam_reader(options)
    backbone, dtype = reader.network.backbone, pick_dtype(options.precision, reader.device)
    reader.network.to(memory_format=torch.channels_last)
    plan = make_plan(
        dataset,
        long_side=reader.long_side,
        multiple=backbone.stride,
        batch_size=options.batch_size,
        device=reader.device,
        skip=False,
    )
    plan = replace(plan, at_once=1)  # the file that is measured is one
    taken: list[int] = []

    def compute(pixels: Tensor, records: list[Record]) -> list[dict[int, np.ndarray]]:
        """A batch's maps, whose files are measured on the way."""
        images = normalise(pixels.to(reader.device), backbone.mean, backbone.std)
        with autocast(reader.device, dtype), torch.inference_mode():
            found = full_maps(reader, images, records, options)
        taken.extend(
            npy_bytes(out.with_name("cam.npy"), record.tags or (), maps)
            for record, maps in zip(records, found, strict=True)
        )
        return [dict(zip(record.tags or (), maps, strict=True)) for record, maps in zip(records, found, strict=True)]

    with MapsWriter(out, header, plan.images, dtype="float32") as writer:
        compute_maps(
            writer,
            dataset,
            plan,
            compute,
            device=reader.device,
            skip=False,
            workers=options.workers,
            progress=Progress(),
        )
    return sum(taken)


def same_maps(reader: CamReader, images: Tensor, records: list[Record], options: MakeCamsOptions) -> list[np.ndarray]:
    """make-cams' own maps, float32, enlarged to each photograph as readers of the artefact do it."""
    from pseudolabel.artefacts.maps import at_size
    from pseudolabel.data import image_size
    from pseudolabel.stages.make_cams import cams, normalised

    maps, _ = cams(reader.network, images, reader.head, reader.how, options)
    return [
        at_size(normalised(row, list(record.tags or ()), options.normalise), image_size(record.image))[1]
        for row, record in zip(maps, records, strict=True)
    ]


def per_scale_maps(
    reader: CamReader, images: Tensor, records: list[Record], options: MakeCamsOptions
) -> list[np.ndarray]:
    """Maps that are summed over scales, if they are not propagated, and normalised at each photograph's size."""
    import torch
    import torch.nn.functional as F

    from pseudolabel.data import image_size
    from pseudolabel.models.multiscale import scaled_inputs, unit_range
    from pseudolabel.stages.make_cams import cams

    if reader.how.times:
        scales = [cams(reader.network, images, reader.head, reader.how, options)[0].cpu()]
    else:
        views = scaled_inputs(images, options.scales, flip=True, multiple=reader.network.backbone.stride)
        scales = [reader.maps(view).float().cpu() for view in views]
    found = []
    for row, record in enumerate(records):
        wanted = [label - 1 for label in record.tags or ()]
        total = torch.zeros(len(wanted), *image_size(record.image))
        for maps in scales if wanted else []:
            sides = maps[row :: len(records)][:, wanted]  # and its mirror image's, where there is one
            straight, *mirrored = F.interpolate(sides, total.shape[1:], mode="bilinear")
            total += torch.stack([straight, *(side.flip(2) for side in mirrored)]).amax(dim=0).relu()
        found.append(unit_range(total).numpy())
    return found


def npy_bytes(path: Path, classes: tuple[int, ...], maps: np.ndarray) -> int:
    """The size of the file that peers write of one image's maps, float32 (P, H, W)."""
    import numpy as np

    found = {"keys": np.asarray(classes) - 1, "high_res": maps}
    np.save(path, np.asarray(found, dtype=object), allow_pickle=True)
    return path.stat().st_size


if __name__ == "__main__":
    main()
