"""What an open file must be to count as an artefact: checked before anything in it is followed or believed."""

from __future__ import annotations

from pathlib import Path

import h5py

from pseudolabel.artefacts.attributes import attribute, check_network_facts, read_attributes, seal
from pseudolabel.artefacts.conformity import check_arrays, check_classes
from pseudolabel.artefacts.header import Header
from pseudolabel.artefacts.schema import KINDS, required
from pseudolabel.errors import ArtefactError
from pseudolabel.runtime.formatting import either

FORMAT_VERSION = 2
VERSIONS = (1, 2)
"""Those that are read; the newest is written."""
PREFIX = "pseudolabel/"

REQUIRED: dict[str, tuple[str, ...]] = {kind: required(kind) for kind in KINDS}
"""Every kind of artefact and what it must hold."""

MAKERS: dict[str, tuple[str, ...]] = {
    "cams": ("make-cams", "import-cams", "refine-affinity"),
    "soft-labels": ("refine-crf", "refine-par", "vote-regions", "predict-masks"),
    "masks": ("export-masks", "predict-masks", "import-masks"),
    "regions": ("make-regions", "import-regions"),
    "thresholds": ("search-threshold",),
    "crf-search": ("search-crf",),
    "scores": ("evaluate-masks",),
    "checkpoint": ("train-cam", "train-cosa", "train-scribble", "train-affinity", "train-segmenter", "train-semi"),
}
"""The stages that make a kind that a user may be asked for."""
SERVES: dict[str, tuple[str, ...]] = {
    "cam": ("cam", "cosa"),
    "segmenter": ("segmenter", "scribble", "semi", "cosa"),
    "affinity": ("affinity",),
}
"""The types of network that can be had from a checkpoint as each kind; ``train-TYPE`` trains them."""

_TAKERS = {
    "cam": "make-cams",
    "segmenter": "predict-masks",
    "affinity": "refine-affinity",
}  # by what a network serves as

_FILTERS = {
    "gzip": h5py.h5z.FILTER_DEFLATE,
    "shuffle": h5py.h5z.FILTER_SHUFFLE,
    "fletcher32": h5py.h5z.FILTER_FLETCHER32,
}
_PLAIN = "biufS"  # NumPy's kinds of types that a dataset may have
_DEEPEST = 16  # groups within groups; a file whose groups contain themselves has no bottom


def checked_header(path: Path, file: h5py.File, kinds: tuple[str, ...] = (), serves: str | None = None) -> Header:
    """Check an open file: type and version first, then where its data lie, then what is in it.

    Raises:
        ArtefactError: As ``open_artefact``.
    """
    try:
        kind = _checked_kind(path, file, kinds, serves)
        _check_links(path, file, set())
        for name in (*REQUIRED[kind], "classes/name"):
            if name not in file:
                raise ArtefactError(f"{path}: {name!r} is missing from this {kind} artefact; make it again")
        header = read_attributes(path, file, kind, check_classes(path, file))
        if serves:
            _check_network(path, header, kinds, serves)
        check_arrays(path, file, kind, len(header.classes), header.ignore_value, header.stage)
        if attribute(file, "encoding-version") > 1 and attribute(file, "seal") != seal(file):
            raise ArtefactError(f"{path} was altered: its attributes do not match their seal; make it again")
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ArtefactError(f"{path} is damaged ({_first_line(error)}); make it again") from error
    return header


def _checked_kind(path: Path, file: h5py.File, kinds: tuple[str, ...], serves: str | None) -> str:
    wanted = a_kind(kinds, serves)
    encoding = attribute(file, "encoding-type")
    if not isinstance(encoding, str) or not encoding.startswith(PREFIX):
        raise ArtefactError(f"{path} is an HDF5 file of another program (no encoding-type); wanted {wanted}")
    found = attribute(file, "encoding-version")
    version = int(0 if found is None else found)
    if version not in VERSIONS:
        newer = "newer than this pseudolabel reads: upgrade it" if version > FORMAT_VERSION else "not supported"
        supported = ", ".join(map(str, VERSIONS))
        raise ArtefactError(f"{path} has format version {version}, {newer} (supported: {supported})")
    kind = encoding.removeprefix(PREFIX)
    if kind not in REQUIRED:
        raise ArtefactError(f"{path} holds {kind!r}, which is no known kind; known: {', '.join(REQUIRED)}")
    stage = attribute(file, "stage")
    if kinds and kind not in kinds:
        raise ArtefactError(f"{path} holds {kind} (made by {stage}); wanted {wanted}")
    if not attribute(file, "digest"):
        raise ArtefactError(f"{path} was never finished (it has no digest); run '{stage}' again")
    return kind


def _check_network(path: Path, header: Header, kinds: tuple[str, ...], serves: str) -> None:
    found = header.facts.get("architecture", {}).get("type", "unknown")
    if found not in SERVES[serves]:
        hint = next((f"; {stage} takes it" for kind, stage in _TAKERS.items() if found in SERVES[kind]), "")
        raise ArtefactError(
            f"{path} holds a {found} network (made by {header.stage}); wanted {a_kind(kinds, serves)}{hint}"
        )
    check_network_facts(path, header)


def _check_links(path: Path, group: h5py.Group, seen: set[int], prefix: str = "") -> None:
    """Refuse links that could lead out of the file or in circles, and data that lie elsewhere or need other filters."""
    address = h5py.h5o.get_info(group.id).addr
    if address in seen:
        raise ArtefactError(f"{path}: {prefix[:40]!r} is a second link to a group; such files are refused")
    seen.add(address)
    for name in group:
        key = f"{prefix}{name}"
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            kind = "an external link" if isinstance(link, h5py.ExternalLink) else "a soft link"
            raise ArtefactError(f"{path}: {key!r} is {kind}; files with links are refused")
        if key.count("/") > _DEEPEST:
            raise ArtefactError(
                f"{path}: {key[:40]!r} ... lies more than {_DEEPEST} groups deep; such files are refused"
            )
        item = group[name]
        if isinstance(item, h5py.Group):
            _check_links(path, item, seen, key + "/")
        elif isinstance(item, h5py.Dataset):
            _check_storage(path, key, item)


def _check_storage(path: Path, name: str, dataset: h5py.Dataset) -> None:
    if dataset.external or dataset.is_virtual:
        raise ArtefactError(f"{path}: the data of {name!r} lie in another file; such files are refused")
    if dataset.shape is None:
        raise ArtefactError(f"{path}: {name!r} holds nothing; make it again")
    if dataset.dtype.kind not in _PLAIN:
        raise ArtefactError(f"{path}: {name!r} holds neither numbers nor strings of fixed length; make it again")
    properties = dataset.id.get_create_plist()
    codes = [properties.get_filter(index)[0] for index in range(properties.get_nfilters())]
    for code in codes:
        if code not in _FILTERS.values():
            raise ArtefactError(f"{path}: {name!r} uses HDF5 filter {code}; only {', '.join(_FILTERS)} are read")
    if len(set(codes)) < len(codes):
        raise ArtefactError(f"{path}: {name!r} uses a filter twice; such files are refused")


def a_kind(kinds: tuple[str, ...], serves: str | None = None) -> str:
    """What was wanted, in words, and which stages make it."""
    if not kinds:
        return "a pseudolabel artefact"
    if serves:
        return f"a checkpoint of {either(f'train-{name}' for name in SERVES[serves])}"
    stages = dict.fromkeys(stage for kind in kinds for stage in MAKERS.get(kind, ()))
    return f"{either(kinds)} artefact" + (f" (made by {either(stages)})" if stages else "")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
