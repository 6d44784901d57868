"""What refining an image takes, and what there is: an image that would not fit is refused, not begun."""

from __future__ import annotations

from pathlib import Path

from pseudolabel.errors import PseudolabelError


def memory_of_crf(pixels: int, classes: int) -> int:
    """Bytes that the lattice and the maps of one image take where each pixel has three corners of its own.

    Photographs have 0.7 to 2.4 with the presets, and pictures of pure noise up to 6 (benchmarks/speed/crf_memory.py).
    """
    lattice = 24 + 24 + 48 + 24 + 96 + 20  # corners, shares, keys, known keys, hash table and features of a pixel
    corners = 3 * (2 * 4 * 6 + 2 * 4 * min(classes, 16))  # neighbours, and two arrays of values
    return pixels * (lattice + corners + classes * 4 * 7)


def memory_free(workers: int = 1) -> int | None:
    """Bytes that each of some processes could still get, None where the system does not say: Linux, control groups."""
    free = [int(line.split()[1]) * 1024 for line in _lines("/proc/meminfo") if line.startswith("MemAvailable")]
    limit, used = (_lines(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if limit and used and limit[0].isdigit():  # "max": there is none
        free.append(int(limit[0]) - int(used[0]))
    return min(free) // workers if free else None


def require_memory(photograph: Path, refiner: str, needed: int, free: int | None) -> None:
    """Refuse an image that would not fit, rather than be killed.

    Raises:
        PseudolabelError: More is needed than is free.
    """
    if free is not None and needed > free:
        raise PseudolabelError(
            f"{photograph}: its {refiner} needs about {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; "
            "use fewer --workers, or make the photograph smaller"
        )


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
