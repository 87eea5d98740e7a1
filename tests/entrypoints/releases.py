"""An environment for each minor release of livekit-agents: its latest patch, and what that release asks for.

Each is a virtual environment on top of the one that runs the tests: only what differs is installed,
which takes some seconds and 70 MB at most. They are kept in pytest's cache for a week.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import time
import venv
from pathlib import Path

from support import CERTIFICATE

__all__ = ["BETWEEN", "NEWEST", "OLDEST", "PRERELEASE", "environment", "installed", "newer_releases"]

OLDEST, *BETWEEN, NEWEST = "1.5", "1.6", "1.7", "1.8"

PRERELEASE = "2.0"
"""The next one, of which there are pre-releases only: the newest of them is taken."""

_ALSO = {"1.5": ["openai<3"]}
"""What a release needs and does not say: 1.5 imports httpx, which came with openai until its third version."""

_WEEK = 7 * 24 * 3600.0


def environment(release: str, cache: Path) -> Path:
    """The Python of the environment for this minor release; installs it where need be."""
    pre = "b1" if release == PRERELEASE else ""
    return installed(cache / release, f"livekit-agents~={release}.0{pre}", *_ALSO.get(release, []))


def installed(home: Path, *requirements: str) -> Path:
    """Return the Python of an environment with these packages, on top of the one that runs the tests."""
    home = home.with_name(f"{home.name}-python{sys.version_info.major}.{sys.version_info.minor}")
    python, stamp = home / "bin" / "python", home / "installed"
    if stamp.exists() and time.time() - stamp.stat().st_mtime < _WEEK and stamp.read_text() == sys.prefix:
        return python
    venv.create(home, clear=True, symlinks=True)
    base = sysconfig.get_path("purelib")
    site = sysconfig.get_path("purelib", "venv", vars={"base": str(home), "platbase": str(home)})
    # Behind the environment's own packages, and with the .pth files of an editable install.
    Path(site, "base.pth").write_text(f"import site; site.addsitedir({base!r})\n")
    _pip("--python", str(python), "install", "--quiet", "--upgrade", *requirements)
    stamp.write_text(sys.prefix)
    return python


def newer_releases() -> list[str]:
    """The minor releases that there are since the last one that is known here."""
    answer = _pip("index", "versions", "livekit-agents")
    found = set(re.findall(r"\b(\d+\.\d+)\.\d+\b", answer.partition("Available versions:")[2].partition("\n")[0]))
    return sorted((minor for minor in found if _number(minor) > _number(NEWEST)), key=_number)


def _number(release: str) -> tuple[int, ...]:
    return tuple(map(int, release.split(".")))


def _pip(*arguments: str) -> str:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    environment = dict(os.environ)
    if environment.get("SSL_CERT_FILE") == str(CERTIFICATE):  # which vouches for no package index
        del environment["SSL_CERT_FILE"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stderr}"
    return done.stdout
