"""Ways to spoil a label file: its bytes, or what it says in its own form, text, JSON, XML or PNG."""

from __future__ import annotations

import json
import random
import re
import struct
import xml.etree.ElementTree as ET
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.fuzz.mutations import TEXTS, spoil_bytes
from tests.helpers import irregular
from tests.helpers.pictures import chunk

ODD = (
    *("0", "-1", "1", "2", "255", "256", "0.5", "1e9", "-1e9", "1e400", "nan", "inf", "-inf", "1_0", "٣", "0x1", "+3"),
    *("9" * 5000, "1" * 70_000 + "x", ":" + "1" * 70_000 + "x", "", " ", ";", ";;", "|", "\t", '"', "'", "#", "{", "<"),
    *("background", "_background_", "__ignore__", "cat", "Cat", "cats", "cat dog", "cat/dog", "a", "A", "b", "c"),
    *("ghost", "-", "None", "True", "id", "class", "C:\\x", "a/../b", "a\\b", "...", "a.png", "/dev/stdin"),
)  # fmt: skip
_VALUES = (
    None, True, False, -1, 0, 1, 2, 0.5, 3, 7, 255, 1e308, -1e308, 2**31, 2**63, 2**64, 10**400, "", "x", "a.png",
    "cat", [], [None], [[]], [[[]]], [0, 0, 0, 0], [1, 2, 3, 4, 5], [[1, 1, 1, 1, 1, 1]], [[5, 5, 9, 5, 9, 9]], {},
    {"": None}, {"size": [24, 32], "counts": [768]}, {"size": [24, 32], "counts": "x"}, {"counts": []},
    [1e308, 1, 1, 1],
)  # fmt: skip
_RAW = ("1e400", "-1e400", "NaN", "Infinity", "[" * 100_000, '{"a":' * 100_000, "1" * 5000, '"\\ud800"', '"\\u0000"')


def _lines(text: str, rng: random.Random) -> str:
    """Whole lines: gone, doubled, moved, very many, very long."""
    lines = text.split("\n")
    place = rng.randrange(len(lines))
    made = rng.choice(("gone", "twice", "moved", "many", "long", "word", "all"))
    if made == "gone":
        del lines[place]
    elif made == "twice":
        lines.insert(place, lines[place])
    elif made == "moved":
        rng.shuffle(lines)
    elif made == "many":
        lines[place:place] = [f"{lines[place]}{number}" for number in range(50_000)]
    elif made == "long":
        lines[place] *= 50_000
    elif made == "word":
        lines.insert(place, rng.choice((*ODD, *TEXTS)))
    else:
        lines = [line + rng.choice(ODD[:17]) for line in lines]
    return "\n".join(lines)


def _words(text: str, rng: random.Random) -> str:
    """Single words and numbers."""
    found = list(re.finditer(r"[\w.]+|[^\w\s]", text))
    for _ in range(rng.choice((1, 1, 2, 5))):
        if found:
            match = rng.choice(found)
            text = text[: match.start()] + rng.choice((*ODD, *TEXTS)) + text[match.end() :]
    return text


def _coding(text: str, rng: random.Random) -> bytes:
    """Another character coding or other ends of lines."""
    made = rng.choice(("utf-8-sig", "utf-16", "utf-32", "latin-1", "cr", "crlf", "separators", "nul"))
    if made.startswith(("utf", "latin")):
        return (text + "é").encode(made)
    ends = {"cr": "\r", "crlf": "\r\n", "separators": "\u2028", "nul": "\0"}[made]
    return text.replace("\n", ends).encode()


def _json_entry(text: str, rng: random.Random) -> str:
    """One value of a JSON file, at any depth: another one, gone, or twice."""
    try:
        content = json.loads(text)
    except ValueError:
        return text
    raw = rng.random() < 0.15
    made = json.dumps(_at_one_place(content, rng, "\0raw" if raw else None))
    return made.replace('"\\u0000raw"', rng.choice(_RAW)) if raw else made


def _at_one_place(content: Any, rng: random.Random, value: Any) -> Any:
    if isinstance(content, dict | list) and content and rng.random() < 0.9:
        keys = list(content) if isinstance(content, dict) else list(range(len(content)))
        key = rng.choice(keys)
        made = rng.random()
        if isinstance(content, list):
            if made < 0.05:
                return content[:key] + content[key + 1 :]
            if made < 0.1:
                return content + [content[key]] * rng.choice((1, 20_000))
            return [_at_one_place(item, rng, value) if place == key else item for place, item in enumerate(content)]
        if made < 0.08:
            return {name: item for name, item in content.items() if name != key}
        if made < 0.12:
            return {(rng.choice(TEXTS[:9]) if name == key else name): item for name, item in content.items()}
        return {name: _at_one_place(item, rng, value) if name == key else item for name, item in content.items()}
    return value if value is not None else rng.choice(_VALUES)


def _xml_element(text: str, rng: random.Random) -> str:
    """One element of an XML file, or what stands around the whole."""
    try:
        root = ET.fromstring(text)
    except (ET.ParseError, ValueError):
        return text
    parents = [item for item in root.iter() if len(item)]
    parent = rng.choice(parents) if parents else root
    made = rng.choice(("text", "text", "text", "gone", "twice", "tag", "deep", "around", "many"))
    leaves = [item for item in root.iter() if not len(item)]
    if made == "text" and leaves:
        rng.choice(leaves).text = re.sub("[\x00-\x08\x1b\ud800-\udfff]", "?", rng.choice((*ODD, *TEXTS)))
    elif made in ("gone", "twice", "many") and len(parent):
        child = parent[rng.randrange(len(parent))]
        parent.remove(child) if made == "gone" else parent.extend([child] * (1 if made == "twice" else 5_000))
    elif made == "tag":
        rng.choice(list(root.iter())).tag = rng.choice(("annotation", "object", "name", "bndbox", "polygon", "x"))
    elif made == "deep":
        inner = "<object>" * 50_000 + "</object>" * 50_000
        return ET.tostring(root, encoding="unicode").replace("</annotation>", inner + "</annotation>")
    whole = ET.tostring(root, encoding="unicode")
    heads = (
        '<!DOCTYPE a [<!ENTITY e "x">]>', '<?xml version="1.0" encoding="klingon"?>', "<!DOCTYPE a>", "<!-- - -->",
        '<?xml version="1.0" encoding="utf-16"?>', '<!DOCTYPE a SYSTEM "file:///etc/hostname">',
    )  # fmt: skip
    return rng.choice(heads) + whole if made == "around" else whole


def _png_chunks(content: bytes, rng: random.Random) -> bytes:
    """Chunks of a PNG, with checksums that fit."""
    found, place = [], 8
    while place + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, place)
        found.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += 12 + length
    if not found:
        return content
    number = rng.randrange(len(found))
    name, data = found[number]
    made = rng.choice(("header", "header", "gone", "twice", "content", "new", "pixels"))
    if made == "header" and len(found[0][1]) == 13:
        header = list(struct.unpack(">IIBBBBB", found[0][1]))
        values = (0, 1, 2, 3, 4, 6, 8, 16, 24, 33, 2**31 - 1, 2**32 - 1, 20_000, 255)
        field = rng.randrange(7)
        header[field] = rng.choice(values) % (1 << (32 if field < 2 else 8))
        found[0] = (b"IHDR", struct.pack(">IIBBBBB", *header))
    elif made == "gone":
        del found[number]
    elif made == "twice":
        found.insert(number, (name, data))
    elif made == "new":
        kinds = (b"tRNS", b"PLTE", b"gAMA", b"eXIf", b"zTXt", b"iCCP", b"acTL", b"fcTL", b"fdAT", b"IEND", b"tIME")
        found.insert(number, (rng.choice(kinds), rng.randbytes(rng.choice((0, 1, 3, 26, 768, 5000)))))
    elif made == "pixels":
        bomb = zlib.compress(bytes(rng.choice((1, 100, 1 << 26))))
        found = [(name, bomb if name == b"IDAT" else data) for name, data in found]
    else:
        found[number] = (name, rng.randbytes(len(data)))
    return content[:8] + b"".join(chunk(name, data) for name, data in found)


def _png_form(path: Path, rng: random.Random) -> None:
    """The same picture in another form, size or with other values."""
    try:
        with Image.open(path) as image:
            values = np.array(image if image.mode in ("P", "L") else image.convert("L"))
    except (OSError, SyntaxError, ValueError):
        return
    made = rng.choice(("mode", "mode", "size", "value", "format", "all"))
    picture = Image.fromarray(values.astype(np.uint8))
    if made == "mode":
        picture = picture.convert(rng.choice(("1", "L", "LA", "P", "RGB", "RGBA", "I;16")))
    elif made == "size":
        picture = picture.resize(rng.choice(((1, 1), (32, 25), (24, 32), (3000, 2000))))
    elif made in ("value", "all"):
        values = values.copy()
        values[... if made == "all" else (rng.randrange(len(values)), 0)] = rng.choice((0, 1, 2, 3, 128, 254, 255))
        picture = Image.fromarray(values)
    extra = {"transparency": 0} if rng.random() < 0.2 and picture.mode in ("P", "L") else {}
    picture.save(path, rng.choice(("JPEG", "BMP", "GIF", "TIFF")) if made == "format" else "PNG", **extra)


def _replaced(path: Path, rng: random.Random) -> str:
    """Something else than a file, or an empty one."""
    kind = rng.choice((*irregular.KINDS, "empty", "folder", "nothing", "gone"))
    if kind in irregular.KINDS:
        irregular.put(kind, path)
    elif kind == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
        if kind == "folder":
            path.mkdir()
        elif kind == "nothing":
            path.symlink_to("nowhere")
    return kind


_TEXTUAL: dict[str, tuple[Callable[[str, random.Random], str | bytes], ...]] = {
    "text": (_lines, _words, _coding),
    "csv": (_lines, _words, _words, _coding),
    "json": (_json_entry, _json_entry, _json_entry, _words, _coding),
    "xml": (_xml_element, _xml_element, _words, _coding),
}


def spoil(path: Path, kind: str, rng: random.Random) -> tuple[str, bool]:
    """Spoil a label file of a kind; returns how, and whether its bytes were damaged."""
    if rng.random() < 0.05:
        return _replaced(path, rng), False
    if kind == "png" and rng.random() < 0.6:
        if rng.random() < 0.5:
            _png_form(path, rng)
            return "form", False
        path.write_bytes(_png_chunks(path.read_bytes(), rng))
        return "chunks", False
    if kind in _TEXTUAL and rng.random() < 0.75:
        how = rng.choice(_TEXTUAL[kind])
        made = how(path.read_text(encoding="utf-8"), rng)
        path.write_bytes(made if isinstance(made, bytes) else made.encode(errors="surrogatepass"))
        return how.__name__.strip("_"), False
    return spoil_bytes(path, rng), True
