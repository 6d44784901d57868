"""``make-cams``: a CAM network and photographs in, class activation maps out.

Per scale the maximum of the map and its un-mirrored mirror, ReLU, summed over scales (the auxiliary head's maps too,
over all scales); then per class minus the minimum and over the maximum (CoSA's and ToCo's released code), or only over
the maximum (IRN's). With ``--tags boxes`` what is outside of a class's boxes is zero, on the grid.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pseudolabel.artefacts import Header, MapsWriter, check_output, child_header
from pseudolabel.artefacts.header import CostMeter, environment
from pseudolabel.data import Record
from pseudolabel.errors import InputError
from pseudolabel.labels.box_constraints import constrain_cams, open_boxed, stated
from pseudolabel.models.affinity import Attending, middle_blocks, require_attention
from pseudolabel.models.cam import CamNetwork, HeadOutput
from pseudolabel.models.checkpoint import load_network
from pseudolabel.models.inference import compute_maps, make_plan
from pseudolabel.models.multiscale import activation, scaled_inputs, unit_range
from pseudolabel.models.propagation import Propagation, affinity_of, pass_on, shaped
from pseudolabel.options import MakeCamsOptions
from pseudolabel.runtime.devices import autocast, normalise, pick_device, pick_dtype
from pseudolabel.runtime.progress import Progress

_MOST_PAIRS = 2**26
"""Of patches in images that are computed at the same time: 256 MiB in float32 of what they attend to."""


def make_cams(options: MakeCamsOptions, progress: Progress = Progress()) -> dict[str, Any]:  # noqa: B008 - has no state
    """Compute the CAMs of a split and write them at the network's grid resolution.

    Args:
        options: Checkpoint, split, head, scales.
        progress: Where to report.

    Returns:
        ``out``, ``images``, ``skipped``, ``images_per_second``.

    Raises:
        InputError: The checkpoint has no such network or head, or no image has boxes where ``tags`` is ``boxes``.
        DatasetError: Images have no tags where ``tags`` needs them, or a box is at fault.
    """
    cost = CostMeter()
    check_output(options.out, overwrite=options.overwrite)
    network, parent = load_network(options.checkpoint, "cam", options.network)
    assert isinstance(network, CamNetwork)  # load_network checked the architecture's type
    dataset = open_boxed(parent.dataset, options.boxes, split=options.split, root=options.root)
    dataset.require_classes(parent.classes, options.checkpoint)
    head, how = pick_head(network, options), pick_propagation(network, options)
    if options.tags != "predicted":
        dataset.require_tags("pass --tags predicted, or tag them")
    device = pick_device(options.device)
    dtype = pick_dtype(options.precision, device)
    network.to(device).to(memory_format=torch.channels_last).eval()
    backbone, skip = network.backbone, options.on_error == "skip"
    long_side = pick_long_side(parent, how, options)
    batch = pick_batch(long_side // backbone.stride, how, options)
    plan = make_plan(dataset, long_side=long_side, multiple=backbone.stride, batch_size=batch, device=device, skip=skip)
    protocol = {
        "split": dataset.split,
        "tag_filter": "predicted tags" if options.tags == "predicted" else "image tags",
        **(stated(dataset) if options.tags == "boxes" else {}),
        "head": head,
        "scales": list(options.scales),
        "flip": options.flip,
        **({"flip_fusion": options.flip_fusion} if options.flip else {}),
        "size": long_side,
        **stated_propagation(how, options),
    }
    header = child_header(
        "cams",
        "make-cams",
        options,
        {options.checkpoint: parent},
        inputs=(dataset.as_input(),),
        protocol=protocol,
        oracle=() if options.tags == "predicted" else dataset.oracle,
        dataset=dataset.spec(),
        environment=environment(str(device), str(dtype).removeprefix("torch.")),
    )
    sizes = plan.images.sizes()

    def compute(pixels: Tensor, records: list[Record]) -> list[dict[int, np.ndarray]]:
        if not records:
            return []
        with autocast(device, dtype), torch.inference_mode():
            images = normalise(pixels.to(device), backbone.mean, backbone.std)
            maps, logits = cams(network, images, head, how, options)
        wanted = [present(record, row, options) for record, row in zip(records, logits, strict=True)]
        found = [normalised(row, classes, options.normalise) for row, classes in zip(maps, wanted, strict=True)]
        if options.tags != "boxes":
            return found
        return [constrain_cams(row, record, sizes[record.id]) for row, record in zip(found, records, strict=True)]

    writer = MapsWriter(options.out, header, plan.images, dtype="float16", cost=cost, overwrite=options.overwrite)
    with writer:
        handled = compute_maps(
            writer, dataset, plan, compute, device=device, skip=skip, workers=options.workers, progress=progress
        )
    return {
        "out": str(options.out),
        "images": len(dataset.records) - len(writer.skipped),
        "skipped": len(writer.skipped),
        "images_per_second": cost.read(handled)["images_per_second"],
    }


def pick_head(network: CamNetwork, options: MakeCamsOptions) -> str:
    """The head to read: the one asked for, else after average pooling the auxiliary one where there is one."""
    if options.head in ("auxiliary", "mean") and network.auxiliary is None:
        raise InputError(f"--head {options.head}: {options.checkpoint} has no auxiliary head; use --head main")
    return options.head or ("main" if network.auxiliary is None or network.pooling == "gmp" else "auxiliary")


def pick_propagation(network: CamNetwork, options: MakeCamsOptions) -> Propagation:
    """What is asked for, else 2 steps along the mean attention where there is attention.

    Raises:
        InputError: There is no attention, or no such block.
    """
    backbone, name = network.backbone, f"the network of {options.checkpoint}"
    form = options.affinity or "mean"
    times = options.propagate
    if times is None:
        times = 2 if backbone.attends or options.affinity else 0
    if form == "features":
        if options.attention_blocks:
            raise InputError("--attention-blocks is for --affinity mean and caa; leave it out")
        return Propagation(times, form, (), options.affinity_scales, options.class_boxes)
    require_attention(backbone, times, name)
    depth = backbone.depth
    asked = options.attention_blocks or tuple(middle_blocks(depth))
    blocks = tuple(sorted({block % depth for block in asked if -depth <= block < depth}))
    if len(blocks) < len(asked):
        found = ", ".join(map(str, asked))
        raise InputError(f"--attention-blocks {found}: {name} has blocks 0 to {depth - 1}; name each once")
    return Propagation(times, form, blocks, options.affinity_scales, options.class_boxes)


def stated_propagation(how: Propagation, options: MakeCamsOptions) -> dict[str, Any]:
    """What a header says of it; of the usual form, only how often."""
    if not how.times:
        return {}
    stated: dict[str, Any] = {"propagate": how.times}
    if how.form != "mean":
        stated["affinity"] = how.form
    if options.attention_blocks:
        stated["attention_blocks"] = list(how.blocks)
    if how.scales != (1.0,):
        stated["affinity_scales"] = list(how.scales)
    if how.boxes is not None:
        stated["class_boxes"] = how.boxes
    return stated


def pick_long_side(parent: Header, how: Propagation, options: MakeCamsOptions) -> int:
    """Pixels of an image's long side at scale 1: what is asked for, else a multiple of the training's crop.

    Attention on a grid much finer than that of the training says less (benchmarks/README.md).
    """
    return options.size or int(int(parent.network["crop"]) * (1.5 if how.times else 2))


def pick_batch(side: int, how: Propagation, options: MakeCamsOptions) -> int:
    """Images at the same time: what is asked for, or as many as have room for what their patches attend to.

    Args:
        side: Of the longest grid at scale 1, cells.
        how: Whether there is an affinity, and at which scales.
        options: Batch size and flip.
    """
    if not how.times:
        return options.batch_size
    pairs = (2 if options.flip else 1) * sum((side * scale) ** 4 for scale in how.scales)
    return max(1, min(options.batch_size, int(_MOST_PAIRS // pairs)))


def cams(
    network: CamNetwork, images: Tensor, head: str, how: Propagation, options: MakeCamsOptions
) -> tuple[Tensor, Tensor]:
    """Multi-scale, mirrored CAMs before normalisation, and class logits.

    Args:
        network: In evaluation mode.
        images: Normalised (B, 3, H, W).
        head: ``main``, ``auxiliary`` or ``mean`` (each head's maps divided by their own maximum, then averaged).
        how: Propagation of the maps summed over scales.
        options: Scales and flip.

    Returns:
        float32 (B, C, H / stride, W / stride), non-negative; float32 (B, C), averaged over the scales.
    """
    stride = network.backbone.stride
    grid = _grid(images, stride)
    sums: dict[str, Tensor] = {}
    logits = []
    along: dict[float, tuple[tuple[int, int], Tensor]] = {}
    scales = how.scales if how.times else ()
    views = scaled_inputs(images, options.scales, flip=options.flip, multiple=stride)
    for scale, view in zip(options.scales, views, strict=True):
        reading = scale in scales and how.form != "features"
        with Attending(network.backbone, how.blocks) if reading else nullcontext() as attending:
            by_head = _by_head(network, view, head)
        if attending is not None and attending.complete:  # not if the head needs fewer blocks
            own = _grid(view, stride)
            along[scale] = own, shaped(attending.affinity(own if options.flip else None), how.form)
        logits.append(by_head["auxiliary" if head == "auxiliary" else "main"].logits.float()[: len(images)])
        for name, found in by_head.items():
            maps = activation(found.maps, grid, flip=options.flip, mirror=options.flip_fusion)
            sums[name] = sums[name] + maps if name in sums else maps
    absent = [scale for scale in scales if scale not in along]
    for scale, view in zip(absent, scaled_inputs(images, absent, flip=False, multiple=stride), strict=True):
        along[scale] = _grid(view, stride), affinity_of(network.backbone, view, how, flip=options.flip)
    if along:
        sums = {name: pass_on(maps, list(along.values()), how) for name, maps in sums.items()}
    if head == "mean":
        peak = [maps / maps.amax(dim=(2, 3), keepdim=True).clamp_min(1e-6) for maps in sums.values()]
        return torch.stack(peak).mean(dim=0), torch.stack(logits).mean(dim=0)
    return sums[head], torch.stack(logits).mean(dim=0)


def _grid(images: Tensor, stride: int) -> tuple[int, int]:
    return images.shape[2] // stride, images.shape[3] // stride


def _by_head(network: CamNetwork, view: Tensor, head: str) -> dict[str, HeadOutput]:
    """What the heads give that a head's CAMs are made of."""
    if head == "auxiliary":
        return {"auxiliary": network.auxiliary_head(view)}
    output = network(view)
    main = HeadOutput(output.maps, output.logits)
    return (
        {"main": main, "auxiliary": HeadOutput(output.auxiliary, output.auxiliary_logits)}
        if head == "mean"
        else {"main": main}
    )


def present(record: Record, logits: Tensor, options: MakeCamsOptions) -> list[int]:
    """Class indices to make maps for: the record's tags, or the predictions above the threshold and the best one."""
    if options.tags != "predicted":
        return list(record.tags or ())
    chosen = (logits.sigmoid() >= options.tag_threshold).nonzero().flatten().tolist() or [int(logits.argmax())]
    return [index + 1 for index in chosen]


def normalised(maps: Tensor, classes: list[int], how: str) -> dict[int, np.ndarray]:
    """Each class's map scaled to [0, 1]; an all-zero map stays zero.

    Args:
        maps: (C, h, w), non-negative.
        classes: Class indices from 1.
        how: ``minmax`` or ``max``.

    Returns:
        Class index to float32 (h, w); the artefact keeps float16.
    """
    scaled = unit_range(maps[[label - 1 for label in classes]], how).cpu().numpy()
    return dict(zip(classes, scaled, strict=True))
