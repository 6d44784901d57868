"""What a long stage writes while it works: records at the end of one file, whole or not there.

HDF5 changes its indices in place, so that a kill while it writes ruins the whole file. A record that is cut short
ruins nothing: the next opening drops it. Each record is a length, a CRC-32 and a payload; a payload is one JSON object
and any number of byte strings.
"""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pseudolabel.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    import msvcrt

MAGIC = b"pseudolabel journal 1\n"
_LOCKED_BYTE = 2**31 - 2  # the last that Windows locks. What is locked nobody else can read, and the beginning is read
_FRAME = struct.Struct("<QI")  # bytes in the payload, their CRC-32

Record = tuple[dict[str, Any], list[bytes]]


class WholeFile(io.FileIO):
    """A file without a buffer that takes all of the data or raises. A buffer would be written once more on closing.

    Closing is what a program does after a disk was found full, and the second failure would hide the first.
    """

    def write(self, data: Any, /) -> int:
        """Write all of the data; the system may take it in parts."""
        view = memoryview(data).cast("B")
        size = view.nbytes
        while view:
            view = view[super().write(view) :]
        return size


class Journal:
    """A journal, open for reading and appending by one process.

    Args:
        path: The file; its folder is made.
        anew: Forget what is in it.

    Raises:
        InputError: Another process is writing it.
    """

    def __init__(self, path: Path, *, anew: bool = False) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = WholeFile(path, "a+")
        if not _claimed(self._file):
            self._file.close()
            raise InputError(f"{path} is being written by another run; wait for it, or choose another --out") from None
        self._ends = [] if anew else self._scan()
        if not self._ends:
            self._file.truncate(0)
            self._file.write(MAGIC)

    def __len__(self) -> int:
        return len(self._ends)

    def append(self, facts: Mapping[str, Any], parts: Sequence[bytes] = ()) -> None:
        """Add a record and see it safely on disk."""
        text = json.dumps({"facts": facts, "parts": [len(part) for part in parts]}).encode()
        payload = b"".join([struct.pack("<I", len(text)), text, *parts])
        end = self._ends[-1] if self._ends else len(MAGIC)
        self._file.truncate(end)  # what an interrupted append may have left
        self._file.write(_FRAME.pack(len(payload), zlib.crc32(payload)) + payload)
        os.fsync(self._file.fileno())
        self._ends.append(end + _FRAME.size + len(payload))

    def record(self, index: int) -> Record:
        """One record: its JSON object and its byte strings.

        Raises:
            InputError: Its bytes have changed since they were written.
        """
        start = self._ends[index - 1] if index else len(MAGIC)
        payload = self._payload(start)
        if payload is None:
            raise InputError(f"{self.path} is damaged at byte {start}; pass --overwrite to start anew")
        (length,) = struct.unpack_from("<I", payload)
        head = json.loads(payload[4 : 4 + length])
        parts, start = [], 4 + length
        for size in head["parts"]:
            parts.append(payload[start : start + size])
            start += size
        return head["facts"], parts

    def records(self) -> Iterator[Record]:
        """All records in order, one at a time in memory."""
        return (self.record(index) for index in range(len(self)))

    def close(self) -> None:
        """Close the file, which also lets other processes at it."""
        self._file.close()

    def _scan(self) -> list[int]:
        """Where each whole record ends. Only the last one's bytes are checked: each was safe before the next began."""
        size = os.fstat(self._file.fileno()).st_size
        self._file.seek(0)
        if self._file.read(len(MAGIC)) != MAGIC:
            return []
        ends, start = [], len(MAGIC)
        while start + _FRAME.size <= size:
            self._file.seek(start)
            end = start + _FRAME.size + _FRAME.unpack(self._file.read(_FRAME.size))[0]
            if end > size or (end == size and self._payload(start) is None):
                break
            ends.append(end)
            start = end
        return ends

    def _payload(self, start: int) -> bytes | None:
        """The payload of the record at ``start``, or None if it is not what was written."""
        self._file.seek(start)
        length, checksum = _FRAME.unpack(self._file.read(_FRAME.size))
        payload = self._file.read(length)
        return payload if len(payload) == length and zlib.crc32(payload) == checksum else None


def _claimed(file: io.FileIO) -> bool:
    """Claim an open file until it is closed; False where another run has it."""
    try:
        if "fcntl" in globals():
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            file.seek(_LOCKED_BYTE)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]  # only on Windows
    except (BlockingIOError, PermissionError):
        return False
    return True
