"""mmsegmentation's layout: ``img_dir/SPLIT`` and ``ann_dir/SPLIT`` with index PNGs, and a configuration to import."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from pseudolabel.artefacts.atomic import replacing, writing
from pseudolabel.data.images import read_label_png
from pseudolabel.data.palette import PALETTE, write_mask
from pseudolabel.data.records import IGNORE
from pseudolabel.errors import InputError
from pseudolabel.interop.outgoing import Export, Outgoing, copy_photograph


def check(classes: Sequence[str], photographs: Sequence[Path]) -> None:
    """Refuse photographs of several endings: mmsegmentation takes one ``img_suffix``.

    Raises:
        InputError: There are several.
    """
    endings = sorted({path.suffix for path in photographs})
    if len(endings) > 1:
        raise InputError(
            f"the photographs end in {' and '.join(endings)}: mmsegmentation reads one img_suffix; convert them to one "
            "format"
        )


def write(folder: Path, export: Export) -> None:
    """Write photographs, masks and ``dataset.py``; 0 is background, 255 ignored.

    Args:
        folder: To be made.
        export: The masks.
    """
    ending = next((image.photograph.suffix for image in export.images), ".jpg")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for _ in export.each(partial(place_files, folder=folder, split=export.split)):
            pass
        with replacing(folder / "dataset.py") as file:
            file.write(configuration(export, ending).encode())


def configuration(export: Export, ending: str) -> str:
    """``dataset.py``: a data set in mmsegmentation's configuration language."""
    palette = [PALETTE[label].tolist() for label in range(len(export.classes))]
    return (
        "dataset = dict(\n"
        '    type="BaseSegDataset",\n'
        '    data_root=".",  # this folder\n'
        f'    data_prefix=dict(img_path="img_dir/{export.split}", seg_map_path="ann_dir/{export.split}"),\n'
        f'    img_suffix={ending!r},\n    seg_map_suffix=".png",\n'
        f"    metainfo=dict(classes={export.classes!r}, palette={palette!r}),\n"
        f"    reduce_zero_label=False,\n    ignore_index={IGNORE},\n)\n"
    )


def place_files(image: Outgoing, *, folder: Path, split: str) -> None:
    """Copy one photograph and its mask; runs in a worker process."""
    copy_photograph(image, folder / "img_dir" / split / image.file_name)
    write_mask(folder / "ann_dir" / split / f"{image.id}.png", read_label_png(image.png))
