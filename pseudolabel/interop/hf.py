"""Hugging Face ``datasets``: an image folder with ``metadata.jsonl``, whose column ``mask`` holds index PNGs."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from pseudolabel.artefacts.atomic import replacing, writing
from pseudolabel.data.images import read_label_png
from pseudolabel.data.palette import write_mask
from pseudolabel.interop.outgoing import Export, Outgoing, copy_photograph


def write(folder: Path, export: Export) -> None:
    """Write photographs, masks and their table; 0 is background, 255 unlabelled.

    Args:
        folder: To be made; ``load_dataset("imagefolder", data_dir=FOLDER)`` reads it.
        export: The masks.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / "metadata.jsonl") as file:
            for image, _ in export.each(partial(place_files, folder=folder)):
                row = {"file_name": f"images/{image.file_name}", "mask_file_name": f"masks/{image.id}.png"}
                file.write(json.dumps({**row, "id": image.id}, ensure_ascii=False).encode() + b"\n")
        with replacing(folder / "classes.txt") as file:
            file.write("".join(f"{name}\n" for name in export.classes).encode())


def place_files(image: Outgoing, *, folder: Path) -> None:
    """Copy one photograph and its mask; runs in a worker process."""
    copy_photograph(image, folder / "images" / image.file_name)
    write_mask(folder / "masks" / f"{image.id}.png", read_label_png(image.png))
