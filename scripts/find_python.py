"""Find the Pythons of this machine: on the PATH, and where pyenv and uv keep theirs."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

KEPT = (".pyenv/versions/{}.*/bin", ".local/share/uv/python/cpython-{}.*/bin")
PROBE = "import ensurepip, sys, venv; print('.'.join(map(str, sys.version_info[:2])))"


def find(version: str) -> Path | None:
    """Return a Python of a version such as 3.12 that can make virtual environments, or None."""
    return next((path for path in _candidates(version) if _is(path, version)), None)


def _candidates(version: str) -> Iterator[Path]:
    folders = [Path(folder) for folder in os.get_exec_path()]
    for pattern in KEPT:
        folders += sorted(Path.home().glob(pattern.format(version)))
    yield from (path for folder in folders if (path := folder / f"python{version}").exists())


def _is(path: Path, version: str) -> bool:
    # pyenv has a script for each version that it knows, also where that version is not chosen: it fails when it is run.
    try:
        done = subprocess.run([path, "-c", PROBE], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return done.returncode == 0 and done.stdout.strip() == version
