"""A pipeline: the stages of a YAML file and how their artefacts feed each other.

::

    name: voc-mini multi-stage
    out: work/voc-mini                                           # folder of all artefacts
    defaults: {dataset: voc, root: ../shared/voc-mini, seed: 0}  # for every stage that has such an option
    stages:
      cam: {stage: train-cam, backbone: vit_tiny_patch16_224}
      cams: {stage: make-cams, checkpoint: cam}

A field that takes an artefact may name an earlier stage by its key, or ``key/file`` for another file in the folder that
the stage writes. Stage ``key`` writes ``out/key.h5``, or the folder ``out/key``. Relative paths start where the command
is run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from pseudolabel.errors import InputError
from pseudolabel.options import STAGES, DatasetOptions, StageOptions, build_options, check_names
from pseudolabel.options.fields import nearest, role_of
from pseudolabel.options.settings import read_yaml, require_words

_TOP = ("name", "out", "defaults", "stages")
# What all later stages read from their input.
_DATASET = (
    "dataset", "root", "split", "tag_source", "tags_file", "scribbles", "points", "boxes",
    "mask_values", "ignore_value", "images",
)  # fmt: skip
_RESERVED = ("out", "overwrite")  # the pipeline's own business
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Step:
    """One stage of a pipeline.

    Attributes:
        key: Its name in the YAML file.
        stage: The command.
        options: Its settings, with ``out`` and inputs filled in.
        parents: Keys of the earlier steps whose artefacts it reads.
    """

    key: str
    stage: str
    options: StageOptions
    parents: tuple[str, ...]


@dataclass(frozen=True)
class Pipeline:
    """The steps of a YAML file, in order.

    Attributes:
        name: For people.
        path: The YAML file.
        out: Folder of all artefacts.
        steps: The stages.
    """

    name: str
    path: Path
    out: Path
    steps: tuple[Step, ...]


def find_config(name: str) -> Path:
    """A YAML file by its path, or a packaged one by its name, for instance ``voc-mini/multi-stage``.

    Raises:
        InputError: There is neither; the line names the nearest packaged one.
    """
    path = Path(name)
    if path.is_file():
        return path
    folder = Path(str(files("pseudolabel.configs")))
    known = {str(file.relative_to(folder).with_suffix("")): file for file in sorted(folder.glob("*/*.yaml"))}
    wanted = name.removeprefix("configs/").removesuffix(".yaml")
    if wanted in known:
        return known[wanted]
    hint = nearest(wanted, list(known)) or f"; packaged ones: {', '.join(known)}"
    raise InputError(f"{name} is neither a YAML file nor a packaged pipeline{hint}")


def read_pipeline(path: Path, assignments: Mapping[str, str] | None = None, out: Path | None = None) -> Pipeline:
    """Read a pipeline and validate every setting of every stage.

    Args:
        path: The YAML file.
        assignments: Values for ``stage-key.option`` or ``defaults.option`` that override the file's.
        out: Folder of all artefacts, instead of the file's.

    Raises:
        InputError: In one line with file, stage key, option and the nearest known name.
    """
    document = read_yaml(path)
    _check_keys(document, _TOP, f"{path}")
    stages = _mapping(document.get("stages"), f"{path}: 'stages'")
    if not stages:
        raise InputError(f"{path}: 'stages' is empty; wanted 'key: {{stage: train-cam, ...}}' lines")
    entries = {key: _mapping(entry, f"{path}: stage {key!r}") for key, entry in stages.items()}
    defaults = _mapping(document.get("defaults") or {}, f"{path}: 'defaults'")
    _assign(assignments or {}, entries, defaults)
    folder = out or (Path(document["out"]) if isinstance(document.get("out"), str) else None)
    if folder is None:
        raise InputError(f"{path} names no folder for its artefacts; add 'out: work/NAME' or pass --out")
    for key, entry in entries.items():
        _check_entry(key, entry, f"{path}: stage {key!r}")
    _check_defaults(defaults, {entry["stage"] for entry in entries.values()}, f"{path}: 'defaults'")
    steps: dict[str, Step] = {}
    for key, entry in entries.items():
        steps[key] = _step(key, entry, defaults, folder, steps, entries, f"{path}: stage {key!r}")
    return Pipeline(str(document.get("name", path.stem)), path, folder, tuple(steps.values()))


def input_fields(model: type[StageOptions]) -> list[str]:
    """The fields that take an artefact or another file that a stage reads, but not the data set's place."""
    return [name for name in model.model_fields if role_of(model, name) == "input" and name not in _DATASET]


def _step(
    key: str,
    entry: Mapping[str, Any],
    defaults: Mapping[str, Any],
    folder: Path,
    earlier: Mapping[str, Step],
    keys: Iterable[str],
    where: str,
) -> Step:
    stage = entry["stage"]
    model = STAGES[stage]
    opens_dataset = issubclass(model, DatasetOptions)
    given = {k: v for k, v in defaults.items() if k in model.model_fields and (opens_dataset or k not in _DATASET)}
    given |= check_names(stage, {k: v for k, v in entry.items() if k != "stage"}, where=where)
    parents: list[str] = []
    for name in input_fields(model):
        if isinstance(given.get(name), str) and given[name] != "none":
            given[name], parent = _input_path(given[name], earlier, keys, f"{where}: {name!r}", f"{key}.{name}")
            parents += [parent] if parent else []
    if "root" in model.model_fields and not given.get("root") and parents:
        given["root"] = getattr(earlier[parents[0]].options, "root", None)  # as moved as the first stage's
    given["out"] = folder / key if model.writes_folder else folder / f"{key}.h5"
    return Step(key, stage, build_options(stage, given, where=where), tuple(dict.fromkeys(parents)))


def _input_path(
    value: str, earlier: Mapping[str, Step], keys: Iterable[str], where: str, word: str
) -> tuple[Path, str | None]:
    """The file that an input means, and the earlier stage that makes it."""
    first, _, rest = value.partition("/")
    if first in earlier and earlier[first].options.writes_folder and rest:
        return earlier[first].options.out / rest, first
    if value in earlier:
        return earlier[value].options.artefact, value
    if value in keys:
        raise InputError(f"{where} names stage {value!r}, which does not come earlier; move it up")
    if not Path(value).exists():
        found = f"{value!r}, neither an earlier stage{nearest(value, list(earlier))} nor a file"
        raise InputError(f"{where} is {found}; correct it, or pass --set {word}=FILE")
    return Path(value), None


def _assign(assignments: Mapping[str, str], entries: Mapping[str, dict[str, Any]], defaults: dict[str, Any]) -> None:
    for word, value in assignments.items():
        key, dot, option = word.partition(".")
        if not dot:
            raise InputError(f"--set {word}: wanted STAGE.OPTION=VALUE or defaults.OPTION=VALUE")
        if key != "defaults" and key not in entries:
            raise InputError(f"--set {word}: no stage {key!r}{nearest(key, ['defaults', *entries])}")
        target = defaults if key == "defaults" else entries[key]
        for spelling in (option.replace("-", "_"), option.replace("_", "-")):
            target.pop(spelling, None)
        target[option] = value


def _check_entry(key: str, entry: Mapping[str, Any], where: str) -> None:
    if not _KEY.fullmatch(key):
        raise InputError(f"{where}: a key names a file; use letters, digits, - and _")
    stage = entry.get("stage")
    if not isinstance(stage, str) or stage not in STAGES:
        hint = nearest(str(stage), list(STAGES)) or f"; known: {', '.join(STAGES)}"
        found = "names no stage" if stage is None else f"names an unknown stage {stage!r}"
        raise InputError(f"{where} {found}{hint}")
    for name in _RESERVED:
        if name in entry:
            raise InputError(f"{where}: {name!r} is not for a pipeline to set; outputs are named by their keys")


def _check_defaults(defaults: dict[str, Any], stages: set[str], where: str) -> None:
    known = {name for stage in stages for name in STAGES[stage].model_fields} - set(_RESERVED)
    for name in list(defaults):
        defaults[name.replace("-", "_")] = defaults.pop(name)
    _check_keys(defaults, sorted(known), where)


def _check_keys(values: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    for key in values:
        if key not in known:
            raise InputError(f"{where}: unknown key {key!r}{nearest(key, list(known))}")


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{where} holds {value!r}, wanted 'key: value' lines")
    require_words(value, where)
    return dict(value)
