"""``refine-crf``: CAMs or soft labels and the photographs in, soft labels that follow the photographs' edges out.

What a CRF starts from are background and the classes present only. The rules that leave unsure pixels unlabelled are
those of ``labels.refinement``; rule ``irn`` runs the CRF twice.

Probabilities are stored as uint8 (``labels.quantise``: no label changes), at image size, one map for background and
each class present; with a rule, a map of class 255 is 255 where a pixel is unlabelled. ``labels.from_soft`` reads that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from pseudolabel.artefacts import Header, MapsWriter, check_output, child_header
from pseudolabel.artefacts.header import CostMeter
from pseudolabel.labels.crf_search import Choice, chosen_crf
from pseudolabel.labels.inputs import each, write_images
from pseudolabel.labels.refinement import Refinement, RefineTask, Rules, Start, open_refinement, refine
from pseudolabel.options import CrfEngine, RefineCrfOptions
from pseudolabel.pairwise import CrfSettings, dense_crf, memory_free, memory_of_crf, require_engine, require_memory
from pseudolabel.runtime.parallel import cores, ordered_map
from pseudolabel.runtime.progress import Progress

Refined = dict[int, np.ndarray] | str


def refine_crf(options: RefineCrfOptions, progress: Progress = Progress()) -> dict[str, Any]:  # noqa: B008 - has no state
    """Refine every image's maps with a mean-field dense CRF on its photograph, in parallel over processes.

    Args:
        options: Maps, thresholds, the CRF's settings, the confidence rule.
        progress: Where to report.

    Returns:
        ``out``, ``images``, ``skipped``, ``crf``, ``confidence``, ``mean_field_steps`` (the mean over this run's CRFs,
        fewer than asked for where nothing moved any more), ``images_per_second``.

    Raises:
        InputError: Thresholds are missing, superfluous or of other classes.
        DatasetError: A photograph is missing, unreadable or of another size than its maps.
    """
    cost = CostMeter()
    check_output(options.out, overwrite=options.overwrite)
    require_engine(options.engine)
    steps: list[int] = []
    device = _device(options)
    # One process computes on an accelerator: more would only take each other's memory.
    workers = 1 if device != "cpu" else cores() if options.workers is None else max(1, options.workers)
    choice = chosen_crf(options)

    def counted(found: tuple[list[Refined], list[int]]) -> list[Refined]:
        """What a worker found of one image, its steps taken out."""
        steps.extend(found[1])
        return found[0]

    with open_refinement(options) as refinement:
        header = make_header(options, refinement, choice)
        work = partial(
            refine_image,
            rules=refinement.rules,
            settings=choice.settings,
            engine=options.engine,
            device=device,
            workers=workers,
        )
        images = refinement.source.images
        with MapsWriter(options.out, header, images, dtype="uint8", cost=cost, overwrite=options.overwrite) as writer:
            done, total = writer.done, len(images.ids)
            made = each(ordered_map(work, refinement.tasks(done), workers=workers), counted)
            write_images(writer, made, total, progress)
    skipped = len(writer.skipped)
    return {
        "out": str(options.out),
        "images": total - skipped,
        "skipped": skipped,
        "crf": choice.words,
        "confidence": options.confidence,
        "mean_field_steps": round(float(np.mean(steps)), 2) if steps else None,
        "images_per_second": cost.read(total - done)["images_per_second"],
    }


def make_header(options: RefineCrfOptions, refinement: Refinement, choice: Choice) -> Header:
    """What the soft labels say about themselves."""
    return child_header(
        "soft-labels",
        "refine-crf",
        options,
        {**refinement.source.parents, **choice.parents},
        inputs=(refinement.dataset.as_input(),),
        protocol={"crf": choice.words, **refinement.protocol()},
        dataset=refinement.dataset.spec(),
        facts={"crf": asdict(choice.settings)},
    )


def refine_image(
    task: RefineTask, *, rules: Rules, settings: CrfSettings, engine: CrfEngine, device: str, workers: int
) -> tuple[list[Refined], list[int]]:
    """One image's soft labels, or why there are none; runs in a worker process.

    Args:
        task: The image's maps and record.
        rules: How labels are made.
        settings: The CRF's.
        engine: The CRF's.
        device: Where the engine ``exact`` computes.
        workers: How many processes share the memory that is free.

    Returns:
        As of ``refine``; the mean-field steps of each CRF that was run.

    Raises:
        DatasetError: The photograph is unreadable or of another size, and the rules do not skip it.
        PseudolabelError: It is too large for the memory that is free, whatever the rules say: with more, it is not.
    """
    steps: list[int] = []

    def crf(starts: Sequence[Start]) -> list[list[np.ndarray]]:
        (start,) = starts
        height, width = start.image.shape[:2]
        require_memory(
            start.record.image, "dense CRF", memory_of_crf(height * width, len(start.labels)), memory_free(workers)
        )
        found = [dense_crf(start.image, scores, settings, engine=engine, device=device) for scores in start.runs]
        steps.extend(run.steps for run in found)
        return [[run.probabilities for run in found]]

    return refine([task], rules, crf), steps


def _device(options: RefineCrfOptions) -> str:
    """Where the engine computes; torch is asked only if it does with torch."""
    if options.engine != "exact":
        return "cpu"
    from pseudolabel.runtime.devices import pick_device

    return str(pick_device(options.device))
