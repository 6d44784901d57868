"""``train-affinity``: labels with unlabelled pixels in, a network out that says which cells belong together.

Its labels are the sure ones of an earlier stage (``refine-crf --confidence irn`` and export-masks); pairs with an
unlabelled cell teach nothing. Losses are PSA's for form ``features`` and AFA's for ``attention``
(``pairwise.cell_pairs``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from pseudolabel.artefacts import check_output, child_header
from pseudolabel.artefacts.header import CostMeter, environment
from pseudolabel.data.augmentation import resized
from pseudolabel.models.backbone import freeze
from pseudolabel.models.memory_order import picks_channels_last
from pseudolabel.models.pair_affinity import AnyAffinity, build_pair_affinity
from pseudolabel.models.weights import network_facts, weights_inputs, weights_oracle
from pseudolabel.options import TrainAffinityOptions
from pseudolabel.pairwise.cell_pairs import afa_loss, cell_labels, pair_accuracy, psa_loss
from pseudolabel.runtime.devices import autocast, memory_format, normalise, pick_dtype
from pseudolabel.runtime.progress import Progress
from pseudolabel.training import Batch, Group, Losses, Mean, Run, joined, save_checkpoint, train
from pseudolabel.training.masked import (
    LabelledPhotographs,
    MaskCrops,
    choose_encoder,
    describe_masks,
    labelled_at,
    open_labelled,
)


def train_affinity(
    options: TrainAffinityOptions,
    progress: Progress = Progress(),  # noqa: B008 - has no state
) -> dict[str, Any]:
    """Train a network of pair affinities on labels and write its checkpoint.

    Args:
        options: Labels, form, network and schedule.
        progress: Where to report.

    Returns:
        ``out``, ``loss`` (mean of the last epoch), ``together`` and ``apart`` (shares of the held-out part's pairs of
        one label, and of two, that are told so at 0.5; None without such pairs), ``images``, ``skipped``, ``held_out``,
        ``unlabelled`` (images without a labelled pixel, left out), ``steps``.

    Raises:
        InputError: The labels, the photographs, the backbone or the weights are not what the options promise.
        PseudolabelError: The loss or the weights are no longer finite.
    """
    cost = CostMeter()
    check_output(options.out, overwrite=options.overwrite)
    found = open_labelled(options, progress)
    with joined(options.device) as (group, device):
        run = make_run(options, found, group, device)
        train(run, progress, cost, overwrite=options.overwrite)
        measured = {name: run.kept_measured.get(name) for name in ("together", "apart")}
        result = save_checkpoint(run, cost, found.kept, found.held_out, skipped=found.skipped, **measured)
    return {
        **result,
        "skipped": len(found.skipped),
        **measured,
        "held_out": len(found.held_out),
        "unlabelled": found.unlabelled,
    }


def make_run(options: TrainAffinityOptions, found: LabelledPhotographs, group: Group, device: torch.device) -> Run:
    """The training: network, views, loss, and the header of its checkpoint."""
    path, parent, held_out = found.path, found.header, found.held_out
    samples = MaskCrops(path, found.rows, found.kept, options)
    dtype = pick_dtype(options.precision, device)
    encoder, weights = choose_encoder(options, parent, path)
    architecture = {
        "type": "affinity",
        **encoder,
        "output_stride": options.output_stride or encoder["output_stride"],
        "form": options.form,
        "earlier": options.earlier,
        "radius": options.radius,
    }
    torch.manual_seed(options.seed)
    network = build_pair_affinity(architecture, weights=weights)
    backbone = network.backbone
    backbone.require_side(options.crop, architecture["backbone"])
    freeze(backbone.model, options.freeze)
    mean, std = backbone.mean, backbone.std
    channels_last = picks_channels_last(options.channels_last, network, architecture, device)
    network.to(device).to(memory_format=memory_format(channels_last=channels_last))
    header = child_header(
        "checkpoint",
        "train-affinity",
        options,
        {path: parent},
        inputs=weights_inputs(architecture["backbone"], weights),
        oracle=weights_oracle(None if weights == "pretrained" else weights),
        network=network_facts(architecture, weights, (mean, std), options.crop),
        facts={"architecture": architecture},
        environment=environment(str(device), str(dtype).removeprefix("torch.")),
    )
    of_pairs = psa_loss if options.form == "features" else afa_loss

    def loss(net: AnyAffinity, batch: Batch) -> Losses:
        images = normalise(batch["image"], mean, std, channels_last=channels_last)
        affinity, pairs, grid = net(images, options.radius)
        return {"loss": of_pairs(affinity, cell_labels(batch["labels"], grid), pairs)}

    def told(evaluated: AnyAffinity) -> dict[str, float]:
        counts = torch.zeros(2, 2, dtype=torch.int64)
        for record in held_out:
            image, labels = samples.pair(record)
            pixels = torch.from_numpy(resized(image, (options.crop, options.crop))[None]).to(device)
            small = torch.from_numpy(np.ascontiguousarray(labels))[None].to(device)
            with autocast(device, dtype), torch.inference_mode():
                images = normalise(pixels, mean, std, channels_last=channels_last)
                affinity, pairs, grid = evaluated(images, options.radius)
                counts += pair_accuracy(affinity, cell_labels(small, grid), pairs).cpu()
        shares = {"together": (counts[0, 0], counts[0].sum()), "apart": (counts[1, 1], counts[1].sum())}
        return {name: float(right / total) for name, (right, total) in shares.items() if total}

    return Run(
        network=network,
        samples=samples,
        objective=Mean(loss),
        options=options,
        header=replace(header, protocol={"trained_on": describe_masks(len(samples), parent), **labelled_at(parent)}),
        device=device,
        dtype=dtype,
        channels_last=channels_last,
        validate=told if held_out else None,
        group=group,
    )
