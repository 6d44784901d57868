"""``refine-affinity``: CAMs and a network of train-affinity in, CAMs spread by a random walk between cells out.

With A the affinities of neighbouring cells, 1 on the diagonal, each to a power and rows then divided by their sum, maps
become A^n M (PSA's and AFA's released code walks the same way with the transpose of columns that sum to 1); then each
over its maximum. Maps are taken to the network's grid first, and stay on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pseudolabel.artefacts import Header, MapsReader, MapsWriter, check_output, child_header, open_artefact
from pseudolabel.artefacts.header import EXTERNAL, CostMeter, environment
from pseudolabel.data import Dataset, Record, reopen_dataset
from pseudolabel.data.inputs import require_size
from pseudolabel.errors import InputError
from pseudolabel.labels.box_constraints import BOX_CONSTRAINED, constrain_cams, require_boxes
from pseudolabel.models.affinity import propagate, with_mirrored
from pseudolabel.models.checkpoint import load_network
from pseudolabel.models.inference import Plan, compute_maps, make_plan
from pseudolabel.models.multiscale import unit_range
from pseudolabel.models.pair_affinity import AnyAffinity
from pseudolabel.options import RefineAffinityOptions
from pseudolabel.pairwise.cell_pairs import dense_affinity
from pseudolabel.runtime.devices import autocast, normalise, pick_device, pick_dtype
from pseudolabel.runtime.progress import Progress
from pseudolabel.runtime.resizing import resize


def refine_affinity(
    options: RefineAffinityOptions,
    progress: Progress = Progress(),  # noqa: B008 - has no state
) -> dict[str, Any]:
    """Spread every image's CAMs along a learnt affinity.

    Args:
        options: CAMs, network, power and steps.
        progress: Where to report.

    Returns:
        ``out``, ``images``, ``skipped``, ``images_per_second``.

    Raises:
        ArtefactError: A file is not what it should be.
        DatasetError: A photograph is missing or unreadable.
        InputError: The network is of other classes than the CAMs, or boxes that constrain them are gone.
    """
    cost = CostMeter()
    check_output(options.out, overwrite=options.overwrite)
    loaded, parent = load_network(options.network, "affinity")
    network: AnyAffinity = loaded  # type: ignore[assignment]  # load_network checked the architecture's type
    with open_artefact(options.cams, "cams") as artefact:
        reader = MapsReader(artefact)
        header = artefact.header
        if parent.classes != header.classes:
            raise InputError(
                f"{options.network} was trained on labels of other classes ({len(parent.classes) - 1} of them) than "
                f"{options.cams} has ({len(header.classes) - 1}); train it on labels made from these CAMs"
            )
        dataset = open_images(reader, options)
        device, skip = pick_device(options.device), options.on_error == "skip"
        dtype = pick_dtype(options.precision, device)
        network.to(device).to(memory_format=torch.channels_last).eval()
        plan = make_plan(
            dataset,
            long_side=options.size or int(parent.network["crop"]),
            multiple=network.backbone.stride,
            batch_size=options.batch_size,
            device=device,
            skip=skip,
            skipped=reader.skipped,
        )
        require_sizes(plan, reader, dataset)
        work = partial(
            spread,
            network=network,
            radius=int(parent.facts["architecture"]["radius"]),
            reader=reader,
            options=options,
            device=device,
            dtype=dtype,
        )
        made = child_header(
            "cams",
            "refine-affinity",
            options,
            {options.cams: header, options.network: replace(parent, protocol=external(parent))},
            inputs=(dataset.as_input(),),
            protocol={"walk": f"{options.walk} steps, power {options.power:g}"},
            dataset=dataset.spec(),
            environment=environment(str(device), str(dtype).removeprefix("torch.")),
        )
        writer = MapsWriter(options.out, made, plan.images, dtype="float16", cost=cost, overwrite=options.overwrite)
        with writer:
            handled = compute_maps(
                writer, dataset, plan, work, device=device, skip=skip, workers=options.workers, progress=progress
            )
    return {
        "out": str(options.out),
        "images": len(dataset.records) - len(writer.skipped),
        "skipped": len(writer.skipped),
        "images_per_second": cost.read(handled)["images_per_second"],
    }


def external(network: Header) -> dict[str, Any]:
    """What a network's protocol says of these maps, too: how its labels were made is not how the maps were."""
    return {EXTERNAL: network.protocol[EXTERNAL]} if EXTERNAL in network.protocol else {}


def open_images(reader: MapsReader, options: RefineAffinityOptions) -> Dataset:
    """The data set of the CAMs, with their images alone, in their order.

    Raises:
        DatasetError: It lacks an image, or is of other classes.
        InputError: The CAMs are box-constrained, and the boxes are gone.
    """
    dataset = reopen_dataset(reader.header.dataset, root=options.root)
    dataset.require_classes(reader.header.classes, options.cams)
    records = tuple(dataset.find(reader.images.ids, options.cams))
    require_boxes(reader.header, records, dataset, options.cams)
    return replace(dataset, records=records)


def require_sizes(plan: Plan, reader: MapsReader, dataset: Dataset) -> None:
    """Refuse photographs that are of another size than their maps were made for.

    Raises:
        DatasetError: One is.
    """
    sizes = zip(plan.images.heights.tolist(), plan.images.widths.tolist(), strict=True)
    for index, (record, size) in enumerate(zip(dataset.records, sizes, strict=True)):
        if index not in plan.unreadable:
            require_size(record, size, reader.size(index))


def spread(
    pixels: Tensor,
    records: list[Record],
    *,
    network: AnyAffinity,
    radius: int,
    reader: MapsReader,
    options: RefineAffinityOptions,
    device: torch.device,
    dtype: torch.dtype,
) -> list[dict[int, np.ndarray]]:
    """The maps of photographs of one size after the walk.

    Args:
        pixels: uint8 (B, H, W, 3).
        records: Theirs.
        network: In evaluation mode.
        radius: Of its pairs, cells.
        reader: Of the CAMs.
        options: Power and steps.
        device: Where to compute.
        dtype: Number format of the forward pass.

    Returns:
        Of each, class index to float32 (h, w) in [0, 1], on the network's grid.
    """
    if not records:
        return []
    backbone = network.backbone
    with autocast(device, dtype), torch.inference_mode():
        images = normalise(pixels.to(device), backbone.mean, backbone.std)
        affinity, grid = walking_affinity(network, images, radius, options)
        found = []
        for record, matrix in zip(records, affinity, strict=True):
            row = reader.places[record.id]
            maps = walked(reader.maps(row), matrix, grid, options.walk)
            if BOX_CONSTRAINED in reader.header.protocol:
                maps = constrain_cams(maps, record, reader.size(row))
            found.append(maps)
    return found


def walking_affinity(
    network: AnyAffinity, images: Tensor, radius: int, options: RefineAffinityOptions
) -> tuple[Tensor, tuple[int, int]]:
    """Where a walk goes in one step, and the grid that it is on.

    Args:
        network: In evaluation mode.
        images: Normalised (B, 3, H, W).
        radius: Of its pairs, cells.
        options: The power, and whether mirrored images are seen, too.

    Returns:
        float32 (B, N, N), rows summing to 1; rows and columns.
    """
    affinity, pairs, grid = network(torch.cat([images, images.flip(3)]) if options.flip else images, radius)
    matrix = dense_affinity(affinity.float(), pairs, grid[0] * grid[1])
    if options.flip:
        matrix = with_mirrored(matrix, grid)
    matrix = matrix**options.power
    return matrix / matrix.sum(dim=2, keepdim=True), grid


def walked(maps: Mapping[int, np.ndarray], matrix: Tensor, grid: tuple[int, int], steps: int) -> dict[int, np.ndarray]:
    """An image's maps after the walk, each over its maximum; one of zeros stays so.

    Args:
        maps: Class index to float (h, w), non-negative.
        matrix: float32 (N, N), rows summing to 1.
        grid: Rows and columns of the N cells.
        steps: Of the walk.

    Returns:
        Class index to float32 (rows, columns) in [0, 1].
    """
    if not maps:
        return {}
    begun = [resize(torch.from_numpy(array.astype(np.float32))[None, None], grid) for array in maps.values()]
    stacked = torch.cat(begun, dim=1).to(matrix.device)
    spread_out = unit_range(propagate(stacked, matrix[None], steps)[0], "max").cpu().numpy()
    return dict(zip(maps, spread_out, strict=True))
