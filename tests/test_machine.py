from __future__ import annotations

import os
from pathlib import Path

import pytest

from clip_app.machine import available_cpus

CPUS = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("quota", "expected"), [("50000 100000", 1), ("100000 100000", 1), ("max 100000", CPUS), ("9900000 100000", CPUS)]
)
def test_cgroup_v2_quota(tmp_path: Path, quota: str, expected: int) -> None:
    (tmp_path / "cpu.max").write_text(quota + "\n")
    assert available_cpus(tmp_path) == expected


@pytest.mark.parametrize(("quota", "expected"), [("100000", 1), ("-1", CPUS)])
def test_cgroup_v1_quota(tmp_path: Path, quota: str, expected: int) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert available_cpus(tmp_path) == expected


def test_without_a_cgroup_the_machine_counts(tmp_path: Path) -> None:
    assert available_cpus(tmp_path) == CPUS
