"""``predict-masks``: a segmenter and photographs in, soft labels, masks and PNG files out.

Probabilities are averaged over scales and mirrored images at the network's grid, and kept so in ``soft.h5``, which can
be scored with and without the image tags; with ``--tags boxes`` at image size, where boxes end between pixels and not
within cells. With ``--crf`` they are kept in ``network.h5`` and ``soft.h5`` holds what refine-crf makes of them. The
masks are export-masks' of ``soft.h5``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pseudolabel.artefacts import Header, Input, MapsWriter, check_output, child_header, read_header
from pseudolabel.artefacts.header import CostMeter, environment, made_differently
from pseudolabel.artefacts.maps import at_size
from pseudolabel.data import Dataset, Record
from pseudolabel.labels.box_constraints import constrain_probabilities, open_boxed, stated
from pseudolabel.labels.inputs import open_maps
from pseudolabel.models.checkpoint import load_network
from pseudolabel.models.inference import compute_maps, make_plan
from pseudolabel.models.multiscale import scaled_inputs, split_mirrored
from pseudolabel.models.pair import AnyPredictor
from pseudolabel.options import CrfOptions, ExportMasksOptions, PredictMasksOptions, RefineCrfOptions
from pseudolabel.runtime.devices import autocast, normalise, pick_device, pick_dtype
from pseudolabel.runtime.progress import Progress
from pseudolabel.stages.export_masks import write_masks
from pseudolabel.stages.refine_crf import refine_crf

SMALLEST = 1e-4  # a class that is nowhere more probable than this is not stored


def predict_masks(options: PredictMasksOptions, progress: Progress = Progress()) -> dict[str, Any]:  # noqa: B008 - has no state
    """Predict a split and write ``soft.h5``, ``masks.h5`` and one PNG an image into the folder ``out``.

    Args:
        options: Checkpoint, split, scales, tag filter, CRF.
        progress: Where to report.

    Returns:
        ``out``, ``images``, ``skipped``, ``images_per_second`` of the network.

    Raises:
        InputError: The checkpoint holds no segmenter or no such network, no image has boxes where ``tags`` is
            ``boxes``, or the outputs exist.
        DatasetError: A photograph is unreadable, or has no tags where ``tags`` needs them, or a box is at fault.
    """
    cost = CostMeter()
    soft = options.out / "soft.h5"
    first = options.out / "network.h5" if options.crf else soft
    check_output(options.artefact, overwrite=options.overwrite)
    network, parent = load_network(options.checkpoint, "segmenter", options.network)
    assert isinstance(network, AnyPredictor)  # load_network checked the architecture's type
    dataset = open_boxed(parent.dataset, options.boxes, split=options.split, root=options.root)
    dataset.require_classes(parent.classes, options.checkpoint)
    header = make_header(options, parent, dataset)
    if options.overwrite or not already_made(first, header):
        written = predict(options, network, dataset, header, first, progress)
    else:
        progress.log(f"{first} is there already; going on from it")
        written = {}
    common: dict[str, Any] = {
        "root": options.root,
        "workers": options.workers,
        "overwrite": options.overwrite,
        "seed": options.seed,
    }
    if options.crf and (options.overwrite or not soft.exists()):
        settings = {name: getattr(options, name) for name in CrfOptions.model_fields}
        refine_crf(RefineCrfOptions(cams=first, out=soft, on_error=options.on_error, **settings, **common), progress)
    exported = export(options, ExportMasksOptions(labels=soft, out=options.out, **common), cost, progress)
    return {"out": str(options.out), "images": exported["images"], **written}


def export(
    options: PredictMasksOptions, settings: ExportMasksOptions, cost: CostMeter, progress: Progress
) -> dict[str, Any]:
    """Write masks and PNGs of the soft labels; ``masks.h5`` says that this stage made them, from what it read."""
    with open_maps(settings.labels, None, "soft-labels") as source:
        first = read_header(options.out / "network.h5") if options.crf else source.header
        used = Input("soft-labels", settings.labels.name, source.header.digest)
        header = replace(
            source.header,
            kind="masks",
            stage="predict-masks",
            options=options.resolved(),
            inputs=(*first.inputs, used),
            environment={},
        )
        return write_masks(settings, source, header, cost, progress)


def make_header(options: PredictMasksOptions, parent: Header, dataset: Dataset) -> Header:
    """The header of the network's soft labels."""
    device = pick_device(options.device)
    return child_header(
        "soft-labels",
        "predict-masks",
        options,
        {options.checkpoint: parent},
        inputs=(dataset.as_input(),),
        protocol={
            "split": dataset.split,
            "tag_filter": "none" if options.tags == "none" else "image tags",
            **(stated(dataset) if options.tags == "boxes" else {}),
            "scales": list(options.scales),
            "flip": options.flip,
            "size": options.size or 2 * int(parent.network["crop"]),
        },
        oracle=() if options.tags == "none" else dataset.oracle,
        dataset=dataset.spec(),
        environment=environment(str(device), str(pick_dtype(options.precision, device)).removeprefix("torch.")),
    )


def already_made(path: Path, header: Header) -> bool:
    """Whether a finished artefact was made with these options from these inputs: a run killed later goes on from it."""
    if not path.is_file():
        return False
    found = read_header(path, "soft-labels")
    return found.stage == header.stage and made_differently(found.options, found.inputs, header) is None


def predict(
    options: PredictMasksOptions,
    network: AnyPredictor,
    dataset: Dataset,
    header: Header,
    out: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Run the network over the split and write its probabilities as float16 at the network's grid."""
    if options.tags != "none":
        dataset.require_tags("pass --tags none, or tag them")
    device = pick_device(options.device)
    dtype = pick_dtype(options.precision, device)
    network.to(device).to(memory_format=torch.channels_last).eval()
    mean, std = network.mean, network.std
    skip = options.on_error == "skip"
    plan = make_plan(
        dataset,
        long_side=int(header.protocol["size"]),
        multiple=network.multiple,
        batch_size=options.batch_size,
        device=device,
        skip=skip,
    )
    sizes = plan.images.sizes()

    def compute(pixels: Tensor, records: list[Record]) -> list[dict[int, np.ndarray]]:
        if not records:
            return []
        with autocast(device, dtype), torch.inference_mode():
            images = normalise(pixels.to(device), mean, std)
            found = list(class_probabilities(network, images, options.scales, flip=options.flip).cpu().numpy())
        if options.tags != "none":
            found = [restricted(row, record.tags or ()) for row, record in zip(found, records, strict=True)]
        if options.tags == "boxes":
            return [held(row, record, sizes[record.id]) for row, record in zip(found, records, strict=True)]
        return [{k: m.astype(np.float16) for k, m in enumerate(row) if m.max() >= SMALLEST} for row in found]

    cost = CostMeter()
    writer = MapsWriter(out, header, plan.images, dtype="float16", cost=cost, overwrite=options.overwrite)
    with writer:
        handled = compute_maps(
            writer, dataset, plan, compute, device=device, skip=skip, workers=options.workers, progress=progress
        )
    return {"skipped": len(writer.skipped), "images_per_second": cost.read(handled)["images_per_second"]}


def class_probabilities(network: AnyPredictor, images: Tensor, scales: tuple[float, ...], *, flip: bool) -> Tensor:
    """Softmax averaged over scales and mirrored images.

    Args:
        network: In evaluation mode.
        images: Normalised (B, 3, H, W).
        scales: Factors on H and W.
        flip: Average with the mirrored images.

    Returns:
        float32 (B, K, h, w) at the grid of scale 1, summing to 1 over K.
    """
    total: Tensor | None = None
    grid = tuple(network(images[:1]).shape[2:]) if scales[0] != 1 else None
    for view in scaled_inputs(images, scales, flip=flip, multiple=network.multiple):
        maps = network(view).float().softmax(dim=1)
        maps = torch.stack(split_mirrored(maps)).mean(dim=0) if flip else maps
        grid = grid or tuple(maps.shape[2:])
        maps = F.interpolate(maps, grid, mode="bilinear") if maps.shape[2:] != grid else maps
        total = maps if total is None else total + maps
    assert total is not None  # scales is never empty
    return total / len(scales)


def restricted(probabilities: np.ndarray, tags: tuple[int, ...]) -> np.ndarray:
    """Probabilities (K, h, w) with the classes that the tags exclude removed, background kept, summing to 1 again.

    Where the network is so sure of an excluded class that nothing is left in float32, all is background.
    """
    mask = np.zeros(len(probabilities), dtype=probabilities.dtype)
    mask[[0, *tags]] = 1
    kept = probabilities * mask[:, None, None]
    kept[0, kept.sum(axis=0) < np.finfo(np.float32).tiny] = 1
    return np.asarray(kept / kept.sum(axis=0), dtype=np.float32)


def held(probabilities: np.ndarray, record: Record, size: tuple[int, int]) -> dict[int, np.ndarray]:
    """Probabilities (K, h, w) of the tagged classes at image size, box-constrained: class index to float16 (H, W)."""
    labels, shares = at_size({label: probabilities[label] for label in (0, *(record.tags or ()))}, size)
    found = dict(zip(labels.tolist(), constrain_probabilities(labels, shares, record), strict=True))
    return {k: m.astype(np.float16) for k, m in found.items() if k == 0 or m.max() >= SMALLEST}
