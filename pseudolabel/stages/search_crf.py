"""``search-crf``: maps and photographs in, the dense CRF's settings that suit them best out.

Every preset and a number of random settings refine the same few images. Without masks (``edges``) a CRF is good if its
labels' boundaries lie where colours change and no class's area changes much (``metrics.agreement``, ours). ``oracle``
takes the best mIoU against ground truth, and says so: soft labels made with the settings are marked, too.

Beside the artefact lies a YAML file of the best settings, which ``refine-crf --config`` takes. It also names the
artefact, so that what the settings were fitted on goes into everything made with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import yaml

from pseudolabel.artefacts import Header, check_output, child_header, partial_path, write_artefact
from pseudolabel.artefacts.atomic import replacing, writing
from pseudolabel.artefacts.header import CostMeter
from pseudolabel.artefacts.image_writer import begin
from pseudolabel.artefacts.journal import Journal
from pseudolabel.data import Dataset, Record, reopen_dataset
from pseudolabel.data.ground_truth import complain, require_objects
from pseudolabel.data.opening import restated
from pseudolabel.data.records import IGNORE
from pseudolabel.errors import DatasetError, InputError
from pseudolabel.labels.crf_search import Task, Trial, Verdict, as_options, draw_trials, in_words, judge, trial_arrays
from pseudolabel.labels.inputs import MapsInput, open_maps
from pseudolabel.metrics.scores import class_mean, iou, rounded
from pseudolabel.options import SearchCrfOptions
from pseudolabel.pairwise import PRESETS
from pseudolabel.runtime.parallel import ordered_map
from pseudolabel.runtime.progress import Progress


def search_crf(options: SearchCrfOptions, progress: Progress = Progress()) -> dict[str, Any]:  # noqa: B008 - has no state
    """Choose settings of the dense CRF, in parallel over processes.

    Args:
        options: Maps, thresholds, method, how many images and settings.
        progress: Where to report.

    Returns:
        ``out``, ``yaml``, ``method``, ``fitted_on``, ``images``, ``trials``; of the best trial ``crf`` (in words),
        ``settings`` and its scores ``criterion``, ``edges``, ``areas`` and, with masks, ``miou``; ``without_crf``, the
        same scores; ``presets``, by name the score that the method maximises; ``oracle``.

    Raises:
        InputError: Thresholds are missing, superfluous or of other classes; no image has a map of an object.
        DatasetError: A photograph or, with masks, a mask is missing, unreadable or of another size than its maps, or a
            photograph is too large.
    """
    cost = CostMeter()
    check_output(options.out, overwrite=options.overwrite)
    trials = draw_trials(options.trials, options.seed)
    with open_maps(options.cams, options.threshold, "cams", "soft-labels") as source:
        dataset = reopen_dataset(restated(source.header.dataset, options), root=options.root)
        records = choose_images(options, source, dataset)
        if options.method == "oracle":
            check_masks(options, source, dataset, records)
        header = make_header(options, source, dataset, len(records))
        work = partial(
            judge,
            trials=trials,
            thresholds=source.thresholds,
            read_mask=dataset.read_mask if options.method == "oracle" else None,
            classes=len(dataset.classes),
        )
        tasks = ((source.task(image), record) for image, record in records.items())
        verdicts = gather(options, header, work, tasks, len(records), cost, progress)
    scores = score(verdicts)
    facts = {**header.facts, "trials": len(trials), **summarise(options, trials, scores)}
    if options.method == "edges" and facts["criterion"] <= facts["without_crf"]["criterion"]:
        progress.warn("no CRF suits these images better than none does, by edges and areas; leave refine-crf out")
    arrays = {
        **trial_arrays(trials),
        **{f"trials/{name}": values[1:] for name, values in scores.items()},
        "images/id": np.array([record.id for record in records.values()], dtype=object),
    }
    write_yaml(options, facts)
    write_artefact(options.out, replace(header, facts=facts), arrays, cost, images=len(records))
    partial_path(options.out).unlink()
    return {"out": str(options.out), "yaml": str(options.yaml), **facts, "oracle": list(header.oracle)}


def choose_images(options: SearchCrfOptions, source: MapsInput, dataset: Dataset) -> dict[int, Record]:
    """Images to search on, by their index in the maps: the first in the seed's order that have a map of an object.

    Raises:
        InputError: There is none.
        DatasetError: One is not in the data set.
    """
    order = np.random.default_rng(options.seed).permutation(len(source.reader)).tolist()
    usable = (image for image in order if any(label not in (0, IGNORE) for label in source.reader.maps(image)))
    chosen = sorted(islice(usable, options.images))
    if not chosen:
        raise InputError(f"{options.cams} has no map of an object, and without one a CRF has nothing to decide")
    return dict(zip(chosen, dataset.find([source.images.ids[image] for image in chosen], options.cams), strict=True))


def check_masks(options: SearchCrfOptions, source: MapsInput, dataset: Dataset, records: Mapping[int, Record]) -> None:
    """Read every mask once, so that a missing one is found before the long work.

    Raises:
        InputError: The data set has other classes than the maps.
        DatasetError: Masks are missing, unreadable or of another size than the maps, or hold no class.
    """
    dataset.require_classes(source.header.classes, options.cams, masks=True)
    faults = []
    for image, record in records.items():
        try:
            truth, wanted = dataset.read_mask(record), source.reader.size(image)
        except DatasetError as error:
            faults.append(str(error))
            continue
        if truth.shape != wanted:
            sizes = [f"{width} x {height}" for height, width in (wanted, truth.shape)]
            faults.append(f"the maps of {record.id!r} are for {sizes[0]} pixels, its ground truth has {sizes[1]}")
    complain(f"{options.cams} does not fit the masks of split {dataset.split}", faults)
    require_objects(dataset, records.values())


def make_header(options: SearchCrfOptions, source: MapsInput, dataset: Dataset, images: int) -> Header:
    """What the search says about itself before it has found anything."""
    where = f"{images} images of split {dataset.split}"
    oracle = options.method == "oracle"
    fitted_on = f"masks of {where} (oracle)" if oracle else f"edges and areas of {where}, no masks"
    return child_header(
        "crf-search",
        "search-crf",
        options,
        source.parents,
        inputs=(dataset.as_input(),),
        protocol={"crf_fitted_on": fitted_on},
        oracle=(f"CRF settings searched against the masks of {where}",) if oracle else (),
        dataset=dataset.spec(),
        facts={"method": options.method, "fitted_on": fitted_on, "images": images},
    )


def gather(
    options: SearchCrfOptions,
    header: Header,
    work: Callable[[Task], Verdict],
    tasks: Iterable[Task],
    total: int,
    cost: CostMeter,
    progress: Progress,
) -> list[Verdict]:
    """Every image's verdict, in order; those that an interrupted run has reached are read from its journal."""
    path = partial_path(options.out)
    with writing(path):
        journal = Journal(path, anew=options.overwrite)
        begin(journal, header, f"{total}")
    with journal:
        records = list(journal.records())[1:]
        verdicts = [Verdict.unpack(facts["shapes"], parts) for facts, parts in records]
        cost.resume(records[-1][0]["spent"] if records else {})
        results = ordered_map(work, islice(tasks, len(verdicts), None), workers=options.workers, window=2)
        with progress.track(total, "images", done=len(verdicts)) as advance, closing(results):
            for verdict in results:
                verdicts.append(verdict)
                shapes, parts = verdict.pack()
                with writing(path):
                    journal.append({"shapes": shapes, "spent": cost.read(len(verdicts))}, parts)
                advance(1)
    return verdicts


def score(verdicts: Sequence[Verdict]) -> dict[str, np.ndarray]:
    """Scores of the maps without a CRF and then of each trial, float64 (T + 1,) by name; ``miou`` only with masks."""
    parts = np.stack([verdict.parts for verdict in verdicts])
    found = {
        "criterion": parts.prod(axis=-1).mean(axis=0),
        "edges": parts[..., 0].mean(axis=0),
        "areas": parts[..., 1].mean(axis=0),
    }
    counts = np.sum([verdict.counts for verdict in verdicts], axis=0)
    return found | ({"miou": class_mean(iou(counts))} if counts.size else {})


def summarise(options: SearchCrfOptions, trials: Sequence[Trial], scores: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The best trial, and what it can be compared with."""
    judged = scores["miou" if options.method == "oracle" else "criterion"]
    rows = [{name: rounded(values[row]) for name, values in scores.items()} for row in range(len(judged))]
    best = int(judged[1:].argmax())  # among equals the first, which may be a preset
    return {
        "crf": in_words(trials[best]),
        "settings": as_options(trials[best].settings),
        **rows[best + 1],
        "without_crf": rows[0],
        "presets": {
            trial.name: rounded(value) for trial, value in zip(trials, judged[1:], strict=True) if trial.name in PRESETS
        },
    }


def write_yaml(options: SearchCrfOptions, facts: Mapping[str, Any]) -> None:
    """Write the best settings for ``refine-crf --config``."""
    text = (
        f"# What search-crf chose on {facts['fitted_on']}.\n"
        f"# pseudolabel refine-crf CAMS --threshold THRESHOLD --config {options.yaml.name} --out SOFT\n"
        "# Keep the first line: from that file refine-crf learns, and passes on, what the numbers were fitted on.\n"
    )
    text += yaml.safe_dump({"settings": str(options.out), **facts["settings"]}, sort_keys=False, allow_unicode=True)
    with writing(options.yaml), replacing(options.yaml) as file:
        file.write(text.encode())
