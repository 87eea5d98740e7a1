"""Memory limits that the kernel enforces, in a cgroup v2 subtree that is delegated to this process.

systemd delegates with ``Delegate=memory`` and ``DelegateSubgroup=`` (systemd 254 and later). A container
engine delegates with a writable cgroup namespace. A cgroup that holds processes cannot pass controllers
on to its children ("no internal processes", cgroups(7)). If this process's own cgroup cannot be used, the
subtree is therefore that of its parent cgroup.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from .cgroup_levels import own_cgroups

__all__ = ["MemoryCgroups", "memory_is_delegated"]

_MOUNT = Path("/sys/fs/cgroup")


class MemoryCgroups:
    """Cgroups below ``base``, one for the process of each session."""

    def __init__(self, base: Path, prefix: str) -> None:
        self._base = base
        self._prefix = prefix  # of the folders' names: other workers may have cgroups in the same place

    @classmethod
    def where_delegated(cls, prefix: str, mount: Path = _MOUNT) -> MemoryCgroups | None:
        """Return the cgroups of the delegated subtree; ``None`` if this process can limit memory in none.

        Turns the memory controller on for the subtree's children, if it is off.
        """
        own = _own_cgroup(mount)
        candidates = [] if own is None else [own, own.parent]
        delegated = (path for path in candidates if _is_delegated(path, mount))
        base = next(filter(_passes_on_memory, delegated), None)
        return None if base is None else cls(base, prefix)

    def enclose(self, name: str, pid: int, limit_mb: float) -> None:
        """Put a process, and all processes that it will start, under the limit. Raises ``OSError``."""
        folder = self._folder(name)
        folder.mkdir()
        (folder / "memory.max").write_text(str(int(limit_mb * 2**20)))
        # At the limit the kernel kills all processes of the session, not only the largest one.
        (folder / "memory.oom.group").write_text("1")
        (folder / "cgroup.procs").write_text(str(pid))

    def kill(self, name: str) -> None:
        """Kill every process in this cgroup, also processes that are forked meanwhile. Needs Linux 5.14."""
        with suppress(OSError):  # the cgroup was never made, or the kernel is older
            (self._folder(name) / "cgroup.kill").write_text("1")

    def limit_was_hit(self, name: str) -> bool:
        """Return whether the kernel has killed a process in this cgroup for its memory."""
        with suppress(OSError):
            events = (self._folder(name) / "memory.events").read_text()
            return any(line.startswith("oom_kill ") and line != "oom_kill 0" for line in events.splitlines())
        return False

    def remove(self, name: str) -> None:
        """Remove a cgroup, after its last process has gone."""
        with suppress(OSError):  # the cgroup was never made, or one of its processes is still exiting
            self._folder(name).rmdir()

    def _folder(self, name: str) -> Path:
        return self._base / f"greenroom-{self._prefix}-{name}"


def memory_is_delegated(mount: Path = _MOUNT) -> bool:
    """Return whether :class:`MemoryCgroups` would find a subtree. Changes nothing."""
    own = _own_cgroup(mount)
    candidates = [] if own is None else [own, own.parent]
    return any(_is_delegated(path, mount) and _has_memory(path) for path in candidates)


def _own_cgroup(mount: Path) -> Path | None:
    with suppress(OSError, KeyError):
        return mount / own_cgroups()[""].relative_to("/")
    return None


def _is_delegated(folder: Path, mount: Path) -> bool:
    """Return whether the subtree is delegated. Write access does not prove that: root may write everywhere.

    systemd marks a delegated cgroup with an extended attribute. The root of a cgroup namespace has a
    ``cgroup.type``, and the machine's root has none.
    """
    if folder == mount:
        return (folder / "cgroup.type").exists()
    for name in ("user.delegate", "trusted.delegate"):
        with suppress(OSError):
            if mount in folder.parents and os.getxattr(folder, name) == b"1":
                return True
    return False


def _passes_on_memory(folder: Path) -> bool:
    """Return whether this process can give a memory limit to a child cgroup. Turns the controller on for that."""
    with suppress(OSError):
        if _has_memory(folder):
            enabled = (folder / "cgroup.subtree_control").read_text().split()
            if "memory" not in enabled:
                (folder / "cgroup.subtree_control").write_text("+memory")
            return True
    return False


def _has_memory(folder: Path) -> bool:
    with suppress(OSError):
        return "memory" in (folder / "cgroup.controllers").read_text().split() and os.access(folder, os.W_OK)
    return False
