"""What this process may use of the machine."""

from __future__ import annotations

import math
import os
from pathlib import Path

__all__ = ["available_cpus"]


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
