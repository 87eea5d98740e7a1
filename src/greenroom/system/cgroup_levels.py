"""The cgroups that bound this process: its own one, and each above it, on either version (cgroups(7)).

A limit can stand at any level, and the tightest one binds. Where a hierarchy is mounted, and which part of
it, is told by ``/proc/self/mountinfo``: a container often sees its own cgroup as the root of the mount.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

__all__ = ["Level", "levels", "number_in"]

_UNLIMITED = 1 << 60
"""Version 1 has no word for "no limit": it is the largest multiple of a page."""


class Level(NamedTuple):
    folder: Path
    version: Literal[1, 2]


class _Mount(NamedTuple):
    root: PurePosixPath
    """The part of the hierarchy that is mounted."""
    point: PurePosixPath
    version: Literal[1, 2]
    controllers: frozenset[str]


def levels(controller: str, root: Path = Path("/")) -> list[Level]:
    """This process's cgroup for a controller first, then those above it as far as they can be seen.

    Empty where the controller is not mounted, or nothing is told.
    """
    with suppress(OSError):
        mounts = _mounts((root / "proc/self/mountinfo").read_text())
        places = _places((root / "proc/self/cgroup").read_text())
        for mount in mounts:
            if mount.version == 1 and controller in mount.controllers:
                return _upwards(root, mount, places.get(controller))
        for mount in mounts:
            if mount.version == 2:
                return _upwards(root, mount, places.get(""))
    return []


def number_in(path: Path) -> int | None:
    """A cgroup file's number; ``None`` for "no limit", and for a file that is not there or cannot be read."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() and int(text) < _UNLIMITED else None


def _upwards(root: Path, mount: _Mount, place: PurePosixPath | None) -> list[Level]:
    parts = _below(mount.root, place)
    top = root / mount.point.relative_to("/")
    folders = [top.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]
    return [Level(folder, mount.version) for folder in folders if folder.is_dir()]


def _below(mounted: PurePosixPath, place: PurePosixPath | None) -> tuple[str, ...]:
    """The way from the mount to the place. A place outside of what is mounted is the mount itself: the
    container's view of its own cgroup."""
    if place is None or ".." in place.parts or not place.is_relative_to(mounted):
        return ()
    return place.relative_to(mounted).parts


def _mounts(mountinfo: str) -> list[_Mount]:
    found = []
    for line in mountinfo.splitlines():
        before, separator, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if not separator or kind[0] not in ("cgroup", "cgroup2"):
            continue
        version: Literal[1, 2] = 2 if kind[0] == "cgroup2" else 1
        place, point = (PurePosixPath(_unescaped(field)) for field in fields[3:5])
        found.append(_Mount(place, point, version, frozenset(kind[-1].split(","))))
    return found


def _places(cgroup: str) -> dict[str, PurePosixPath]:
    """By controller; the second version's under an empty name."""
    found = {}
    for line in cgroup.splitlines():
        _, names, place = line.split(":", 2)
        for name in names.split(","):
            found[name] = PurePosixPath(place)
    return found


def _unescaped(field: str) -> str:
    return field.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
