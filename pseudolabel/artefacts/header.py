"""What an artefact says about itself: who made it, from what, how, at what cost."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pseudolabel import __version__
from pseudolabel.options import STAGES, StageOptions
from pseudolabel.options.fields import default_of, flag_of, role_of
from pseudolabel.runtime.usage import used

EXTERNAL = "external_models"
"""Under which name a protocol lists models trained elsewhere, in words: what they are, their licences, their data."""


@dataclass(frozen=True)
class Input:
    """One thing that a stage read.

    Attributes:
        kind: An artefact kind, ``dataset``, ``weights``, a folder of others' files (``npy``, ``png``,
            ``region-files``), or ``annotations`` (what people corrected in another tool).
        path: Where it lay, with ``/`` on every system: for artefacts as ``path_from`` says, else absolute.
        digest: SHA-256 of its data, or of what tells whether they have changed.
    """

    kind: str
    path: str
    digest: str


@dataclass(frozen=True)
class Header:
    """The root attributes of an artefact as plain data.

    Attributes:
        kind: ``cams``, ``soft-labels``, ``masks``, ``regions``, ``thresholds``, ``crf-search``, ``scores``,
            ``checkpoint`` or ``training-state``.
        stage: The command that wrote it.
        options: Its settings, fully resolved.
        classes: Class names, background first.
        dataset: What ``pseudolabel.data.load_dataset`` needs to find the images again.
        network: Backbone, normalisation and crop of the network behind the labels.
        protocol: What a score must state (scales, flip, CRF, threshold ...), gathered along the chain.
        oracle: Why pixel masks were used before evaluation; empty when they were not.
        facts: What a reader of this kind needs to know, for instance a checkpoint's architecture.
        environment, cost, digest, created, version: Stamped when the artefact is finished.
    """

    kind: str
    stage: str
    options: Mapping[str, Any]
    classes: tuple[str, ...]
    seed: int = 0
    inputs: tuple[Input, ...] = ()
    dataset: Mapping[str, Any] = field(default_factory=dict)
    network: Mapping[str, Any] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)
    oracle: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    ignore_value: int = 255
    environment: Mapping[str, Any] = field(default_factory=dict)
    cost: Mapping[str, Any] = field(default_factory=dict)
    digest: str = ""
    created: str = ""
    version: str = ""


def child_header(
    kind: str,
    stage: str,
    options: StageOptions,
    parents: Mapping[Path, Header],
    *,
    inputs: tuple[Input, ...] = (),
    protocol: Mapping[str, Any] | None = None,
    oracle: tuple[str, ...] = (),
    **overrides: Any,
) -> Header:
    """Make the header of an artefact from those it is made of.

    Classes, data set and network come from the first parent that has them; protocols, the external models in them, and
    oracle reasons add up.

    Args:
        kind: Kind of the new artefact.
        stage: The command that writes it.
        options: That command's settings.
        parents: Artefact path to header, for every artefact that was read, the main one first.
        inputs: What was read besides artefacts.
        protocol: Facts that this stage adds for the scores to state.
        oracle: Reasons that this stage adds.
        **overrides: Any other field of Header.
    """
    folder = options.artefact.parent
    headers = list(parents.values())
    read = tuple(Input(h.kind, path_from(folder, path), h.digest) for path, h in parents.items())
    merged: dict[str, Any] = {}
    for h in reversed(headers):
        merged |= h.protocol
    merged |= protocol or {}
    stated = (*(h.protocol for h in headers), protocol or {})
    external = dict.fromkeys(model for part in stated for model in part.get(EXTERNAL, ()))
    if external:
        merged[EXTERNAL] = list(external)
    reasons = dict.fromkeys([reason for h in headers for reason in h.oracle] + list(oracle))
    base = Header(
        kind=kind,
        stage=stage,
        options=options.resolved(),
        classes=next((h.classes for h in headers if h.classes), ()),
        seed=options.seed,
        inputs=read + inputs,
        dataset=next((h.dataset for h in headers if h.dataset), {}),
        network=next((h.network for h in headers if h.network), {}),
        protocol=merged,
        oracle=tuple(reasons),
        ignore_value=headers[0].ignore_value if headers else 255,
    )
    return replace(base, **overrides)


def path_from(folder: Path, path: Path) -> str:
    """A path relative to a folder, with ``/`` on every system; absolute where it is on another drive of Windows."""
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:
        return path.resolve().as_posix()


def environment(device: str = "cpu", dtype: str = "float32") -> dict[str, Any]:
    """Versions and hardware of this process; torch, timm and scikit-image are named only if they were used."""
    versions = {
        name: getattr(sys.modules.get(name), "__version__", None)
        for name in ("torch", "timm", "skimage", "numpy", "h5py")
    }
    threads = sys.modules["torch"].get_num_threads() if versions["torch"] else None
    return {
        "python": platform.python_version(),
        **{name: str(version) for name, version in versions.items() if version},
        "machine": platform.machine(),
        "device": device,
        "dtype": dtype,
        "cores": os.cpu_count(),
        "threads": threads,
    }


def made_differently(options: Mapping[str, Any], inputs: Sequence[Input], header: Header) -> str | None:
    """The first of ``differences``; None if nothing differs."""
    return next(iter(differences(options, inputs, header)), None)


def differences(options: Mapping[str, Any], inputs: Sequence[Input], header: Header) -> list[str]:
    """In what an earlier making differs from a new header's, in words; an option that it did not have counts as unset.

    Args:
        options: The earlier making's settings.
        inputs: The earlier making's inputs.
        header: What would be made now, by the same stage.
    """
    model = STAGES[header.stage]
    found = [
        f"--{flag_of(name)} ({options.get(name)!r}, now {value!r})"
        for name, value in header.options.items()
        if role_of(model, name) == "option" and options.get(name, default_of(model, name)) != value
    ]
    if [(item.kind, item.digest) for item in inputs] != [(item.kind, item.digest) for item in header.inputs]:
        found.append("input (" + ", ".join(item.kind for item in header.inputs) + " differ by digest)")
    return found


class CostMeter:
    """Wall time, processor time and peak memory since its making, added to what an interrupted run already spent.

    Args:
        spent: What ``read`` said in the interrupted run when it last put its work in safety.
    """

    def __init__(self, spent: Mapping[str, Any] | None = None) -> None:
        self._wall = time.perf_counter()
        self._cpu, _ = used()
        self._spent: dict[str, Any] = {}
        self._elsewhere = (0.0, 0)
        self.resume(spent or {})

    def resume(self, spent: Mapping[str, Any]) -> None:
        """Go on from what an interrupted run has spent, where a stage learns of that only after it has begun."""
        self._spent = dict(spent)

    def used(self) -> tuple[float, int]:
        """Processor seconds and peak memory in bytes of this process and its children since the making."""
        seconds, peak = used()
        return seconds - self._cpu, peak

    def add(self, others: Sequence[Sequence[float]]) -> None:
        """Count other processes that work on the same, too: what each has ``used`` so far."""
        seconds, peaks = zip(*others, strict=True)
        self._elsewhere = (sum(seconds), int(max(peaks)))

    def read(self, images: int) -> dict[str, Any]:
        """The cost so far, in seconds, bytes and images per second; child processes count once they have ended."""
        wall = time.perf_counter() - self._wall + self._spent.get("wall_seconds", 0.0)
        own, peak = self.used()
        cpu = own + self._elsewhere[0] + self._spent.get("cpu_seconds", 0.0)
        return {
            "wall_seconds": round(wall, 3),
            "cpu_seconds": round(cpu, 3),
            "peak_memory_bytes": max(peak, self._elsewhere[1], self._spent.get("peak_memory_bytes", 0)),
            "images": images,
            "images_per_second": round(images / wall, 3) if wall > 0 else None,
        }


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def package_version() -> str:
    """The version that stamps new artefacts."""
    return __version__
