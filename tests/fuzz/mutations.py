"""Ways to spoil an artefact: its bytes, as a disk or a network does, or its contents, as a hand does."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pseudolabel.artefacts.attributes import attribute
from tests.helpers import kinds

NUMBERS = (0, 1, -1, 2, 0.5, 1e9, -1e9, 255, 256, 2**31 - 1, 2**31, 2**62, float("nan"), float("inf"), float("-inf"))
TEXTS = ("", ".", "..", "../x", "/x", "a" * 5000, "\0", "\x1b[31m", "A", "a", "é", "e\u0301", "\udcff", "日本")
JSON = (None, True, -1, 1e308, "", "x", [], [None], [[]], {}, {"": None}, {"type": 3}, [{"kind": 1}], "NaN")


def flip(data: bytearray, rng: random.Random) -> None:
    """Other values for some bytes."""
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        data[rng.randrange(len(data))] = rng.randrange(256)


def flip_one_bit(data: bytearray, rng: random.Random) -> None:
    """One bit."""
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def blank(data: bytearray, rng: random.Random) -> None:
    """A hole of one value, as a bad sector leaves."""
    start, length = rng.randrange(len(data)), rng.choice((1, 8, 16, 64, 512, 4096))
    data[start : start + length] = bytes([rng.choice((0, 255))]) * len(data[start : start + length])


def move(data: bytearray, rng: random.Random) -> None:
    """A piece of the file at another place, too."""
    length = rng.choice((4, 8, 16, 128, 1024))
    source, target = rng.randrange(len(data)), rng.randrange(len(data))
    piece = data[source : source + length]
    data[target : target + len(piece)] = piece


def cut(data: bytearray, rng: random.Random) -> None:
    """A file that ends early, or late."""
    if rng.random() < 0.7:
        del data[rng.randrange(len(data)) :]
    else:
        data.extend(rng.randbytes(rng.choice((1, 512, 5000))))


def number(data: bytearray, rng: random.Random) -> None:
    """A length or an address that is a number out of place."""
    place, width = rng.randrange(len(data)), rng.choice((1, 2, 4, 8))
    value = rng.choice((0, 1, 2**31 - 1, 2**32 - 1, 2**63, 2**64 - 1, len(data), rng.randrange(2 * len(data))))
    raw = (value % (1 << 8 * width)).to_bytes(width, "little")
    data[place : place + width] = raw[: len(data) - place]


BYTES: tuple[Callable[[bytearray, random.Random], None], ...] = (flip, flip_one_bit, blank, move, cut, number)


def spoil_bytes(path: Path, rng: random.Random) -> str:
    """Damage a file; returns how."""
    data, how = bytearray(path.read_bytes()), rng.choice(BYTES)
    how(data, rng)
    path.write_bytes(data)
    return how.__name__


def change_values(file: h5py.File, name: str, rng: random.Random) -> None:
    """Numbers or texts that cannot be there, in the type that is."""
    values = np.asarray(file[name][()])
    if values.size == 0:
        return
    flat = values.reshape(-1).copy()
    for _ in range(rng.choice((1, 2, flat.size))):
        place = rng.randrange(flat.size)
        if values.dtype.kind == "S":
            flat[place] = rng.choice(TEXTS).encode(errors="surrogateescape")
        else:
            with np.errstate(all="ignore"):
                flat[place] = np.array(rng.choice(NUMBERS)).astype(values.dtype)
    file[name][...] = flat.reshape(values.shape)


def change_form(file: h5py.File, name: str, rng: random.Random) -> None:
    """Another type, shape or length."""
    values = np.asarray(file[name][()])
    del file[name]
    made = rng.choice(("type", "longer", "shorter", "rank", "group", "gone"))
    with np.errstate(all="ignore"):
        if made == "type" and values.dtype.kind != "S":
            file[name] = values.astype(rng.choice(("f2", "f4", "f8", "i1", "i8", "u8", "?", "S3")))
        elif made == "longer":
            file[name] = np.concatenate([values.reshape(-1)] * 2)
        elif made == "shorter":
            file[name] = values.reshape(-1)[:-1]
        elif made == "rank":
            file[name] = values[None]
        elif made == "group":
            file.create_group(name)


def declare(file: h5py.File, name: str, rng: random.Random) -> None:
    """Much that is not there."""
    kind = file[name].dtype
    del file[name]
    how = rng.choice(({}, {"compression": "gzip"}, {"fletcher32": True}))
    length = rng.choice((1 << 20, 1 << 28, 1 << 40))
    file.create_dataset(name, shape=(length,), dtype=kind, chunks=(1 << 14,), **how)


def change_attribute(file: h5py.File, rng: random.Random) -> None:
    """A header that is not what it should be."""
    name = rng.choice(sorted(file.attrs))
    old = attribute(file, name)
    if rng.random() < 0.2:
        file.attrs[name] = rng.choice((3, -1, 2.5, "", "x", "[", "{}", "[]", "NaN", b"\xff", np.arange(3)))
        return
    try:
        found = json.loads(old)
    except (TypeError, ValueError):
        file.attrs[name] = rng.choice((0, -1, 2**62, 255, "x"))
        return
    file.attrs[name] = json.dumps(_changed(found, rng))


def _changed(found: Any, rng: random.Random) -> Any:
    if isinstance(found, dict) and found and rng.random() < 0.8:
        key = rng.choice(sorted(found))
        if rng.random() < 0.2:
            return {name: value for name, value in found.items() if name != key}
        return {**found, key: _changed(found[key], rng)}
    if isinstance(found, list) and found and rng.random() < 0.5:
        return [_changed(found[0], rng), *found[1:]]
    return rng.choice(JSON)


def spoil_contents(path: Path, rng: random.Random) -> str:
    """Change what an artefact holds and make its digest and seal anew; returns how."""
    made = rng.choice((change_values, change_values, change_form, change_attribute, declare))
    with h5py.File(path, "r+") if made is declare else kinds.edited(path) as file:  # whose digest would take for ever
        if made is change_attribute:
            change_attribute(file, rng)
        else:
            names: list[str] = []
            file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
            made(file, rng.choice(sorted(names)), rng)
    return made.__name__
