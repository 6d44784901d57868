"""Whether views of a training are labelled with classes that they do not show, and what leaving those out would bring.

    python -m benchmarks.quality.crop_labels work/cosa.h5 --root ../shared/voc-mini --split held_out.txt

A view of train-cosa keeps all tags of its image, also of an object that lies outside of it. Here one random view of
each image is labelled as in the training of the checkpoint, by its teacher's auxiliary maps and its own thresholds:
with the image's tags (``tags``), and with those of them alone that the view's mask holds (``shown``, which no
training can know). Per kind and smallest area of the views: mIoU of the labelled pixels, their share, and the share
of all pixels with a label of a class that the view does not show; all in per cent.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import conditions, make_parser, report
from pseudolabel.artefacts import read_header
from pseudolabel.cosa.assignments import cam_labels, guided_cams
from pseudolabel.cosa.teacher import teacher_forward
from pseudolabel.data import Record, read_image, reopen_dataset
from pseudolabel.data.augmentation import random_crop
from pseudolabel.metrics.confusion import PixelCounter, class_counts
from pseudolabel.metrics.scores import class_mean, iou
from pseudolabel.models.checkpoint import load_network
from pseudolabel.models.cosa import CosaNetwork
from pseudolabel.runtime.devices import autocast, normalise, pick_device, pick_dtype
from pseudolabel.training.image_tags import tag_vector

AREAS = (0.3, 0.6, 1.0)


def main() -> None:
    """Label and report."""
    parser = make_parser(__doc__, __file__)
    parser.add_argument("checkpoint", type=Path, help="of train-cosa")
    parser.add_argument("--root", type=Path, help="where the data set lies now, if it has moved")
    parser.add_argument("--split", default="val", help="images with masks (default: %(default)s)")
    arguments = parser.parse_args()
    found = conditions()
    header = read_header(arguments.checkpoint, "checkpoint")
    network, _ = load_network(arguments.checkpoint, "cam")
    assert isinstance(network, CosaNetwork)
    network.to(pick_device("auto")).eval()
    dataset = reopen_dataset(header.dataset, split=arguments.split, root=arguments.root)
    views = {area: labelled(network, dataset, dict(header.options), area) for area in AREAS}
    report(__file__, arguments, found, {"images": len(dataset.records), "smallest_area": views}, [])


def labelled(network: CosaNetwork, dataset: Any, options: dict[str, Any], area: float) -> dict[str, dict[str, float]]:
    """The figures of one view an image, of at least this share of its area."""
    rng = np.random.default_rng(0)
    low, high = options.get("auxiliary_thresholds") or (options["low"], options["high"])
    counter = PixelCounter(len(dataset.classes), boundary=None, ignored="drop")
    tables: dict[str, list[np.ndarray]] = {"tags": [], "shown": []}
    shares: dict[str, list[tuple[float, float]]] = {"tags": [], "shown": []}
    for record in dataset.records:
        truth = dataset.read_mask(record)
        view, mask = random_crop(
            read_image(record.image), truth, rng, crop=options["crop"], area=(area, 1.0), jitter=0.0
        )
        assert mask is not None
        maps = auxiliary_maps(network, view, options)
        for kind, tags in tags_of(record, mask, len(dataset.classes) - 1).items():
            cams = guided_cams(maps, tags)
            labels = cam_labels(cams, tags, mask.shape, low=low, high=high).labels[0].cpu().numpy()
            tables[kind].append(counter.table(mask, labels))
            absent = (labels != 255) & (labels > 0) & ~np.isin(labels, np.unique(mask))
            shares[kind].append((float((labels != 255).mean()), float(absent.mean())))
    figures = {}
    for kind, counted in tables.items():
        scores = class_mean(iou(class_counts(np.sum(counted, axis=0), "drop")))
        known, absent_share = np.mean(shares[kind], axis=0)
        figures[kind] = {"miou": float(scores), "labelled": float(known), "of_absent_classes": float(absent_share)}
    return {kind: {name: round(100 * value, 2) for name, value in row.items()} for kind, row in figures.items()}


def auxiliary_maps(network: CosaNetwork, view: np.ndarray, options: dict[str, Any]) -> torch.Tensor:
    """What the teacher's auxiliary head makes of a view uint8 (H, W, 3), as in training: float32 (1, C, h, w)."""
    device = next(network.parameters()).device
    dtype = pick_dtype(options["precision"], device)
    backbone = network.backbone
    with autocast(device, dtype), torch.inference_mode():
        images = normalise(torch.from_numpy(view)[None].to(device), backbone.mean, backbone.std)
        seen = teacher_forward(
            network,
            images,
            scales=options["teacher_scales"],
            flip=options["teacher_flip"],
            times=options["propagate"],
        )
    return seen.auxiliary.float()


def tags_of(record: Record, mask: np.ndarray, classes: int) -> dict[str, torch.Tensor]:
    """The image's tags, and those of them that a view's mask holds: float (1, C)."""
    tags = torch.from_numpy(tag_vector(record, classes))[None]
    shown = torch.tensor([[float(label in mask) for label in range(1, classes + 1)]])
    return {"tags": tags, "shown": tags * shown}


if __name__ == "__main__":
    main()
