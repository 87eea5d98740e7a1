"""Compare a wheel and an sdist with the files of the repository: none is missing, and nothing else is in them."""

import fnmatch
import subprocess
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

SOURCE = "src/"
NEEDED = {
    "the marker of a typed package": "greenroom/py.typed",
    "the status page": "greenroom/*/page/index.html",
    "the status page's style": "greenroom/*/page/page.css",
    "the status page's program": "greenroom/*/page/*.js",
    "the unit of `greenroom init systemd`": "greenroom/*/templates/systemd.service",
    "the image of `greenroom init docker`": "greenroom/*/templates/Dockerfile",
    "the manifests of `greenroom init k8s`": "greenroom/*/templates/deployment.yaml",
    "the configuration of `greenroom init haproxy`": "greenroom/*/templates/haproxy.cfg",
}
"""Files that are no modules: a build that packs modules alone would leave them out, and no import would fail."""


IGNORED = (".git", ".venv", "build", "dist", "__pycache__", ".hypothesis", ".schemathesis", ".*_cache")
"""Folders that .gitignore names, for a copy of the repository that has no history."""


def files(root: Path) -> set[str]:
    """Return the files of a repository: the files that git has, and new files that git does not ignore."""
    # The checkout may belong to another user: git refuses that without this option.
    listing = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    command = ["git", "-c", f"safe.directory={root.resolve()}", *listing]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        names = {name for name in done.stdout.split("\0") if name}
    else:
        paths = (path.relative_to(root) for path in root.rglob("*"))
        names = {path.as_posix() for path in paths if not _is_ignored(path)}
    return {name for name in names if (root / name).is_file()}


def _is_ignored(path: Path) -> bool:
    return any(fnmatch.fnmatch(part, pattern) for part in path.parts for pattern in IGNORED)


def wheel_problems(wheel: Path, root: Path) -> Iterator[str]:
    """Yield what is wrong with the content of a wheel."""
    project = _pyproject(root)["project"]
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        info = f"{project['name']}-{project['version']}.dist-info/"
        texts = {name: archive.read(name).decode() for name in names if name.startswith(info)}
    modules = {name.removeprefix(SOURCE) for name in files(root) if name.startswith(f"{SOURCE}{project['name']}/")}
    yield from _differences(wheel, {name for name in names if not name.startswith(info)}, modules)
    for what, pattern in NEEDED.items():
        if not fnmatch.filter(names, pattern):
            yield f"{wheel.name}: {what} is missing: {pattern}"
    yield from (f"{wheel.name}: {problem}" for problem in _metadata_problems(info, texts, project))


def _metadata_problems(info: str, texts: dict[str, str], project: dict[str, Any]) -> Iterator[str]:
    licenses = [f"licenses/{name}" for name in project["license-files"]]
    for file in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", *licenses):
        if f"{info}{file}" not in texts:
            yield f"{info}{file} is missing"
    for name, target in project["scripts"].items():
        if f"{name} = {target}" not in texts.get(f"{info}entry_points.txt", "").splitlines():
            yield f"the command {name} is not an entry point"
    metadata = HeaderParser().parsestr(texts.get(f"{info}METADATA", ""))
    wanted = {"Name": project["name"], "Version": project["version"], "Requires-Python": project["requires-python"]}
    for field, value in wanted.items():
        if metadata[field] != value:
            yield f"its {field} is {metadata[field]}, but {value} in pyproject.toml"


def sdist_problems(sdist: Path, root: Path) -> Iterator[str]:
    """Yield what is wrong with the content of an sdist."""
    data = _pyproject(root)
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    left_out = [name.removeprefix("/") for name in data["tool"]["hatch"]["build"]["targets"]["sdist"]["exclude"]]
    wanted = {name for name in files(root) if name not in left_out and name.partition("/")[0] not in left_out}
    yield from _differences(sdist, names, {*wanted, "PKG-INFO"})


def _differences(file: Path, found: set[str], wanted: set[str]) -> Iterator[str]:
    yield from (f"{file.name}: {name} is missing" for name in sorted(wanted - found))
    yield from (f"{file.name}: {name} is not a file of the repository" for name in sorted(found - wanted))


def _pyproject(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "pyproject.toml").read_text())
