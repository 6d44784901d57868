"""Lists that come with a data set: image ids, one a line, and what every list of class names must be."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Container, Iterable
from pathlib import Path

from pseudolabel.data.faults import Fault, stop
from pseudolabel.data.image_files import NAMES, OTHER_SUFFIXES, SUFFIXES
from pseudolabel.data.names import nfc
from pseudolabel.errors import DatasetError, InputError
from pseudolabel.runtime.files import absolute, open_regular, stands

MAX_CLASSES = 254  # object classes that a uint8 label map can hold beside background and 255
_VOC_FLAGGED = re.compile(r"\S+ (?: 0| 1|-1)")  # a line of VOC's ImageSets/Main/CLASS_SPLIT.txt

_NO_TEXT = re.compile("[\ud800-\udfff]")  # halves of characters, as JSON can hold them, and bytes of no text in names


def read_ids(path: Path, fault: Fault = stop) -> list[str]:
    """Read a list of image ids.

    Blank lines, a byte order mark, Windows line ends and spaces around an id do not count; spaces inside an id do. Of
    VOC's two-column lists of one class (``2007_000032  1``), the ids flagged -1, where the class is absent, are left
    out.

    Args:
        path: UTF-8 text, one id a line.
        fault: Told of every unsafe or repeated id.

    Returns:
        The ids in list order, each once.

    Raises:
        DatasetError: The file cannot be read, or holds no id.
    """
    lines = [(number, line.strip()) for number, line in enumerate(read_text(path).split("\n"), 1) if line.strip()]
    if all(_VOC_FLAGGED.fullmatch(line) for _, line in lines):
        lines = [(number, line.split()[0]) for number, line in lines if not line.endswith(" -1")]
    first: dict[str, int] = {}
    for number, name in lines:
        where = f"{path}, line {number}"
        if complaint := unsafe(name):
            fault(f"{where}: id {name!r} {complaint}")
        elif name in first:
            fault(f"{where}: id {name!r} stands already on line {first[name]}; remove one of them")
        else:
            first[name] = number
    if not lines:
        raise DatasetError(f"{path} lists no image; wanted one id a line")
    return list(first)


def unsafe(name: str) -> str | None:
    """Why an id may not name a file, as the end of a sentence, or None: ids must never lead out of a folder."""
    if name.startswith("/") or re.match(r"[A-Za-z]:[/\\]", name):
        return "is an absolute path; wanted a name inside the data set"
    if "\\" in name or any(part in ("", ".", "..") for part in name.split("/")):
        return "could lead out of the data set; wanted a plain name"
    if re.search(r"[\x00-\x1f\x7f]", name):
        return "holds a control character"
    if not name.isascii() and _NO_TEXT.search(name):
        return "is no text that can be written as UTF-8"
    return None


def find_list(split: str, folders: tuple[Path, ...]) -> tuple[Path, str] | None:
    """The list file that ``--split`` means: ``SPLIT.txt`` in the first folder that has it, else a path to any file.

    Returns:
        The file, and the split's name for later stages: itself, or the absolute path. None where there is no such file.
    """
    for folder in folders if not unsafe(split) else ():
        if stands(path := folder / f"{split}.txt"):
            return path, split
    if not stands(Path(split)) or Path(split).is_dir():
        return None
    return Path(split), absolute(Path(split)).as_posix()


def no_list(split: str, folders: tuple[Path, ...], known: list[str]) -> InputError:
    """The error for a split that is neither a list of the data set nor a file."""
    places = " or ".join(str(folder) for folder in folders)
    offer = f"known here: {', '.join(known)}" if known else "there are none"
    return InputError(f"--split {split}: no such list in {places}, and no file of that name; {offer}")


def background_name(name: str) -> bool:
    """Whether a name is the background's: ``background``, ``Background``, ``_background_``."""
    return name.strip("_ ").casefold() == "background"


def checked_classes(source: Path, names: Iterable[str]) -> tuple[str, ...]:
    """Class names with background put first, once it is sure that each is different and that a label map can hold them.

    Names that look the same are the same: they are brought into Unicode's composed form (NFC).

    Args:
        source: What to name in an error.
        names: In index order from 1.

    Raises:
        DatasetError: They are not.
    """
    names = [nfc(name) for name in names]
    if not 0 < len(names) <= MAX_CLASSES:
        raise DatasetError(f"{source} names {len(names)} classes; wanted 1 to {MAX_CLASSES}")
    twice = {name for name in names if names.count(name) > 1 and not background_name(name)}
    if twice:
        raise DatasetError(f"{source}: class {min(twice)!r} stands twice; every class needs a name of its own")
    if broken := next((name for name in names if _NO_TEXT.search(name)), None):
        raise DatasetError(f"{source}: class {broken!r} is no text that can be written as UTF-8; give it another name")
    place = next((place for place, name in enumerate(names, 1) if background_name(name)), None)
    if place is not None:
        raise DatasetError(
            f"{source}: {names[place - 1]!r} is class {place}, but background is what belongs to no class, with index "
            "0; put it first, leave it out, or give the class another name"
        )
    return ("background", *names)


def read_text(path: Path) -> str:
    """A UTF-8 file's text, less a byte order mark, in the normal form NFC.

    Raises:
        DatasetError: It is missing, unreadable or no UTF-8.
    """
    try:
        with open_regular(path) as file:
            return nfc(io.TextIOWrapper(file, encoding="utf-8-sig").read())
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error


def index_images(folder: Path, fault: Fault = stop, skip: tuple[str, ...] = ()) -> dict[str, Path]:
    """All photographs below a folder by id: the path inside it without its ending, in alphabetical order.

    Hidden files are left out, and so are the folders named in ``skip`` directly below it.

    Args:
        folder: Where to look.
        fault: Told of two photographs with the same id, and of names that are not UTF-8.
        skip: Names of folders.
    """
    found: dict[str, Path] = {}
    for name, path in files_below(folder, SUFFIXES, skip):
        if not name.isascii() and re.search("[\ud800-\udfff]", name):  # how Python shows bytes that are no text
            fault(f"{str(path)!a}: the file's name is not UTF-8; rename it")
        elif name in found:
            fault(f"{path} and {found[name].name} have the same id {name!r}; keep one of them")
        else:
            found[name] = path
    return found


def pictures_left_out(folder: Path, images: Container[str], skip: tuple[str, ...] = ()) -> tuple[str, ...]:
    """A line about pictures in formats that are not read, which would else be passed over in silence.

    Args:
        folder: Where photographs are.
        images: Ids of those that are read; of a picture that lies there as a photograph, too, nothing is said.
        skip: Names of folders.
    """
    others = [path for name, path in files_below(folder, OTHER_SUFFIXES, skip) if name not in images]
    if not others:
        return ()
    return (
        f"{len(others)} files of {folder} are pictures in formats that are not read (first: {others[0]}), and are left "
        f"out; convert them to one of {NAMES}",
    )


def no_image(name: str, folder: Path) -> str:
    """The fault of an id without a photograph."""
    ending = Path(name).suffix.lower()
    hint = f"; ids are written without {ending!r}" if ending in SUFFIXES else ""
    return f"id {name!r} has no image in {folder} (looked for {', '.join(SUFFIXES)}){hint}"


def files_below(folder: Path, endings: tuple[str, ...], skip: tuple[str, ...] = ()) -> list[tuple[str, Path]]:
    """All files below a folder with one of these endings: (path inside it less the ending, in NFC; path), sorted.

    Hidden files are left out, and so are the folders named in ``skip`` directly below it. It handles strings as far as
    it can: taking paths apart would be most of what opening a large data set costs.

    Args:
        folder: Where to look.
        endings: In lower case, with their dots.
        skip: Names of folders.
    """
    found = []
    for place, folders, files in os.walk(folder):
        here = Path(place)
        top = here == folder
        folders[:] = [name for name in folders if not name.startswith(".") and not (top and name in skip)]
        prefix = "" if top else here.relative_to(folder).as_posix() + "/"
        wanted = [name for name in files if name.lower().endswith(endings) and not name.startswith(".")]
        found += [(nfc(prefix + name[: name.rindex(".")]), here / name) for name in wanted]
    return sorted(found)
