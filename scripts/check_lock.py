"""Check that the lock files fit pyproject.toml, for each Python and machine that they are for. Asks no registry.

Usage: python scripts/check_lock.py [FOLDER], where FOLDER holds pyproject.toml and requirements/.
"""

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lockfile import LockError, Pin, read
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
MACHINES = ("x86_64", "aarch64")


def environments(project: dict[str, Any]) -> list[dict[str, str]]:
    """One set of marker values for each Python of the classifiers on each machine."""
    last = [line.split(" :: ")[-1] for line in project["classifiers"] if line.startswith("Programming Language")]
    pythons = [version for version in last if version.startswith("3.")]
    return [_environment(python, machine) for python in pythons for machine in MACHINES]


def _environment(python: str, machine: str) -> dict[str, str]:
    return {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "sys_platform": "linux",
        "os_name": "posix",
        "platform_system": "Linux",
        "platform_machine": machine,
        "extra": "",
    }


def wanted(data: dict[str, Any], content: dict[str, Any]) -> Iterator[Requirement]:
    """The requirements that a lock file is made from."""
    project = data["project"]
    if content.get("project", True):
        yield from map(Requirement, project["dependencies"])
    for extra in content.get("extras", []):
        yield from of_extra(project, extra)
    for group in content.get("groups", []):
        yield from map(Requirement, data["dependency-groups"][group])


def of_extra(project: dict[str, Any], extra: str) -> Iterator[Requirement]:
    """The requirements of an extra, and of the extras that it includes."""
    for line in project["optional-dependencies"][extra]:
        requirement = Requirement(line)
        if canonicalize_name(requirement.name) != project["name"]:
            yield requirement
            continue
        for inner in sorted(requirement.extras):
            yield from of_extra(project, inner)


def unmet(requirement: Requirement, pins: list[Pin], environment: dict[str, str]) -> str | None:
    """Return why the pins do not fit a requirement in one environment."""
    if requirement.marker and not requirement.marker.evaluate(environment):
        return None
    name = canonicalize_name(requirement.name)
    found = [pin.version for pin in pins if pin.name == name and pin.applies(environment)]
    where = f"Python {environment['python_version']} on {environment['platform_machine']}"
    if len(found) != 1:
        return f"{requirement}: {len(found) or 'no'} versions are locked for {where}"
    if not requirement.specifier.contains(found[0], prereleases=True):
        return f"{requirement}: {found[0]} is locked for {where}"
    return None


def problems(root: Path) -> Iterator[str]:
    data = tomllib.loads((root / "pyproject.toml").read_text())
    places = environments(data["project"])
    versions: dict[tuple[str, str], dict[str, str]] = {}
    for name, content in data["tool"]["greenroom"]["locks"].items():
        try:
            pins = read(root / "requirements" / f"{name}.lock")
        except (OSError, LockError) as error:
            yield str(error)
            continue
        for pin in pins:
            versions.setdefault((pin.name, str(pin.marker)), {})[str(pin.version)] = name
        found = (unmet(each, pins, place) for each in wanted(data, content) for place in places)
        yield from (f"requirements/{name}.lock: {why}" for why in found if why)
    yield from (
        f"the lock files disagree on {name}: {found}" for (name, _), found in versions.items() if len(found) > 1
    )


def main(root: Path) -> int:
    found = list(problems(root))
    if found:
        print("error: the lock files do not fit pyproject.toml. Remake them: make lock.", file=sys.stderr)
        print("\n".join(f"  {problem}" for problem in found), file=sys.stderr)
        return 1
    print("The lock files fit pyproject.toml.")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT))
