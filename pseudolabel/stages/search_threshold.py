"""``search-threshold``: activation maps in, the score below which a pixel is background out.

``mixture`` and ``released`` read nothing but the maps' values, at the maps' own grid. ``sweep`` compares label maps at
image size with ground truth, and says so: its thresholds, and all that is made with them, are marked oracle.

One threshold a class: mixtures are fitted to that class's maps alone; the sweep takes, for each class, the threshold at
which the class's own IoU is best while the strongest map decides between classes. A class for which that cannot be done
(no map, too few values, no true pixel) gets the threshold of all classes together.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pseudolabel.artefacts import Header, MapsReader, check_output, child_header, open_artefact, write_artefact
from pseudolabel.artefacts.header import CostMeter
from pseudolabel.errors import InputError
from pseudolabel.labels.assignment import Thresholds
from pseudolabel.labels.threshold_search import Found, fitted, fixed, sweep
from pseudolabel.options import SearchThresholdOptions
from pseudolabel.runtime.progress import Progress


def search_threshold(
    options: SearchThresholdOptions,
    progress: Progress = Progress(),  # noqa: B008 - has no state
) -> dict[str, Any]:
    """Choose thresholds for activation maps.

    Args:
        options: Maps, method, whether one a class, thresholds given by hand.
        progress: Where to report.

    Returns:
        ``out``, ``method``, ``scope``, ``value``, ``low`` and ``high`` (a number, or numbers by class name, or None),
        ``fitted_on``, ``images``, ``fallback``; of a sweep ``miou``, ``false_positives`` and ``false_negatives``, and
        for one a class ``single_miou``, that of the best threshold for all; ``oracle``.

    Raises:
        InputError: There is no map, nothing to separate, or low, value and high do not ascend.
        DatasetError: Ground truth is missing, unreadable or of another size.
    """
    cost = CostMeter()
    check_output(options.out, overwrite=options.overwrite)
    check_options(options)
    with open_artefact(options.cams, "cams") as artefact:
        reader = MapsReader(artefact)
        if options.method == "fixed":
            found = fixed(options, reader)
        elif options.method == "sweep":
            found = sweep(options, reader, progress)
        else:
            found = fitted(options, reader, progress)
        check_order(options, found.thresholds)
        if found.fallback:
            progress.warn(f"{len(found.fallback)} classes get the threshold of all: {', '.join(found.fallback)}")
        header = make_header(options, reader.header, found)
    arrays = {**found.thresholds.arrays(), **found.arrays}
    write_artefact(options.out, header, arrays, cost, images=found.images)
    return {"out": str(options.out), **header.facts, "oracle": list(header.oracle)}


def check_options(options: SearchThresholdOptions) -> None:
    """Refuse settings that mean nothing together.

    Raises:
        InputError: They do.
    """
    if options.method == "fixed" and options.per_class:
        raise InputError("--per-class has no meaning with --method fixed, which gives every class the same threshold")
    if options.method in ("fixed", "sweep") and (options.low is None) != (options.high is None):
        raise InputError("--low and --high belong together; pass both or neither")


def check_order(options: SearchThresholdOptions, found: Thresholds) -> None:
    """Refuse thresholds that do not ascend.

    Raises:
        InputError: One does not.
    """
    low = found.value if found.low is None else found.low
    high = found.value if found.high is None else found.high
    wrong = np.flatnonzero((low > found.value) | (found.value > high))
    if len(wrong):
        numbers = ", ".join(f"{float(number[wrong[0]]):.4g}" for number in (low, found.value, high))
        raise InputError(f"low, value and high threshold are {numbers}, wanted ascending; pass another --low or --high")


def make_header(options: SearchThresholdOptions, parent: Header, found: Found) -> Header:
    """What the thresholds say about themselves."""
    scope = "one a class" if options.per_class else "one for all classes"
    thresholds = {name: stated(options, parent, getattr(found.thresholds, name)) for name in ("value", "low", "high")}
    return child_header(
        "thresholds",
        "search-threshold",
        options,
        {options.cams: parent},
        inputs=found.inputs,
        protocol={"threshold": thresholds["value"], "threshold_fitted_on": found.fitted_on},
        oracle=found.oracle,
        facts={
            "method": options.method,
            "scope": scope,
            **thresholds,
            **found.scores,
            "fitted_on": found.fitted_on,
            "images": found.images,
            "fallback": list(found.fallback),
        },
    )


def stated(options: SearchThresholdOptions, parent: Header, values: np.ndarray | None) -> Any:
    """Thresholds as JSON data: one number, or one by object class name, or None."""
    if values is None:
        return None
    rounded = [round(float(value), 4) for value in values]
    return dict(zip(parent.classes[1:], rounded[1:], strict=True)) if options.per_class else rounded[0]
