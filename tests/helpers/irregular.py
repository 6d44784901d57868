"""What may lie where a file is expected, and is none: named pipes, sockets, devices, loops of links, broken links."""

from __future__ import annotations

import os
import socket
from pathlib import Path

KINDS = {
    "pipe": "it is a named pipe, not a regular file",
    "socket": "it is a socket, not a regular file",
    "device": "it is a device, not a regular file",
    "loop": "Too many levels of symbolic links",
}
"""Each kind, and what is said of it where a file is opened."""


def put(kind: str, path: Path) -> Path:
    """Lay one there, in the place of what there is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        before = Path.cwd()
        os.chdir(path.parent)  # the path of a socket may have 107 bytes
        try:
            with socket.socket(socket.AF_UNIX) as one:
                one.bind(path.name)
        finally:
            os.chdir(before)
    elif kind == "device":
        path.symlink_to("/dev/zero")  # which never ends
    else:
        path.symlink_to(path.name)
    return path
