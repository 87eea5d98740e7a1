"""Execute a command as another user, without capabilities: ``unshare --mount python as_nobody.py COMMAND ...``.

The interpreter, or this repository, may be in a folder that only root can enter. In this mount namespace, such a folder
is an empty one, with only the paths in it that the command needs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

USER = (
    "setpriv",
    "--reuid",
    "65534",
    "--regid",
    "65534",
    "--clear-groups",
    "--bounding-set",
    "-all",
    "--inh-caps",
    "-all",
)
ROOT = Path(__file__).resolve().parent.parent.parent


def closed_folder(path: Path) -> Path | None:
    """The outermost folder above this path that other users cannot enter."""
    return next((folder for folder in reversed(path.parents) if not folder.stat().st_mode & 0o001), None)


def mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True)


def open_paths(paths: set[Path]) -> None:
    closed = {path: folder for path in paths if (folder := closed_folder(path)) is not None}
    kept = {path: Path(tempfile.mkdtemp(prefix="greenroom-walls-")) for path in closed}
    for path, place in kept.items():
        mount("--bind", path, place)
    for folder in set(closed.values()):
        mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", folder)
    for path, place in kept.items():
        path.mkdir(parents=True, exist_ok=True)
        mount("--move", place, path)
        place.rmdir()


if __name__ == "__main__":
    open_paths({Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve(), ROOT})
    os.execvp(USER[0], [*USER, *sys.argv[1:]])
