"""Places for recordings: a folder, which outlives the process, or memory, which does not.

A pool locks its folder (flock(2)). The kernel releases the lock when the process ends, for whatever cause. So a folder
without a lock is a recording that a crash has left behind.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

__all__ = ["KEPT", "Crashed", "Folder", "Memory", "Place", "crashed_in", "home"]

KEPT = 3
"""Most recordings of crashes that are kept. Older ones are removed."""
_LIVE, _NEW, _CRASHED = "live-", "new-", "crashed-"
_NEW_SECONDS = 60.0
"""Seconds after which a folder that was made but never locked is removed."""


class Place(Protocol):
    """Place for the files of segments."""

    def open(self, number: int) -> int:
        """Make the file of a segment, and return its fd. Raises ``OSError``."""

    def drop(self, number: int) -> None:
        """Remove the file of a segment."""

    def close(self) -> None:
        """Remove all files."""


class Memory:
    """Place in memory: files without a name (memfd_create(2)), which end with the process."""

    def open(self, number: int) -> int:
        return os.memfd_create(f"greenroom-flight-{number}")

    def drop(self, number: int) -> None:
        """Do nothing: the kernel frees the memory when the fd is closed."""

    def close(self) -> None:
        """Do nothing: the recorder closes the fds."""


class Folder:
    """Folder that belongs to this process alone. Raises ``OSError`` if the folder cannot be made."""

    def __init__(self, parent: Path) -> None:
        root = home(parent)
        made = _make_new(root)
        self._lock = os.open(made, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.path = root / made.name.replace(_NEW, _LIVE, 1)
            # Only after the lock: another process takes a folder of this name without a lock for a crash's.
            made.rename(self.path)
        except OSError:
            os.close(self._lock)
            raise

    def open(self, number: int) -> int:
        return os.open(self._file(number), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)

    def drop(self, number: int) -> None:
        with suppress(OSError):  # another process has removed the file
            self._file(number).unlink()

    def close(self) -> None:
        with suppress(OSError):
            for file in list(self.path.iterdir()):
                file.unlink()
            self.path.rmdir()
            self.path.parent.rmdir()  # fails if the parent holds other folders
        os.close(self._lock)

    def _file(self, number: int) -> Path:
        return self.path / f"{number:06d}.rows"


class Crashed(NamedTuple):
    """Folder with the recording of a process that did not end by itself."""

    path: Path
    pid: int
    began: float
    """Start of the recording, in seconds since the epoch."""
    is_found_now: bool
    """True if no process had found the folder before."""


def home(parent: Path) -> Path:
    """Return the folder that holds the folders of all pools of this user."""
    return parent / f"greenroom-{os.geteuid()}"


def crashed_in(parent: Path) -> list[Crashed]:
    """Return the recordings that crashes have left behind, the latest first. Remove all but the latest :data:`KEPT`."""
    root = home(parent)
    found: list[Crashed] = []
    try:
        _check_private(root)
        folders = sorted(root.iterdir())
    except OSError:
        return []
    for folder in folders:
        kind, _, rest = folder.name.partition("-")
        began, _, pid = rest.partition("-")
        if not began.isdigit() or not pid.isdigit():
            continue
        if kind == "new" and time.time() - int(began) / 1000 > _NEW_SECONDS:
            with suppress(OSError):
                folder.rmdir()
        elif kind == "crashed":
            found.append(Crashed(folder, int(pid), int(began) / 1000, False))
        elif kind == "live" and (moved := _take(folder)) is not None:
            found.append(Crashed(moved, int(pid), int(began) / 1000, True))
    found.sort(key=lambda one: one.began, reverse=True)
    for one in found[KEPT:]:
        _remove(one.path)
    return found[:KEPT]


def _take(folder: Path) -> Path | None:
    """Rename a folder whose process is dead, and return its new path. Return ``None`` if the process lives."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        moved = folder.with_name(folder.name.replace(_LIVE, _CRASHED, 1))
        folder.rename(moved)
    except OSError:  # the process lives, or another process has taken the folder
        return None
    else:
        return moved
    finally:
        os.close(fd)


def _remove(folder: Path) -> None:
    with suppress(OSError):
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()


def _make_private(root: Path) -> None:
    with suppress(FileExistsError):
        root.mkdir(0o700)
    _check_private(root)


def _check_private(root: Path) -> None:
    """Raise ``PermissionError`` if another user could have made the folder, or can use it."""
    found = root.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise PermissionError(f"{root} must be a folder of this user with mode 0700")


def _make_new(root: Path) -> Path:
    _make_private(root)
    now = int(time.time() * 1000)
    for later in range(100):  # two pools of one process may begin in one millisecond
        made = root / f"{_NEW}{now + later:014d}-{os.getpid()}"
        if (root / made.name.replace(_NEW, _LIVE, 1)).exists():
            continue
        try:
            made.mkdir(0o700)
        except FileExistsError:
            continue
        except FileNotFoundError:  # another pool has ended, and has removed the empty parent folder
            _make_private(root)
            continue
        return made
    raise FileExistsError(f"{root} has 100 folders with the same time")
