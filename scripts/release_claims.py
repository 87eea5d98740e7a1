"""Compare what pyproject.toml and CHANGELOG.md claim of a release with what is so."""

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PYTHONS = ("3.11", "3.12", "3.13")
"""The Pythons that a wheel is tried on. The classifiers in pyproject.toml name these, and no other."""
CLASSIFIER = re.compile(r"Programming Language :: Python :: (\d+\.\d+)")


def statements(root: Path) -> Iterator[str]:
    """Yield the statements of pyproject.toml on Pythons and versions that are wrong."""
    about = project(root)
    claimed = [match[1] for line in about["classifiers"] if (match := CLASSIFIER.fullmatch(line))]
    if claimed != list(PYTHONS):
        yield f"pyproject.toml: the classifiers name Python {', '.join(claimed)}, but {', '.join(PYTHONS)} are tried"
    if about["requires-python"] != f">={PYTHONS[0]}":
        yield f"pyproject.toml: requires-python is {about['requires-python']}, but {PYTHONS[0]} is the oldest tried"
    module = (root / "src" / about["name"] / "__init__.py").read_text()
    if f'__version__ = "{about["version"]}"' not in module.splitlines():
        yield f"the package's __version__ differs from pyproject.toml, which has {about['version']}"


def unreleased(root: Path) -> Iterator[str]:
    """Yield what a commit lacks to be released as it is."""
    version = project(root)["version"]
    if f"\n## {version} (" not in (root / "CHANGELOG.md").read_text():
        yield f"CHANGELOG.md has no section for {version}"
    yield from (f"news/{path.name} is not in CHANGELOG.md yet" for path in sorted((root / "news").glob("*.md")))
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=root, capture_output=True, text=True, check=True)
    yield from (f"not committed: {line[3:]}" for line in changed.stdout.splitlines())


def project(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    return found
