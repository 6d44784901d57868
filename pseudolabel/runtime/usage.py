"""What this process and its children have used: processor time and peak memory, of every system.

POSIX counts a child once it has ended and was waited for. Windows keeps nothing of ended children, so there each
reading takes in those that are alive, and of ended ones the last reading counts.
"""

from __future__ import annotations

import sys

try:
    import resource
except ImportError:  # Windows
    import psutil

    # As last seen, by process id and time of its start.
    _children: dict[tuple[int, float], tuple[float, int]] = {}

    def used() -> tuple[float, int]:
        """Processor seconds so far, and peak memory in bytes of the largest process."""
        process = psutil.Process()
        for child in process.children(recursive=True):
            try:
                _children[child.pid, child.create_time()] = _usage(child)
            except psutil.NoSuchProcess:  # it ended meanwhile
                continue
        seconds, peaks = zip(_usage(process), *_children.values(), strict=True)
        return sum(seconds), max(peaks)

    def _usage(process: psutil.Process) -> tuple[float, int]:
        times, memory = process.cpu_times(), process.memory_info()
        return times.user + times.system, getattr(memory, "peak_wset", memory.rss)

else:

    def used() -> tuple[float, int]:
        """Processor seconds so far, and peak memory in bytes of the largest process."""
        unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, in KiB elsewhere
        both = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
        return sum(usage.ru_utime + usage.ru_stime for usage in both), max(usage.ru_maxrss for usage in both) * unit
