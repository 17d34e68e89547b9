from __future__ import annotations

import mmap
import os
import sys
from pathlib import Path

import pytest

from clip_app.machine import (
    available_cpus,
    cpu_limit,
    has_bfloat16,
    has_fast_int8,
    limit_allocator,
    memory_free,
    memory_limit,
    release_mapped,
)

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


@pytest.mark.parametrize(("quota", "expected"), [("50000 100000", 0.5), ("150000 100000", 1.5), ("max 100000", CPUS)])
def test_the_cpu_limit_is_the_quota_itself(tmp_path: Path, quota: str, expected: float) -> None:
    (tmp_path / "cpu.max").write_text(quota + "\n")
    assert cpu_limit(tmp_path) == min(expected, CPUS)


@pytest.mark.parametrize("file", ["memory.max", "memory/memory.limit_in_bytes"])
def test_the_memory_limit_is_the_cgroups_and_never_more_than_the_machine_has(tmp_path: Path, file: str) -> None:
    machine = memory_limit(tmp_path)
    assert machine > 1e8
    (tmp_path / file).parent.mkdir(exist_ok=True)
    for text, expected in (("536870912\n", 536870912), ("max\n", machine), ("9223372036854771712\n", machine)):
        (tmp_path / file).write_text(text)
        assert memory_limit(tmp_path) == min(expected, machine)


BFLOAT16 = [("fpu avx512_bf16 sse", True), ("amx_bf16", True), ("fpu avx2", False)]


@pytest.mark.parametrize(("flags", "expected"), BFLOAT16)
def test_bfloat16_is_read_from_the_flags_of_the_cpu(tmp_path: Path, flags: str, expected: bool) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    assert has_bfloat16(tmp_path / "cpuinfo") is expected
    assert not has_bfloat16(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("flags", "expected"), [("fpu avx2", False), ("avx2 avx_vnni", True), ("avx512bw", True), ("fp asimddp", True)]
)
def test_fast_int8_is_read_from_the_flags_of_the_cpu(tmp_path: Path, flags: str, expected: bool) -> None:
    (tmp_path / "cpuinfo").write_text(f"flags\t\t: {flags}\n")
    assert has_fast_int8(tmp_path / "cpuinfo") is expected
    assert not has_fast_int8(tmp_path / "nothing")


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc here")
def test_a_mapped_file_gives_its_memory_back_and_still_reads_the_same(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(os.urandom(1 << 20) * 32)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        before = bytes(mapped)
        resident = _resident()
        assert release_mapped(path) == 32 << 20
        assert resident - _resident() > 24 << 20
        assert bytes(mapped) == before


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def test_a_quota_of_more_than_a_processor_is_rounded_up(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("110000 100000\n")
    assert available_cpus(tmp_path) == min(2, CPUS)


def test_quotas_that_are_no_numbers_count_as_none(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("\n")
    assert available_cpus(tmp_path) == CPUS
    assert cpu_limit(tmp_path) == CPUS


def test_without_a_cgroup_the_memory_is_the_machines(tmp_path: Path) -> None:
    text = Path("/proc/meminfo").read_text()
    total = 1024 * int(text.split("MemTotal:")[1].split()[0])
    assert memory_limit(tmp_path) == pytest.approx(total, rel=0.01)


def test_only_what_is_mapped_read_only_and_under_its_own_name_is_given_back(tmp_path: Path) -> None:
    maps, path = tmp_path / "maps", tmp_path / "weights.bin"
    path.write_bytes(bytes(mmap.PAGESIZE))
    maps.write_text(
        "\n".join(
            [
                "7000-8000 r--p 00000000 00:00 0",
                f"7000-8000 rw-p 00000000 fe:00 42 {path}",
                f"7000-8000 r--p 00000000 fe:00 42 {path}.other",
                "",
            ]
        )
    )
    assert release_mapped(path, maps) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="there is no affinity here")
def test_processors_that_this_process_may_not_run_on_do_not_count(tmp_path: Path) -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert available_cpus(tmp_path) == cpu_limit(tmp_path) == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_what_this_process_wrote_into_its_own_copy_of_a_file_is_never_given_back(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(bytes(4 * mmap.PAGESIZE))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        mapped[:5] = b"wrote"
        assert release_mapped(path) == 0
        assert mapped[:5] == b"wrote"


class Library:
    """Stands for the C library, and keeps what it is asked for."""

    def __init__(self, **functions: object) -> None:
        self.__dict__ |= functions


def test_the_allocator_is_asked_once_for_few_arenas_where_it_is_glibcs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    library = Library(mallopt=lambda option, value: asked.append((option, value)))
    monkeypatch.setattr("ctypes.CDLL", lambda name: library)
    limit_allocator()
    assert [1 <= arenas <= 4 for _, arenas in asked] == [True]
    monkeypatch.setattr("sys.platform", "darwin")
    limit_allocator()
    assert len(asked) == 1


def test_another_allocator_or_system_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: Library())
    limit_allocator()
    monkeypatch.setattr("sys.platform", "darwin")
    assert release_mapped(tmp_path / "nothing", tmp_path / "no maps") == 0


def test_free_memory_is_what_the_limit_leaves(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000000000\n")
    statm = tmp_path / "statm"
    statm.write_text("500 100 7 1 0 9 0\n")
    assert memory_free(tmp_path, statm) == 1_000_000_000 - 100 * os.sysconf("SC_PAGE_SIZE")
    assert memory_free(tmp_path, tmp_path / "none") == 1_000_000_000
