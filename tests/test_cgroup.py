"""The files that a delegated cgroup v2 subtree is steered by.

The kernel's side of limits is not here: a machine whose memory controller is on the older hierarchy has
none to delegate. A folder stands in for the mount, with the files as cgroups(7) describes them.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from support import DEADLINE

from greenroom.system import cgroup, prctl
from greenroom.system.cgroup import MemoryCgroups


def _own_place(mount: Path) -> Path:
    """This process's cgroup as the kernel tells it, below the folder that stands in for the mount."""
    found = cgroup._own_cgroup(mount)
    if found is None:
        pytest.skip("this kernel has no cgroup v2 hierarchy")
    return found


def _make(mount: Path, controllers: str, enabled: str = "") -> Path:
    """A delegated cgroup in this process's place."""
    folder = _own_place(mount)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cgroup.controllers").write_text(controllers)
    (folder / "cgroup.subtree_control").write_text(enabled)
    (folder / "cgroup.type").write_text("domain\n")
    if folder != mount:
        os.setxattr(folder, "user.delegate", b"1")
    return folder


def test_without_a_delegated_memory_controller_there_is_no_subtree(tmp_path: Path) -> None:
    assert MemoryCgroups.where_delegated("t", tmp_path) is None
    _make(tmp_path, "cpu pids\n")
    assert MemoryCgroups.where_delegated("t", tmp_path) is None


def test_each_process_gets_a_cgroup_with_the_limit_and_is_moved_into_it(tmp_path: Path) -> None:
    place = _make(tmp_path, "cpu memory\n")
    cgroups = MemoryCgroups.where_delegated("t", tmp_path)
    assert cgroups is not None
    assert "memory" in (place / "cgroup.subtree_control").read_text()
    cgroups.enclose("1-7", 4711, 100)
    files = {path.name: path.read_text() for path in (place / "greenroom-t-1-7").iterdir()}
    assert files == {"memory.max": str(100 * 2**20), "memory.oom.group": "1", "cgroup.procs": "4711"}


def test_the_kernel_s_count_tells_whether_the_limit_was_hit(tmp_path: Path) -> None:
    cgroups = MemoryCgroups(tmp_path, "t")
    (tmp_path / "greenroom-t-1-7").mkdir()
    events = tmp_path / "greenroom-t-1-7" / "memory.events"
    assert not cgroups.limit_was_hit("1-7")
    events.write_text("low 0\nhigh 0\nmax 3\noom 0\noom_kill 0\noom_group_kill 0\n")
    assert not cgroups.limit_was_hit("1-7")
    events.write_text("low 0\nhigh 0\nmax 9\noom 1\noom_kill 2\noom_group_kill 1\n")
    assert cgroups.limit_was_hit("1-7")
    assert not cgroups.limit_was_hit("never made")


def test_what_cannot_be_made_is_told(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="missing"):
        MemoryCgroups(tmp_path / "missing", "t").enclose("1-7", 4711, 100)


def test_what_is_merely_writable_is_left_alone(tmp_path: Path) -> None:
    """To root everything is: a cgroup that nobody delegated belongs to somebody else."""
    place = _make(tmp_path, "cpu memory\n")
    (place / "cgroup.type").unlink()
    if place != tmp_path:
        os.removexattr(place, "user.delegate")
    assert MemoryCgroups.where_delegated("t", tmp_path) is None
    assert (place / "cgroup.subtree_control").read_text() == ""


def _hierarchy() -> Path:
    """A cgroup v2 hierarchy in which cgroups can be made. It needs no controllers for what the kernel itself does."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        mount = Path(before.split()[4])
        if after.startswith("cgroup2 ") and os.access(mount, os.W_OK):
            return mount
    pytest.skip("no cgroup v2 hierarchy can be written to here")


def test_all_of_a_cgroup_is_killed_also_what_has_left_its_session() -> None:
    mount = _hierarchy()
    cgroups = MemoryCgroups(mount, "test")
    folder = mount / f"greenroom-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made: {error}")
    try:
        if not (folder / "cgroup.kill").exists():
            pytest.skip("cgroup.kill needs Linux 5.14")
        prctl.set_child_subreaper()
        reading, writing = os.pipe()
        script = f"echo $$ > {folder}/cgroup.procs; setsid sleep 1000 & wait"
        with subprocess.Popen(["sh", "-c", script], pass_fds=(writing,)) as shell:
            os.close(writing)
            deadline = time.monotonic() + DEADLINE
            while "sleep" not in [_comm(pid) for pid in _pids_in(folder)] and time.monotonic() < deadline:
                time.sleep(0.005)
            members = _pids_in(folder)
            assert shell.pid in members
            cgroups.kill(str(os.getpid()))
            assert os.read(reading, 1) == b""  # nobody holds the other end any more
            shell.wait()
        os.close(reading)
        for pid in set(members) - {shell.pid}:
            os.waitpid(pid, 0)
        assert _pids_in(folder) == []
    finally:
        cgroups.remove(str(os.getpid()))
    assert not folder.exists()


def _pids_in(folder: Path) -> list[int]:
    return [int(pid) for pid in (folder / "cgroup.procs").read_text().split()]


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:  # gone
        return ""
