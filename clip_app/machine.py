"""What this process may use of the machine."""

from __future__ import annotations

import ctypes
import math
import os
import sys
from pathlib import Path

__all__ = [
    "available_cpus",
    "cpu_limit",
    "has_bfloat16",
    "has_fast_int8",
    "limit_allocator",
    "memory_free",
    "memory_limit",
    "release_mapped",
]

CGROUP = Path("/sys/fs/cgroup")
MADV_DONTNEED = 4
M_ARENA_MAX = -8  # of glibc's mallopt
ARENAS = 2


def available_cpus(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the CPUs this process may use: the cgroup's quota, the affinity mask, or all.

    ``os.cpu_count`` and torch see the machine, not a container's quota; more threads
    than quota are throttled.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota(root)
    return max(1, min(cpus, math.ceil(quota))) if quota else cpus


def _cgroup_quota(root: Path) -> float | None:
    """Read the quota in CPUs from cgroup v2 or v1, None where there is none."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (root / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if quota in ("max", "-1"):
        return None
    return int(quota) / int(period)


def cpu_limit(root: Path = CGROUP) -> float:
    """Return the CPUs this process may use, as the quota says it: half a CPU is 0.5."""
    quota = _cgroup_quota(root)
    cpus = available_cpus(root)
    return min(quota, cpus) if quota else cpus


def memory_limit(root: Path = CGROUP) -> int:
    """Return the bytes this process may use: the cgroup's limit (v2 or v1), or the machine's memory."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in (root / "memory.max", root / "memory" / "memory.limit_in_bytes"):
        try:
            return min(total, int(path.read_text()))
        except (OSError, ValueError):  # not this version, or "max"
            continue
    return total


def memory_free(root: Path = CGROUP, status: Path = Path("/proc/self/statm")) -> int:
    """Return the bytes that this process may still take of :func:`memory_limit`."""
    try:
        resident = int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):  # no Linux
        resident = 0
    return memory_limit(root) - resident


def has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Say whether the CPU computes in bfloat16 itself, which halves the time of an encoder."""
    return bool(_flags(cpuinfo) & {"avx512_bf16", "amx_bf16"})


def has_fast_int8(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Say whether 8-bit integers are multiplied faster than floats: AVX2 alone is slower with them.

    What was measured is in docs/performance.md.
    """
    return bool(_flags(cpuinfo) & {"avx512_vnni", "avx_vnni", "amx_int8", "avx512bw", "asimddp"})


def _flags(cpuinfo: Path) -> set[str]:
    try:
        return set(cpuinfo.read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return set()


def release_mapped(path: Path, maps: Path = Path("/proc/self/maps")) -> int:
    """Give back the memory of a file that is mapped read-only, and return the bytes.

    The file stays mapped: whoever touches it again reads it from the page cache. Does
    nothing where there is no /proc.
    """
    if sys.platform != "linux":
        return 0
    libc, name, released = ctypes.CDLL(None), str(path.resolve()), 0
    for line in maps.read_text(encoding="utf-8", errors="replace").splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) < 6 or fields[5] != name or "w" in fields[1]:
            continue
        start, end = (int(address, 16) for address in fields[0].split("-"))
        if libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_DONTNEED) == 0:
            released += end - start
    return released


def limit_allocator() -> None:
    """Keep glibc's memory in few arenas: one for every request's thread holds what others have freed.

    Does nothing with another allocator.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(M_ARENA_MAX, ARENAS)
