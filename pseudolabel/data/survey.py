"""What the user should know of a data set's photographs: one line for each kind of remark, which counts the files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from pseudolabel.data.decoding import Decoding, Look
from pseudolabel.data.deep_samples import is_deep
from pseudolabel.data.image_files import FORMATS, opened
from pseudolabel.data.images import kind_of, look_at, said_already
from pseudolabel.data.records import Dataset, Record
from pseudolabel.errors import DatasetError
from pseudolabel.runtime.progress import Progress

_FEW = 16383
"""Largest value of 14 bits, the most that cameras have who store fewer than 16 in 16."""

_NEITHER = (".jpg", ".jpeg")  # photographs that can have neither alpha nor 16 bits
_MOST = 100  # photographs that a stage decodes before its work begins


def warn_of_photographs(dataset: Dataset, progress: Progress) -> None:
    """Warn of photographs that alpha or too wide a range changes, and of files that are left out.

    A stage cannot decode all of a large data set before it begins: of the photographs whose header speaks of alpha or
    16 bits it looks at no more than 100, evenly spread. ``data check`` looks at all.

    Args:
        dataset: That a stage is about to use.
        progress: Where to warn.
    """
    for note in dataset.notes:
        progress.warn(note)
    suspects = [record for record in dataset.records if record.image.suffix.lower() not in _NEITHER]
    heads: list[tuple[Path, Look]] = []
    suspects = [record for record in suspects if _may_surprise(record, heads)]
    chosen = suspects[:: -(-len(suspects) // _MOST)] if suspects else []
    looks = []
    for record in chosen:
        try:
            looks.append((record.image, look_at(record.image, record.decoding)[1]._replace(remarks=())))
        except DatasetError:  # the stage comes to it
            continue
    part = f" ({len(chosen)} of {len(suspects)} such photographs were looked at)" if len(chosen) < len(suspects) else ""
    for line in remarks_on(looks, dataset.decoding):
        progress.warn(line + part)
    for line in _remarks(heads):
        progress.warn(line)
    said_already(remark for _, look in heads for remark in look.remarks)


def _may_surprise(record: Record, heads: list[tuple[Path, Look]]) -> bool:
    """Whether a photograph's header speaks of alpha or 16 bits; ``heads`` takes what the decoders say of the header."""
    remarks: list[str] = []
    try:
        with opened(record.image, FORMATS, remarks) as image:
            found = image.has_transparency_data or is_deep(image)
    except DatasetError:
        return False
    if remarks:
        heads.append((record.image, Look(remarks=tuple(remarks))))
    return found


def remarks_on(looks: Sequence[tuple[Path, Look]], decoding: Decoding) -> list[str]:
    """One line for each kind of remark.

    Args:
        looks: What was noticed in each photograph that was looked at.
        decoding: How they were read.
    """
    return [*_alpha(looks), *_range(looks, decoding), *_remarks(looks)]


def _alpha(looks: Sequence[tuple[Path, Look]]) -> Iterable[str]:
    changed = [(path, look.alpha) for path, look in looks if look.alpha != "none"]
    blank = sum(alpha == "all" for _, alpha in changed)
    if changed:
        white = f", {blank} of them all white, since their alpha is 0 everywhere" if blank else ""
        yield (
            f"{len(changed)} photographs have alpha and are seen on white there{white} "
            f"(first: {changed[0][0]}); if alpha is data, such as near infrared, pass --alpha drop"
        )


def _range(looks: Sequence[tuple[Path, Look]], decoding: Decoding) -> Iterable[str]:
    deep = [(look.largest, path) for path, look in looks if look.largest is not None]
    if decoding.largest is None:
        dark = [(largest, path) for largest, path in deep if largest <= _FEW]
        if dark:
            largest, path = max(dark)
            yield (
                f"{len(dark)} of {len(deep)} photographs with 16 bits use only the darkest {largest // 256 + 1} of 256 "
                f"grey levels: their largest value is {largest} ({path}); state the value that is white, for instance "
                "--photo-range 4095 for 12 bits"
            )
        return
    above = [(largest, path) for largest, path in deep if largest > decoding.largest]
    if above:
        largest, path = max(above)
        yield (
            f"{len(above)} of {len(deep)} photographs with 16 bits have values above --photo-range {decoding.largest}, "
            f"which become white: the largest is {largest} ({path})"
        )


def _remarks(looks: Sequence[tuple[Path, Look]]) -> Iterable[str]:
    kinds: dict[str, list[tuple[Path, str]]] = {}
    for path, look in looks:
        for remark in look.remarks:
            kinds.setdefault(kind_of(remark), []).append((path, remark))
    for found in kinds.values():
        path, remark = found[0]
        files = len({path for path, _ in found})
        yield f"{path}: {remark}" + (f" (and alike in {files - 1} more files)" if files > 1 else "")
