"""``predict-masks``: a segmenter and photographs in, soft labels, masks and PNG files out.

The photographs are a split of the checkpoint's data set, or with ``--images`` new ones.

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
from torch import Tensor

from pseudolabel.artefacts import Header, Input, MapsWriter, check_output, child_header, read_header
from pseudolabel.artefacts.header import CostMeter, environment, made_differently
from pseudolabel.artefacts.maps import at_size
from pseudolabel.data import Dataset, Record
from pseudolabel.data.opening import open_photographs
from pseudolabel.data.palette import mask_path
from pseudolabel.errors import InputError
from pseudolabel.labels.box_constraints import constrain_probabilities, open_boxed, stated
from pseudolabel.labels.inputs import open_maps
from pseudolabel.models.checkpoint import load_network
from pseudolabel.models.inference import compute_maps, make_plan
from pseudolabel.models.pair import AnyPredictor
from pseudolabel.models.prediction import SMALLEST, Inference, long_side, stored
from pseudolabel.options import CrfOptions, ExportMasksOptions, PictureOptions, PredictMasksOptions, RefineCrfOptions
from pseudolabel.runtime.devices import pick_device, pick_dtype
from pseudolabel.runtime.progress import Progress
from pseudolabel.stages.export_masks import write_masks
from pseudolabel.stages.refine_crf import refine_crf


def predict_masks(options: PredictMasksOptions, progress: Progress = Progress()) -> dict[str, Any]:  # noqa: B008 - has no state
    """Predict a split or new photographs; write ``soft.h5``, ``masks.h5`` and one PNG an image into the folder ``out``.

    Args:
        options: Checkpoint, photographs, scales, tag filter, CRF.
        progress: Where to report.

    Returns:
        ``out``, ``images``, ``skipped``, ``images_per_second`` of the network.

    Raises:
        InputError: The checkpoint holds no segmenter or no such network, no image has boxes where ``tags`` is
            ``boxes``, a photograph would be replaced, or the outputs exist.
        DatasetError: There is no photograph, or one is unreadable, or has no tags where ``tags`` needs them, or a box
            is at fault.
    """
    cost = CostMeter()
    soft = options.out / "soft.h5"
    first = options.out / "network.h5" if options.crf else soft
    check_output(options.artefact, overwrite=options.overwrite)
    network, parent = load_network(options.checkpoint, "segmenter", options.network)
    assert isinstance(network, AnyPredictor)  # load_network checked the architecture's type
    dataset = open_images(options, parent, progress)
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
    pictures = {name: getattr(options, name) for name in PictureOptions.model_fields}
    exporting = ExportMasksOptions(labels=soft, out=options.out, **pictures, **common)
    exported = export(options, exporting, cost, progress)
    also = {"also": exported["also"]} if exported["also"] else {}
    return {"out": str(options.out), "images": exported["images"], **also, **written}


def open_images(options: PredictMasksOptions, parent: Header, progress: Progress) -> Dataset:
    """What is to be predicted: a split of the checkpoint's data set, or new photographs.

    Raises:
        InputError: ``--out`` is among the photographs in such a way that a mask would replace one.
        DatasetError: As of ``predict_masks``.
    """
    if options.images is None:
        dataset = open_boxed(parent.dataset, options.boxes, split=options.split, root=options.root)
        dataset.require_classes(parent.classes, options.checkpoint)
        return dataset
    dataset = open_photographs(options.images, parent.classes, parent.dataset)
    for note in dataset.notes:
        progress.warn(note)
    photographs = {record.image.resolve() for record in dataset.records}
    for record in dataset.records:
        if (path := mask_path(options.out, record.id)).resolve() in photographs:
            raise InputError(f"--out {options.out} would replace the photograph {path}; choose another folder")
    return dataset


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
            "size": long_side(options, int(parent.network["crop"])) or "the image's own",
            **({"tile": options.tile} if options.tile else {}),
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
    inference = Inference.of(network, options, device)
    skip = options.on_error == "skip"
    plan = make_plan(
        dataset,
        long_side=long_side(options, int(header.network["crop"])),
        multiple=network.multiple,
        batch_size=options.batch_size,
        device=device,
        skip=skip,
        tile=options.tile,
    )
    sizes = plan.images.sizes()

    def compute(pixels: Tensor, records: list[Record]) -> list[dict[int, np.ndarray]]:
        if not records:
            return []
        found = list(inference.probabilities(pixels))
        if options.tags != "none":
            found = [restricted(row, record.tags or ()) for row, record in zip(found, records, strict=True)]
        if options.tags == "boxes":
            return [held(row, record, sizes[record.id]) for row, record in zip(found, records, strict=True)]
        return [stored(row) for row in found]

    cost = CostMeter()
    writer = MapsWriter(out, header, plan.images, dtype="float16", cost=cost, overwrite=options.overwrite)
    with writer:
        handled = compute_maps(
            writer, dataset, plan, compute, device=device, skip=skip, workers=options.workers, progress=progress
        )
    return {"skipped": len(writer.skipped), "images_per_second": cost.read(handled)["images_per_second"]}


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
