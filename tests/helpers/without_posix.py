"""Does without what Python has on POSIX only, as far as this package sees it, and then runs a chain of stages.

    python tests/helpers/without_posix.py RUN

Imports every module, and exports and scores the masks of ``RUN/two.h5`` (as ``tests.helpers.runs.multi_stage`` makes
it) in other processes, which do without it too: they import this file anew. Libraries are imported before, as some ask
for the system's name and not for what there is.
"""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import pkgutil
import shutil
import signal
import sys
from multiprocessing import resource_tracker
from pathlib import Path
from types import ModuleType

LIBRARIES = ("concurrent.futures.process", "h5py", "numpy", "psutil", "pydantic", "scipy.ndimage")
MORE = (
    "huggingface_hub", "multiprocessing.popen_spawn_posix", "numba", "segmentation_models_pytorch", "sklearn.mixture",
    "timm", "torch.utils.tensorboard", "typer",
)  # fmt: skip
"""Libraries that other processes than the first have no use for."""

MODULES = ("fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty")
SIGNALS = ("SIGALRM", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGSTOP", "SIGTSTP", "SIGUSR1", "SIGUSR2")
ATTRIBUTES = {
    signal: (*SIGNALS, "alarm", "pause", "pthread_kill", "pthread_sigmask", "setitimer", "sigpending", "sigwait"),
    os: (
        "O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "chown", "fchdir", "fchmod", "fchown", "fork", "forkpty", "geteuid",
        "getgid", "getgroups", "getloadavg", "getpgid", "getpgrp", "getpriority", "getsid", "getuid", "killpg",
        "mkfifo", "nice", "posix_spawn", "register_at_fork", "sched_getaffinity", "sched_setaffinity", "setgid",
        "setpgid", "setpgrp", "setpriority", "setsid", "setuid", "statvfs", "sync", "sysconf",
        "uname", "wait", "wait3", "wait4",
    ),
}  # fmt: skip
STATES: list[str] = []
"""What the stand-in for msvcrt was asked."""


def stand_in() -> ModuleType:
    """Windows' locks, of which two of one byte exclude each other: by flock, which knows one lock a file."""
    module = ModuleType("msvcrt")
    lock, exclusive = fcntl.flock, fcntl.LOCK_EX | fcntl.LOCK_NB

    def locking(descriptor: int, mode: int, count: int) -> None:
        STATES.append(f"byte {os.lseek(descriptor, 0, os.SEEK_CUR)}, {count}, mode {mode}")
        try:
            lock(descriptor, exclusive)
        except BlockingIOError:
            raise PermissionError(13, "Permission denied") from None

    vars(module).update(locking=locking, LK_NBLCK=2)
    return module


def remove() -> None:
    """Take away the modules and attributes, and let no folder be opened."""
    sys.modules["msvcrt"] = stand_in()
    for name in MODULES:
        sys.modules[name] = None  # type: ignore[assignment]  # which makes importing it fail
    for module, names in ATTRIBUTES.items():
        for name in names:
            vars(module).pop(name, None)
    importlib.reload(resource_tracker)  # the standard library asks for what there is, but once
    shutil._use_fd_functions = False  # type: ignore[attr-defined]  # as on Windows
    open_ = os.open

    def open_files(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if Path(path).is_dir():
            raise PermissionError(13, "Permission denied", path)
        return open_(path, flags, mode, dir_fd=dir_fd)

    os.open = open_files  # type: ignore[assignment]


for library in (*LIBRARIES, *(MORE if __name__ == "__main__" else ())):
    importlib.import_module(library)
remove()


def main(run: Path) -> None:
    """Import, run, and print what was found, as JSON."""
    import pseudolabel
    from pseudolabel import cli
    from pseudolabel.artefacts.header import CostMeter
    from pseudolabel.artefacts.journal import Journal
    from pseudolabel.errors import InputError
    from pseudolabel.options import build_options
    from pseudolabel.runs.runner import run_stage
    from pseudolabel.runtime.progress import Progress
    from pseudolabel.runtime.subprocesses import in_own_process

    found = [
        name
        for package in (pseudolabel, cli)
        for _, name, _ in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        if name not in ("pseudolabel.__main__", "pseudolabel.pairwise.triton_filter")  # Triton is not for Windows
    ]
    for name in found:
        importlib.import_module(name)
    cost = CostMeter()
    masks = {"labels": run / "two.h5", "threshold": run / "three.h5", "out": run / "portable", "workers": 2}
    scores = {"masks": run / "portable", "out": run / "portable.h5", "workers": 1}
    run_stage("export-masks", build_options("export-masks", masks), Progress())
    evaluate = ("evaluate-masks", build_options("evaluate-masks", scores), Progress())
    in_own_process("evaluate-masks", run_stage, *evaluate)
    journal = Journal(run / "journal")
    try:
        refusal = f"not refused: {Journal(run / 'journal')}"
    except InputError as error:
        refusal = str(error)
    journal.close()
    Journal(run / "journal").close()
    print(json.dumps([found, refusal, sorted(set(STATES)), cost.read(1)]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
