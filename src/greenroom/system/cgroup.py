"""A memory limit that the kernel itself keeps, where a cgroup v2 subtree is delegated to this process.

systemd delegates with ``Delegate=memory`` and ``DelegateSubgroup=`` (systemd 254 and later), a container
engine by a writable cgroup namespace. A cgroup that holds processes cannot pass controllers on to its
children ("no internal processes", cgroups(7)), so the subtree is that of this process's parent cgroup
if its own one cannot be used.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["MemoryCgroups", "memory_is_delegated"]

_MOUNT = Path("/sys/fs/cgroup")


class MemoryCgroups:
    """One cgroup a process, below ``base``."""

    def __init__(self, base: Path, prefix: str) -> None:
        self._base = base
        self._prefix = prefix  # of the folders' names: others may have theirs in the same place

    @classmethod
    def where_delegated(cls, prefix: str, mount: Path = _MOUNT) -> MemoryCgroups | None:
        """The delegated subtree, if there is one whose memory this process may bound."""
        own = _own_cgroup(mount)
        candidates = [] if own is None else [own, own.parent]
        delegated = (path for path in candidates if _is_delegated(path, mount))
        base = next(filter(_passes_on_memory, delegated), None)
        return None if base is None else cls(base, prefix)

    def enclose(self, name: str, pid: int, limit_mb: float) -> None:
        """Put a process, and all that it will start, under the limit. Raises ``OSError``."""
        folder = self._folder(name)
        folder.mkdir()
        (folder / "memory.max").write_text(str(int(limit_mb * 2**20)))
        # All of the session goes, not just the process that happened to be the largest.
        (folder / "memory.oom.group").write_text("1")
        (folder / "cgroup.procs").write_text(str(pid))

    def limit_was_hit(self, name: str) -> bool:
        """Whether the kernel has killed in this cgroup."""
        with suppress(OSError):
            events = (self._folder(name) / "memory.events").read_text()
            return any(line.startswith("oom_kill ") and line != "oom_kill 0" for line in events.splitlines())
        return False

    def remove(self, name: str) -> None:
        """After the last process in it has gone."""
        with suppress(OSError):  # it was never made; or a process of it is still on its way out
            self._folder(name).rmdir()

    def _folder(self, name: str) -> Path:
        return self._base / f"greenroom-{self._prefix}-{name}"


def memory_is_delegated(mount: Path = _MOUNT) -> bool:
    """Whether :class:`MemoryCgroups` would find a subtree. Only looks, and changes nothing."""
    own = _own_cgroup(mount)
    candidates = [] if own is None else [own, own.parent]
    return any(_is_delegated(path, mount) and _has_memory(path) for path in candidates)


def _own_cgroup(mount: Path) -> Path | None:
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            if line.startswith("0::"):
                return mount / line[3:].lstrip("/")
    return None


def _is_delegated(folder: Path, mount: Path) -> bool:
    """Whether the subtree is this process's to arrange: to root everything is writable, and that says nothing.

    systemd marks what it delegates with an extended attribute; the root of a cgroup namespace, unlike the
    machine's, has a ``cgroup.type``.
    """
    if folder == mount:
        return (folder / "cgroup.type").exists()
    for name in ("user.delegate", "trusted.delegate"):
        with suppress(OSError):
            if mount in folder.parents and os.getxattr(folder, name) == b"1":
                return True
    return False


def _passes_on_memory(folder: Path) -> bool:
    """Whether a child cgroup of this one can be given a memory limit by this process."""
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
