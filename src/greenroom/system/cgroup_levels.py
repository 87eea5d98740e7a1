"""Cgroups that limit this process: its own one, and each above it, in version 1 and 2 (cgroups(7)).

A limit can be set at any level, and the tightest one binds. ``/proc/self/mountinfo`` names the mount point of
each hierarchy, and the part that is mounted. A container often sees its own cgroup as the root of the mount.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

__all__ = ["Level", "levels", "number_in", "own_cgroups"]

_UNLIMITED = 1 << 60
"""Least number that means "no limit" in version 1, which writes the largest multiple of a page for it."""


class Level(NamedTuple):
    """One cgroup, as a folder."""

    folder: Path
    version: Literal[1, 2]


class _Mount(NamedTuple):
    root: PurePosixPath
    """Part of the hierarchy that is mounted."""
    point: PurePosixPath
    version: Literal[1, 2]
    controllers: frozenset[str]


def levels(controller: str, root: Path = Path("/")) -> list[Level]:
    """Return this process's cgroup for a controller first, then the visible cgroups above it.

    The list is empty where the controller is not mounted, or ``/proc`` does not show the cgroups.
    """
    with suppress(OSError):
        mounts = _mounts((root / "proc/self/mountinfo").read_text())
        places = own_cgroups(root)
        for mount in mounts:
            if mount.version == 1 and controller in mount.controllers:
                return _upwards(root, mount, places.get(controller))
        for mount in mounts:
            if mount.version == 2:
                return _upwards(root, mount, places.get(""))
    return []


def number_in(path: Path) -> int | None:
    """Return the number in a cgroup file; ``None`` for "no limit", and for a file that cannot be read."""
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
    """Return the path from the mount to the place, in parts.

    A place outside the mounted part stands for the mount itself: a container sees its own cgroup so.
    """
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


def own_cgroups(root: Path = Path("/")) -> dict[str, PurePosixPath]:
    """Return this process's cgroups by controller; that of version 2 has an empty name. Raise ``OSError``."""
    found = {}
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        _, names, place = line.split(":", 2)
        for name in names.split(","):
            found[name] = PurePosixPath(place)
    return found


def _unescaped(field: str) -> str:
    return field.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
