"""Running a pipeline: what is fresh stays, what is not is made, each stage in a process of its own."""

from __future__ import annotations

import hashlib
import importlib
import json
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from pseudolabel.artefacts import Header, StalePartialError, check_output, read_header
from pseudolabel.artefacts.atomic import require_replaceable
from pseudolabel.artefacts.header import made_differently
from pseudolabel.data import Dataset, load_dataset, reopen_dataset
from pseudolabel.data.ground_truth import ground_truth_input
from pseudolabel.data.inputs import annotations_input, npy_input, png_input, region_input
from pseudolabel.data.opening import folder_of
from pseudolabel.data.records import WEAK
from pseudolabel.data.weak.labels import require_places
from pseudolabel.data.weak.supervision import masked_ids
from pseudolabel.errors import ArtefactError, InputError
from pseudolabel.options import DatasetOptions, StageOptions, TrainScribbleOptions, command_line
from pseudolabel.options.fields import artefact_of, nearest
from pseudolabel.runs.pipeline import Pipeline, Step, input_fields
from pseudolabel.runtime.files import open_regular
from pseudolabel.runtime.progress import Progress
from pseudolabel.runtime.subprocesses import in_own_process

_READ_AGAIN = {"dataset": "data set has", "truth": "pixel masks have"}
"""Kinds of inputs that are no files of their own, and how the reason to run begins when they have changed."""


def stage_function(stage: str) -> Callable[[Any, Progress], dict[str, Any]]:
    """The function of a stage: ``pseudolabel.stages.a_b.a_b`` for ``a-b``."""
    name = stage.replace("-", "_")
    function: Callable[[Any, Progress], dict[str, Any]] = getattr(
        importlib.import_module(f"pseudolabel.stages.{name}"), name
    )
    return function


def run_stage(stage: str, options: StageOptions, progress: Progress) -> dict[str, Any]:
    """Run one stage in this process and return what it did."""
    _require_beginning(options)  # before torch is imported, which takes seconds
    return stage_function(stage)(options, progress)


def run_pipeline(
    pipeline: Pipeline,
    progress: Progress = Progress(),  # noqa: B008 - has no state
    *,
    force: bool = False,
    only: Collection[str] = (),
) -> dict[str, Any]:
    """Run every stage whose artefact is missing or no longer what is asked for.

    Whether a stage is fresh is asked when its turn comes: one whose input was made again but came out the same stays.

    Args:
        pipeline: The stages.
        progress: Where to report.
        force: Run all of them, and start half-finished ones anew.
        only: Keys of the stages to look at; none for all.

    Returns:
        ``name``, ``out``, ``made`` (how many stages ran), ``stages`` (for each ``key``, ``stage``, ``state``,
        ``reason``, ``out``, ``wall_seconds``, ``images_per_second``, ``peak_memory_bytes``, ``bytes``),
        ``wall_seconds`` of this run, ``stage_seconds`` of all making, ``bytes``, and ``scores``: what each
        evaluate-masks stage found, by its key.

    Raises:
        PseudolabelError: A stage failed.
        InputError: ``only`` names an unknown stage or leaves out one that is needed.
    """
    started = time.perf_counter()
    freshness = Freshness()
    rows, scores = [], {}
    chosen = _chosen(pipeline, only)
    for number, step in enumerate(chosen, start=1):
        _require_inputs(step, pipeline)
        reason = "--force" if force else freshness.reason_to_run(step)
        if reason is None:
            progress.log(f"[{number}/{len(chosen)}] {step.key}: fresh")
        else:
            progress.log(f"[{number}/{len(chosen)}] {step.key}: {reason}\n  {command_now(step, anew=force)}")
            _make(step, progress, anew=force)
        rows.append(_row(step, reason))
        if step.stage == "evaluate-masks":
            scores[step.key] = dict(read_header(step.options.artefact).facts)
    return {
        "name": pipeline.name,
        "out": str(pipeline.out),
        "made": sum(row["state"] == "made" for row in rows),
        "stages": rows,
        "wall_seconds": round(time.perf_counter() - started, 3),
        "stage_seconds": round(sum(row["wall_seconds"] for row in rows), 3),
        "bytes": sum(row["bytes"] for row in rows),
        "scores": scores,
    }


def command_now(step: Step, *, anew: bool = False) -> str:
    """The command that does by hand what a run would do for a stage, where its output may be there already.

    Args:
        step: Of a pipeline.
        anew: Whether a half-finished output is not gone on with.
    """
    overwrite = anew or step.options.artefact.exists()
    return command_line(step.stage, step.options.model_copy(update={"overwrite": overwrite}))


def plan(pipeline: Pipeline, *, force: bool = False, only: Collection[str] = ()) -> list[dict[str, str]]:
    """What ``run_pipeline`` would do.

    Returns:
        For each stage ``key``, ``stage``, ``state`` (``fresh``, ``run`` or ``maybe``), ``reason`` and ``command``.

    Raises:
        InputError: A stage that would run would fail at once: its data set or weak labels are not there, or ``only``
            leaves out a stage that is needed. What is in the data set is not looked at.
    """
    freshness = Freshness()
    rows: list[dict[str, str]] = []
    moving: dict[str, bool] = {}
    for step in _chosen(pipeline, only):
        reason = "--force" if force else freshness.reason_to_run(step)
        changing = [key for key in step.parents if moving.get(key)]
        state = "fresh" if reason is None else "run"
        if reason is None and changing:
            state, reason = "maybe", f"if {' or '.join(changing)} comes out different"
        moving[step.key] = state != "fresh"
        if state == "run":
            try:
                _require_data(step.options)
            except InputError as error:
                raise InputError(f"stage {step.key} ({step.stage}): {error}") from error
            _require_inputs(step, pipeline, coming=moving)
        command = command_now(step, anew=force)
        rows.append({"key": step.key, "stage": step.stage, "state": state, "reason": reason or "", "command": command})
    return rows


class Freshness:
    """Tells whether artefacts are what their steps would make now; looks at each data set once."""

    def __init__(self) -> None:
        self._datasets: dict[str, tuple[Dataset, str]] = {}

    def reason_to_run(self, step: Step) -> str | None:
        """Why a step must run, in a few words; None where its artefact is fresh.

        Fresh means: finished, made by the same stage with the same options, from inputs with the digests they have now.
        """
        artefact = step.options.artefact
        if not artefact.exists():
            return "goes on from its half-finished output" if half_finished(step.options) else "has no output yet"
        try:
            header = read_header(artefact)
        except ArtefactError as error:
            return str(error)
        if header.stage != step.stage:
            return f"{artefact} was made by {header.stage}"
        changed = made_differently(header.options, header.inputs, replace(header, options=step.options.resolved()))
        return f"was made with another {changed}" if changed else self._changed_input(step, header)

    def _changed_input(self, step: Step, header: Header) -> str | None:
        for name in WEAK:  # without, a later stage takes those of what it reads
            place = None if isinstance(step.options, DatasetOptions) else header.options.get(name)
            if place is not None and getattr(step.options, name) is None:
                return f"was made with --{name} {place}"
        used, current = {item.digest for item in header.inputs}, set()
        for name in input_fields(type(step.options)):
            path = getattr(step.options, name)
            if path is None:
                continue
            digest = known_digest(path, used)
            if digest is None:
                return f"its input {path} has changed"
            current.add(digest)
        for item in header.inputs:
            if item.kind in _READ_AGAIN:
                try:
                    digest = self._digest(item.kind, step.options, header)
                except InputError as error:
                    return str(error)
                if digest != item.digest:
                    return f"its {_READ_AGAIN[item.kind]} changed"
            elif item.digest not in current:  # what an earlier artefact led the stage to
                path = step.options.artefact.parent / item.path
                if known_digest(path, {item.digest}) is None:
                    return f"its input {path} has changed"
        return None

    def _digest(self, kind: str, options: StageOptions, header: Header) -> str:
        """Of a data set as it is now, or of the ground truth in it that a training learns from."""
        spec, root = _places(options, header), getattr(options, "root", None)
        load = load_dataset if isinstance(options, DatasetOptions) else reopen_dataset
        key = json.dumps([load.__name__, spec, str(root)], sort_keys=True)
        if key not in self._datasets:
            dataset = load(spec, root=root)
            self._datasets[key] = dataset, dataset.as_input().digest
        dataset, digest = self._datasets[key]
        if kind == "truth" and isinstance(options, TrainScribbleOptions):
            return ground_truth_input(dataset, masked_ids(options, dataset)).digest
        return digest


def _places(options: StageOptions, header: Header) -> dict[str, Any]:
    """The data set of an artefact, with its tables and weak labels where the options look for them now."""
    spec = dict(header.dataset)
    for name in ("tags_file", *WEAK):
        place = getattr(options, name, None)
        if place is not None or isinstance(options, DatasetOptions):
            spec[name] = place and str(place)
    return spec


def known_digest(path: Path, known: Collection[str]) -> str | None:
    """The one of the known digests that a file has: its data's, if it is an artefact, or its bytes'.

    A folder counts as the ``masks.h5`` in it, or as its ``.npy`` files, its PNGs, its files of regions, or annotations.
    None if it has none of them.
    """
    if path.is_dir() and not (path / "masks.h5").exists():
        digests = (read(path).digest for read in (npy_input, png_input, region_input, annotations_input))
        return next((digest for digest in digests if digest in known), None)
    path = path / "masks.h5" if path.is_dir() else path
    if not path.is_file():
        return None
    if path.suffix == ".h5" and (digest := read_header(path).digest) in known:
        return digest
    with open_regular(path) as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    return digest if digest in known else None


def half_finished(options: StageOptions) -> bool:
    """Whether an interrupted run of a stage left something to go on from."""
    if options.writes_folder:
        return any(options.out.glob("*.partial"))
    return any(options.out.with_name(options.out.name + ending).exists() for ending in (".partial", ".training"))


def _make(step: Step, progress: Progress, *, anew: bool) -> None:
    """Run a stage in its own process; a half-finished output is gone on with unless it was begun differently."""
    artefact, what = step.options.artefact, f"stage {step.key} ({step.stage})"
    overwrite = anew or artefact.exists()
    if overwrite and not anew and not step.options.writes_folder and half_finished(step.options):
        require_replaceable(artefact)
        artefact.unlink()  # it is stale, and its successor half made
        overwrite = False
    options = step.options.model_copy(update={"overwrite": overwrite})
    try:
        in_own_process(what, run_stage, step.stage, options, progress)
    except StalePartialError as error:
        progress.warn(f"{str(error).partition(';')[0]}; starting anew")
        in_own_process(what, run_stage, step.stage, options.model_copy(update={"overwrite": True}), progress)


def _chosen(pipeline: Pipeline, only: Collection[str]) -> list[Step]:
    keys = [step.key for step in pipeline.steps]
    for key in only:
        if key not in keys:
            raise InputError(
                f"--only {key}: {pipeline.path} has no such stage{nearest(key, keys)}; it has {', '.join(keys)}"
            )
    return [step for step in pipeline.steps if not only or step.key in only]


def _require_data(options: StageOptions) -> None:
    """Refuse a stage whose data set or weak labels are not there."""
    if isinstance(options, DatasetOptions):
        folder_of({"dataset": options.dataset, "root": options.root})
    require_places({kind: place for kind in WEAK if (place := getattr(options, kind, None)) is not None})


def _require_beginning(options: StageOptions) -> None:
    """Refuse a stage that could not begin, as it would itself: what it would write, and what it reads."""
    _require_data(options)
    for name in input_fields(type(options)):
        path, (kind, serves) = getattr(options, name), artefact_of(type(options), name)
        if path is not None and kind is not None:
            read_header(path / "masks.h5" if kind == "masks" and path.is_dir() else path, kind, serves=serves)
    if options.out is not None:  # beside what is read, it can only be wrong where that is
        check_output(options.artefact, overwrite=options.overwrite)


def _require_inputs(step: Step, pipeline: Pipeline, coming: Collection[str] = ()) -> None:
    """Refuse a stage whose inputs are neither there nor coming: made before it in the same run."""
    for parent in pipeline.steps:
        if parent.key in step.parents and parent.key not in coming and not parent.options.artefact.exists():
            raise InputError(
                f"stage {step.key} reads {parent.options.artefact}, which is not made yet; add --only {parent.key}"
            )


def _row(step: Step, reason: str | None) -> dict[str, Any]:
    artefact = step.options.artefact
    cost = read_header(artefact).cost
    files = (
        [file for file in step.options.out.rglob("*") if file.is_file()] if step.options.writes_folder else [artefact]
    )
    return {
        "key": step.key,
        "stage": step.stage,
        "state": "fresh" if reason is None else "made",
        "reason": reason or "",
        "out": str(step.options.out),
        "wall_seconds": cost.get("wall_seconds"),
        "images_per_second": cost.get("images_per_second") or None,
        "peak_memory_bytes": cost.get("peak_memory_bytes"),
        "bytes": sum(file.stat().st_size for file in files),
    }
