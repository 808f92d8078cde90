"""The memory that this process may use, and the memory that it uses."""

from __future__ import annotations

import contextlib
import os
from functools import cache
from pathlib import Path

MEMORY_SHARE = 0.7
"""The share of the limit that the workers may use together. The rest is for data that arrives before the next
check, and for the kernel's buffers."""

_STATUS = "/proc/self/statm"
_MEMBERSHIPS = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")


def resident_bytes() -> int | None:
    """Return the resident memory of this process; None where the system does not state it."""
    try:
        return int(os.pread(_status(os.getpid()), 128, 0).split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


@cache
def _status(_process_id: int) -> int:
    """Open the file that states the memory, and leave it open: it is read several times a second."""
    return os.open(_STATUS, os.O_RDONLY)


def memory_limit_bytes() -> int | None:
    """Return the limit of the process's control groups, else the memory of the machine; None if unknown."""
    limits = [*_cgroup_limits()]
    with contextlib.suppress(OSError, ValueError):
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(limits, default=None)


def _cgroup_limits() -> list[int]:
    """Return the limits of all control groups, of either version, that contain the process."""
    try:
        memberships = _MEMBERSHIPS.read_text().splitlines()
    except OSError:
        return []
    limits = []
    for membership in memberships:
        _, controllers, path = membership.split(":", 2)
        if controllers == "":
            root, file = _CGROUPS, "memory.max"
        elif "memory" in controllers.split(","):
            root, file = _CGROUPS / "memory", "memory.limit_in_bytes"
        else:
            continue
        # In a container, the path may be that of the host, while the files are those of the container.
        relative = Path(path.lstrip("/"))
        for group in (root, *(root / each for each in (relative, *relative.parents))):
            with contextlib.suppress(OSError, ValueError):  # "max" is no limit
                limits.append(int((group / file).read_text()))
    return limits
