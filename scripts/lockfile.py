"""Reads a lock file: `NAME==VERSION`, perhaps with a marker, and the hashes of its files. Knows no other line."""

import re
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import Marker
from packaging.utils import canonicalize_name
from packaging.version import Version

PIN = re.compile(
    r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;]+)(?:\s*;\s*(?P<marker>.+?))?(?P<hashes>(?:\s+--hash=\S+)*)\s*"
)
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}\b")


class LockError(ValueError):
    """A line of a lock file that is no pinned package with hashes."""


@dataclass(frozen=True)
class Pin:
    name: str
    version: Version
    marker: Marker | None

    def applies(self, environment: dict[str, str]) -> bool:
        return self.marker is None or self.marker.evaluate(environment)


def read(path: Path) -> list[Pin]:
    """Return the packages of a lock file. Raises LockError for anything else in it."""
    text = path.read_text()
    if "://" in text:
        raise LockError(f"{path.name} names a host. Remove it: a lock file must fit every registry.")
    joined = text.replace("\\\n", " ").splitlines()
    return [_pin(path, line) for line in joined if line.strip() and not line.lstrip().startswith("#")]


def _pin(path: Path, line: str) -> Pin:
    match = PIN.fullmatch(line)
    if match is None:
        raise LockError(f"{path.name} holds more than pinned packages: {line.strip()[:80]!r}. Remake it: make lock.")
    if not HASH.search(match["hashes"]):
        raise LockError(f"{path.name} has no SHA-256 for {match['name']}. Remake it: make lock.")
    marker = Marker(match["marker"]) if match["marker"] else None
    return Pin(canonicalize_name(match["name"]), Version(match["version"]), marker)
