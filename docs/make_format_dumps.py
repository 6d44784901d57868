"""Write the attribute dumps of ``docs/format.md`` from real artefacts: one of every kind, the first that is found.

    pseudolabel demo --out demo && python docs/make_format_dumps.py demo

A dump ``KIND of STAGE`` is of the first artefact of this kind that this stage has made. The state of a half-finished
training is found as ``NAME.h5.training``. Folders of the machine are left out, long values
are cut.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import h5py

from pseudolabel.artefacts import open_artefact
from pseudolabel.artefacts.attributes import attribute
from pseudolabel.artefacts.checks import REQUIRED
from pseudolabel.errors import ArtefactError

FORMAT = Path(__file__).resolve().parent / "format.md"
LONGEST = 240
"""Characters of a value that are shown."""
MANY = 8
"""From so many datasets in a group on, only the first is shown."""


def main(folders: list[str]) -> int:
    """Rewrite every dump for which there is an artefact in one of the folders."""
    if not folders:
        print(__doc__, file=sys.stderr)
        return 2
    text, found = FORMAT.read_text(encoding="utf-8"), dict[str, str]()
    for path in sorted(path for folder in folders for path in Path(folder).rglob("*.h5*") if path.is_file()):
        try:
            with open_artefact(path) as artefact:
                kind, written = artefact.header.kind, f"{path.name}\n{dump(artefact.file)}"
                found.setdefault(kind, written)
                found.setdefault(f"{kind} of {artefact.header.stage}", written)
        except ArtefactError as error:
            print(f"left out: {error}", file=sys.stderr)
    for name, shown in found.items():
        part = re.compile(rf"(<!-- dump: {name} -->\n).*?(<!-- /dump -->)", re.DOTALL)
        text = part.sub(lambda match, shown=shown: f"{match[1]}```\n{shown}\n```\n{match[2]}", text)
    FORMAT.write_text(text, encoding="utf-8")
    missing = [kind for kind in REQUIRED if kind not in found]
    kinds = ", ".join(kind for kind in REQUIRED if kind in found)
    print(f"rewritten: {kinds}" + (f"; not found: {', '.join(missing)}" if missing else ""))
    return 0


def dump(file: h5py.File) -> str:
    """Every root attribute and every dataset, one a line."""
    lines = [f"  {name} = {shown(attribute(file, name))}" for name in file.attrs]
    for name, item in file.items():
        lines += dump_group(name, item)
    return "\n".join(lines)


def dump_group(name: str, item: h5py.Group | h5py.Dataset) -> list[str]:
    """The datasets at or below one name."""
    if isinstance(item, h5py.Dataset):
        filters = ", ".join(
            word
            for word, used in (
                ("shuffle", item.shuffle),
                (item.compression, item.compression),
                ("fletcher32", item.fletcher32),
            )
            if used
        )
        stored = f"  chunks of {item.chunks[0]}, {filters}" if filters and item.chunks else ""
        return [f"/{name}  {item.dtype}  {' x '.join(map(str, item.shape)) or 'one value'}{stored}"]
    found: list[str] = []
    item.visititems(lambda below, child: found.extend(dump_group(f"{name}/{below}", child)) if is_data(child) else None)
    return found if len(found) < MANY else [found[0], f"/{name}/...  {len(found)} datasets in all"]


def is_data(item: Any) -> bool:
    """Whether a name stands for a dataset."""
    return isinstance(item, h5py.Dataset)


def shown(value: Any) -> str:
    """A value without the folders of this machine, cut if it is long."""
    text = re.sub(r'"/(?:[^"/]+/)+([^"/]+)"', r'"/.../\1"', str(value))
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ... ({len(text)} characters)"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
