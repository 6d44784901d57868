"""What a long stage writes while it works: records at the end of one file, whole or not there.

HDF5 changes its indices in place, so that a kill while it writes ruins the whole file. A record that is cut short
ruins nothing: the next opening drops it. Each record is a length, a CRC-32 and a payload; a payload is one JSON object
and any number of byte strings.
"""

from __future__ import annotations

import errno
import io
import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pseudolabel.artefacts.atomic import claim, partial_path, what_is_there
from pseudolabel.errors import InputError

MAGIC = b"pseudolabel journal 1\n"
_OURS = MAGIC[: MAGIC.index(b"1")]  # of any version
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)  # Windows has none
_POSIX = os.name == "posix"
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


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Keep other runs from writing an output that has no journal, by an empty one that is gone when the block is left.

    Args:
        out: The output.

    Raises:
        InputError: Another process is writing it, or what has the journal's name is none.
    """
    journal = Journal(partial_path(out))
    try:
        yield
    finally:
        journal.forget()


class Journal:
    """A journal, open for reading and appending by one process.

    Args:
        path: The file; its folder is made.
        anew: Forget what is in it.

    Raises:
        InputError: Another process is writing it, or what has its name is no journal and stays as it is.
    """

    def __init__(self, path: Path, *, anew: bool = False) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = _opened(path)
        while True:
            if not claim(self._file):
                self._file.close()
                raise InputError(f"{path} is being written by another run; wait for it, or choose another --out")
            if _has_name(self._file, path):
                break
            self._file.close()  # the run that had claimed it was through just then, and has removed it
            self._file = _opened(path)
        self._file.seek(0)
        found = self._file.read(len(_OURS))
        if not _OURS.startswith(found):  # a beginning of it is what a killed run may leave
            self._file.close()
            raise _foreign(path, "a file of something else")
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

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close the file; after an error of the input, forget what holds nothing that another run could go on from."""
        if kind is not None and issubclass(kind, InputError) and len(self) <= 1 and self.path.exists():
            self.forget()
        self.close()

    def forget(self) -> None:
        """Close the file and remove it."""
        if _POSIX:  # nobody may claim it in between
            self.path.unlink()
        self._file.close()
        if not _POSIX:  # Windows removes nothing that is open
            self.path.unlink()

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


def _opened(path: Path) -> WholeFile:
    """A regular file of this very name; a link is not followed, so that no other file is written to."""
    if found := what_is_there(path, follow=False):
        raise _foreign(path, found)
    try:
        return WholeFile(path, "a+", opener=lambda name, flags: os.open(name, flags | _NOFOLLOW, 0o666))
    except OSError as error:
        if error.errno == errno.ELOOP:  # it became a link just now
            raise _foreign(path, "a link") from error
        raise


def _has_name(file: io.FileIO, path: Path) -> bool:
    """Whether an open file still has this name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.lstat())
    except FileNotFoundError:
        return False


def _foreign(path: Path, what: str) -> InputError:
    return InputError(
        f"{path} is {what}, where the unfinished output would be kept; move it away, or choose another --out"
    )
