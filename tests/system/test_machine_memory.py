"""How much memory is left, on machines of every kind: folders stand in for their /proc and /sys."""

from __future__ import annotations

from pathlib import Path

import pytest

from greenroom.system.cgroup_levels import levels
from greenroom.system.machine_memory import REFRESH, MemoryGauge, tightest

MIB = 2**20

V2_MOUNT = "35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate"
V1_MOUNT = "36 24 0:31 / /sys/fs/cgroup/memory rw,nosuid shared:9 - cgroup cgroup rw,memory"
NO_LIMIT_V1 = 9223372036854771712


class Machine:
    """A root folder with the files that are read."""

    def __init__(self, root: Path, *, available_mb: int, mounts: str = "", place: str = "") -> None:
        self.root = root
        self.write("proc/meminfo", f"MemTotal: 33554432 kB\nMemAvailable:   {available_mb * 1024} kB\n")
        self.write("proc/self/mountinfo", f"1 1 8:1 / / rw - ext4 /dev/root rw\n{mounts}\n")
        self.write("proc/self/cgroup", f"{place}\n" if place else "")

    def write(self, path: str, text: object) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(str(text))

    def v2(
        self, place: str, *, used_mb: int, limit: object = "max", high: object = "max", idle_cache_mb: int = 0
    ) -> None:
        self.write(f"sys/fs/cgroup{place}/memory.max", limit)
        self.write(f"sys/fs/cgroup{place}/memory.high", high)
        self.write(f"sys/fs/cgroup{place}/memory.current", used_mb * MIB)
        self.write(f"sys/fs/cgroup{place}/memory.stat", f"anon 1\ninactive_file {idle_cache_mb * MIB}\nfile 5\n")

    def v1(self, place: str, *, used_mb: int, limit: int = NO_LIMIT_V1, idle_cache_mb: int = 0) -> None:
        folder = f"sys/fs/cgroup/memory{place}"
        self.write(f"{folder}/memory.limit_in_bytes", limit)
        self.write(f"{folder}/memory.usage_in_bytes", used_mb * MIB)
        self.write(f"{folder}/memory.stat", f"cache 7\ntotal_inactive_file {idle_cache_mb * MIB}\n")


def test_without_cgroups_it_is_what_the_machine_has(tmp_path: Path) -> None:
    assert tightest(Machine(tmp_path, available_mb=700).root).mb == 700


def test_this_machine_answers() -> None:
    assert tightest().mb > 0


def test_a_limit_of_a_cgroup_binds_before_the_machine_does(tmp_path: Path) -> None:
    machine = Machine(tmp_path, available_mb=9000, mounts=V2_MOUNT, place="0::/app.service")
    machine.v2("/app.service", limit=1000 * MIB, used_mb=400, idle_cache_mb=50)
    assert tightest(tmp_path).mb == 650


def test_the_tightest_level_binds(tmp_path: Path) -> None:
    machine = Machine(tmp_path, available_mb=9000, mounts=V2_MOUNT, place="0::/pod/app")
    machine.v2("/pod/app", limit=1000 * MIB, used_mb=100)
    machine.v2("/pod", limit=1200 * MIB, used_mb=1000)
    assert tightest(tmp_path).mb == 200


def test_the_machine_binds_where_it_has_less_than_the_cgroup_allows(tmp_path: Path) -> None:
    machine = Machine(tmp_path, available_mb=300, mounts=V2_MOUNT, place="0::/app")
    machine.v2("/app", limit=1000 * MIB, used_mb=100)
    assert tightest(tmp_path).mb == 300


def test_memory_high_counts_as_a_limit(tmp_path: Path) -> None:
    machine = Machine(tmp_path, available_mb=9000, mounts=V2_MOUNT, place="0::/app")
    machine.v2("/app", limit=1000 * MIB, high=500 * MIB, used_mb=100)
    assert tightest(tmp_path).mb == 400


def test_it_is_never_below_nothing(tmp_path: Path) -> None:
    machine = Machine(tmp_path, available_mb=9000, mounts=V2_MOUNT, place="0::/app")
    machine.v2("/app", limit=1000 * MIB, high=500 * MIB, used_mb=600)
    assert tightest(tmp_path).mb == 0


def test_the_older_version_and_its_way_to_say_no_limit(tmp_path: Path) -> None:
    machine = Machine(tmp_path, available_mb=9000, mounts=f"{V1_MOUNT}\n{V2_MOUNT}", place="4:memory:/box\n0::/")
    machine.v1("/box", used_mb=100)
    machine.v1("", used_mb=100)
    assert tightest(tmp_path).mb == 9000
    machine.v1("/box", limit=1000 * MIB, used_mb=100, idle_cache_mb=20)
    assert tightest(tmp_path).mb == 920


@pytest.mark.parametrize(
    ("mounted", "place"),
    [("/docker/abc", "/docker/abc"), ("/", "/../../elsewhere"), ("/docker/abc", "/docker/other")],
)
def test_a_container_that_sees_its_own_cgroup_as_the_root(tmp_path: Path, mounted: str, place: str) -> None:
    mount = f"36 24 0:31 {mounted} /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory"
    machine = Machine(tmp_path, available_mb=9000, mounts=mount, place=f"4:memory:{place}")
    machine.v1("", limit=1000 * MIB, used_mb=250)
    assert tightest(tmp_path).mb == 750


def test_levels_go_from_this_process_upwards(tmp_path: Path) -> None:
    machine = Machine(tmp_path, available_mb=1, mounts=V2_MOUNT, place="0::/a/b/c")
    machine.v2("/a/b/c", used_mb=1)
    names = [level.folder.relative_to(tmp_path / "sys/fs/cgroup").as_posix() for level in levels("memory", tmp_path)]
    assert names == ["a/b/c", "a/b", "a", "."]


def test_a_gauge_finds_the_limits_once_and_again_after_a_while(tmp_path: Path) -> None:
    """The table of mounts is gone in between, so a second search would find no limit."""
    machine = Machine(tmp_path, available_mb=9000, mounts=V2_MOUNT, place="0::/app")
    machine.v2("/app", limit=1000 * MIB, used_mb=400)
    times = [0.0]
    gauge = MemoryGauge(tmp_path, lambda: times[0])
    assert gauge.available_mb() == 600
    (tmp_path / "proc/self/mountinfo").unlink()
    machine.v2("/app", limit=2000 * MIB, used_mb=500)
    times[0] = REFRESH - 1
    assert gauge.available_mb() == 500  # the use is read anew, the limit is not
    times[0] = REFRESH
    assert gauge.available_mb() == 9000
