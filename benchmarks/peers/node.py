"""The Node peer. Its packages (`benchmarks/node/package.json`) are installed once, into the user's cache."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from benchmarks.peers import Unavailable

_SOURCE = Path(__file__).resolve().parent.parent / "node"


def command() -> list[str]:
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        raise Unavailable("node and npm are not installed")
    home = _home()
    if _is_stale(home):
        _install(npm, home)
    for script in _SOURCE.glob("*.mjs"):
        shutil.copy2(script, home)  # beside node_modules, where Node looks for packages
    return [node, str(home / "driver.mjs")]


def _home() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "greenroom-bench" / "node"


def _is_stale(home: Path) -> bool:
    installed = home / "installed.json"
    return not installed.exists() or installed.read_text() != (_SOURCE / "package.json").read_text()


def _install(npm: str, home: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)
    shutil.copy2(_SOURCE / "package.json", home)
    # No package here needs its install script; all native parts come prebuilt.
    arguments = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    try:
        subprocess.run(arguments, cwd=home, check=True, capture_output=True, text=True, timeout=300)
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no message"])[-1]
        raise Unavailable(f"npm install failed: {last[:120]}") from None
    except subprocess.TimeoutExpired:
        raise Unavailable("npm install took more than 300 s") from None
    shutil.copy2(_SOURCE / "package.json", home / "installed.json")
