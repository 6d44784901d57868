"""``refine-par``: CAMs or soft labels and the photographs in, soft labels by pixel-adaptive refinement (PAR) out.

Image and maps are downscaled, refined by ``pairwise.par``, and enlarged again, as in AFA's, ToCo's and CoSA's released
code. The rules that leave unsure pixels unlabelled are those of ``labels.refinement``; with rule ``irn`` both runs are
refined at once, with the same weights. What is stored is that of refine-crf.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import torch

from pseudolabel.artefacts import Header, MapsWriter, check_output, child_header
from pseudolabel.artefacts.header import CostMeter
from pseudolabel.labels.assignment import probabilities, softmax_probabilities
from pseudolabel.labels.inputs import each, write_images
from pseudolabel.labels.refinement import Refinement, RefineTask, Start, open_refinement, refine
from pseudolabel.options import RefineParOptions
from pseudolabel.pairwise import memory_free, require_memory
from pseudolabel.pairwise.par import memory_of_par, refine_reduced
from pseudolabel.runtime.devices import pick_device
from pseudolabel.runtime.parallel import cores, ordered_map
from pseudolabel.runtime.progress import Progress


def refine_par(options: RefineParOptions, progress: Progress = Progress()) -> dict[str, Any]:  # noqa: B008 - has no state
    """Refine every image's maps by its photograph, over processes or on an accelerator.

    Args:
        options: Maps, thresholds, PAR's settings, the confidence rule.
        progress: Where to report.

    Returns:
        ``out``, ``images``, ``skipped``, ``confidence``, ``images_per_second``.

    Raises:
        InputError: Thresholds are missing, superfluous or of other classes.
        DatasetError: A photograph is missing, unreadable or of another size than its maps.
    """
    cost = CostMeter()
    check_output(options.out, overwrite=options.overwrite)
    device = pick_device(options.device)
    here = device.type == "cpu"
    workers = (cores() if options.workers is None else max(1, options.workers)) if here else 1
    begin = softmax_probabilities if options.start == "softmax" else probabilities
    with open_refinement(options, begin) as refinement:
        header = make_header(options, refinement)
        refiner = partial(par, options=options, device=device, workers=workers)
        work = partial(refine, rules=refinement.rules, refiner=refiner)
        images = refinement.source.images
        with MapsWriter(options.out, header, images, dtype="uint8", cost=cost, overwrite=options.overwrite) as writer:
            done, total = writer.done, len(images.ids)
            batches = of_one_size(refinement.tasks(done), 1 if here else options.batch_size)
            write_images(writer, each(ordered_map(work, batches, workers=workers), list), total, progress)
    skipped = len(writer.skipped)
    return {
        "out": str(options.out),
        "images": total - skipped,
        "skipped": skipped,
        "confidence": options.confidence,
        "images_per_second": cost.read(total - done)["images_per_second"],
    }


def make_header(options: RefineParOptions, refinement: Refinement) -> Header:
    """What the soft labels say about themselves."""
    dilations = ", ".join(map(str, options.dilations))
    settings = f"dilations {dilations}, {options.iterations} iterations, 1/{options.downscale} size"
    return child_header(
        "soft-labels",
        "refine-par",
        options,
        refinement.source.parents,
        inputs=(refinement.dataset.as_input(),),
        protocol={"par": settings, **refinement.protocol()},
        dataset=refinement.dataset.spec(),
    )


def of_one_size(tasks: Iterable[RefineTask], most: int) -> Iterator[list[RefineTask]]:
    """Images that follow each other and have one size, in batches of at most so many."""
    for _, alike in groupby(tasks, lambda task: task[0].size):
        batch: list[RefineTask] = []
        for task in alike:
            batch.append(task)
            if len(batch) == most:
                yield batch
                batch = []
        if batch:
            yield batch


def par(
    starts: Sequence[Start], *, options: RefineParOptions, device: torch.device, workers: int
) -> list[list[np.ndarray]]:
    """Refine images of one size; a ``Refiner``.

    Args:
        starts: The images.
        options: PAR's settings.
        device: Where to compute.
        workers: How many processes share the memory that is free.

    Raises:
        PseudolabelError: An image is too large for the memory that is free.
    """
    height, width = starts[0].image.shape[:2]
    stacked = [np.concatenate(start.runs) for start in starts]
    most = max(map(len, stacked))
    if device.type == "cpu":
        needed = memory_of_par(height * width, most, len(options.dilations), options.downscale)
        require_memory(starts[0].record.image, "refinement", needed, memory_free(workers))
    maps = torch.zeros(len(starts), most, height, width)
    for padded, runs in zip(maps, stacked, strict=True):
        padded[: len(runs)] = torch.from_numpy(runs)
    images = torch.from_numpy(np.stack([start.image for start in starts])).permute(0, 3, 1, 2)
    with torch.inference_mode():
        found = refine_reduced(
            images.to(device).float(), maps.to(device), options.dilations, options.iterations, options.downscale
        )
    return [
        np.split(refined[: len(runs)], len(start.runs))
        for refined, runs, start in zip(found.cpu().numpy(), stacked, starts, strict=True)
    ]
