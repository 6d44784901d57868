"""Whether HDF5 can read a file's structure at all: some damage makes it run for ever, or crashes it.

What HDF5 1.10's format protects by checksums is safe to follow. Superblocks of older versions are not protected, nor is
the heap that holds strings of variable length, which version 1 of our format has in its attributes. Files with the
former are opened first in a process of their own under limits, as are those whose heap does not add up.
"""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

SIGNATURE = b"\x89HDF\r\n\x1a\n"
SECONDS = 10
"""For the other process, most of which is its start."""
_MEMORY = 1 << 29  # bytes that the other process may take for the file
_SCANNED = 1 << 26  # bytes of a file that is looked through here; a longer one takes longer than a process
_HEAP, _HEAP_HEADER, _OBJECT_HEADER = b"GCOL", 16, 16


def is_unprotected(path: Path) -> bool:
    """Whether a file is of HDF5, but does not begin with a superblock of version 2 or 3, which have a checksum."""
    size, place = path.stat().st_size, 0
    with path.open("rb") as handle:
        while place < size:
            handle.seek(place)
            start = handle.read(len(SIGNATURE) + 1)
            if start[: len(SIGNATURE)] == SIGNATURE:
                return place > 0 or start[-1:] not in (b"\2", b"\3")
            place = max(512, 2 * place)  # where HDF5 looks for its signature
    return False


def heaps_add_up(path: Path) -> bool:
    """Whether the objects of every heap of strings fill it; False of a long file, which is not looked through."""
    size = path.stat().st_size
    if not 0 < size <= _SCANNED:
        return False
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
        place = data.find(_HEAP)
        while place >= 0:
            if not _adds_up(data, place, size):
                return False
            place = data.find(_HEAP, place + 1)
    return True


def _adds_up(data: mmap.mmap, start: int, size: int) -> bool:
    end = start + int.from_bytes(data[start + 8 : start + 16], "little")
    place = start + _HEAP_HEADER
    if not place < end <= size:
        return False
    while place + _OBJECT_HEADER <= end:
        number = int.from_bytes(data[place : place + 2], "little")
        length = int.from_bytes(data[place + 8 : place + 16], "little")
        taken = length if number == 0 else _OBJECT_HEADER + (length + 7) // 8 * 8  # 0 is the free space, header and all
        if taken < _OBJECT_HEADER or place + taken > end:
            return False
        place += taken
    return True


def ends_elsewhere(path: Path) -> bool:
    """Whether another process reads the structure of a file to its end, within limits of time and memory."""
    about = path.stat()
    return _ends(os.fspath(path.absolute()), about.st_size, about.st_mtime_ns, about.st_ino)


@lru_cache(maxsize=256)
def _ends(path: str, *_: int) -> bool:
    try:
        done = subprocess.run(
            [sys.executable, "-I", __file__, path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=SECONDS,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def read_structure(path: str) -> None:
    """Follow everything in a file but the datasets' values."""
    import h5py  # here: the parent of this process has no need of it

    _limit_memory()
    try:
        with h5py.File(path, "r") as file:
            _follow(file, set())
    except Exception:  # noqa: BLE001 - it came to an end, and whoever opens it next says what is wrong with it
        return


def _follow(item: Any, seen: set[int]) -> None:
    import h5py

    address = h5py.h5o.get_info(item.id).addr
    if address in seen:
        return
    seen.add(address)
    for name in item.attrs:
        _ = item.attrs[name]
    if isinstance(item, h5py.Dataset):
        _ = (item.shape, item.dtype, item.id.get_storage_size(), item.chunks and item.id.get_num_chunks())
    elif isinstance(item, h5py.Group):
        for name in item:
            if isinstance(item.get(name, getlink=True), h5py.HardLink):
                _follow(item[name], seen)


def _limit_memory() -> None:
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):  # other systems than Linux: the time is limited all the same
        return
    most = pages * resource.getpagesize() + _MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    read_structure(sys.argv[1])
