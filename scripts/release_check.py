"""Build the packages, compare their content with the repository, and try the wheel on each Python that is found.

Usage: python scripts/release_check.py [--all | --release] [--output FOLDER]

To try the wheel means to follow docs/first-five-minutes.md in an empty folder, its `pip install` included. pip gets
nothing but the wheel and the packages of requirements/runtime.lock, checked by their hashes. Packages that pass are put
into `dist/`.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import find_python
import first_minutes
from package_contents import sdist_problems, wheel_problems
from release_claims import PYTHONS, statements, unreleased

ROOT = Path(__file__).resolve().parent.parent
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]


class CheckError(Exception):
    """A step that the others need has failed."""


def build(root: Path, folder: Path) -> tuple[Path, Path]:
    """Build an sdist, and a wheel from it, with the locked build tools."""
    _run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(root)], "the build")
    [wheel], [sdist] = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def try_on(python: Path, wheel: Path, folder: Path) -> None:
    """Follow the first page of the documentation with a Python and a wheel. Raise an error where that does not work."""
    store, place = folder / "packages", folder / "home"
    place.mkdir()
    options = ["--quiet", "--require-hashes", "--no-deps", "--only-binary", ":all:", "--dest", str(store)]
    lock = str(ROOT / "requirements" / "runtime.lock")
    _run([*PIP, "--python", str(python), "download", *options, "--requirement", lock], "the download of packages")
    shutil.copy(wheel, store)
    environment = _environment(python, store, folder / "bin")
    first_minutes.follow(first_minutes.read(), place, environment, install=True)
    inner = str(place / ".venv" / "bin" / "python")
    _run([inner, "-m", "pip", "check"], "`pip check`", cwd=place, env=environment)
    where = _run([inner, "-c", "import greenroom; print(greenroom.__file__)"], "the import", cwd=place, env=environment)
    if not Path(where.strip()).is_relative_to(place):
        raise CheckError(f"the imported greenroom is not from the wheel: {where.strip()}")


def _environment(python: Path, store: Path, bin_folder: Path) -> dict[str, str]:
    """Return an environment in which `python3` is this Python, and pip gets packages from the store alone."""
    bin_folder.mkdir()
    # A script and no link: a Python finds its library by the path that it is called by.
    command = bin_folder / "python3"
    command.write_text(f'#!/bin/sh\nexec "{python}" "$@"\n')
    command.chmod(0o755)
    unwanted = ("GREENROOM_", "PIP_", "PYTHON", "VIRTUAL_ENV", "UV_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    path = f"{bin_folder}{os.pathsep}{os.environ['PATH']}"
    return {**kept, "PATH": path, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(store), "PIP_CONFIG_FILE": os.devnull}


def _run(command: list[str], what: str, **options: Any) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if done.returncode:
        raise CheckError(f"{what} failed with status {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def try_all(wheel: Path, folder: Path) -> Iterator[tuple[str, str | None]]:
    """Yield each Python that is found, with what went wrong on it."""
    for version in PYTHONS:
        python = find_python.find(version)
        if python is None:
            continue
        begin, problem = time.monotonic(), None
        place = folder / version
        place.mkdir()
        try:
            try_on(python, wheel, place)
        except (CheckError, first_minutes.PageError) as error:
            problem = f"Python {version}: {error}"
        outcome = "FAILED" if problem else "ok"
        print(f"Python {version}: {outcome}, {time.monotonic() - begin:.0f} s ({python})", flush=True)
        yield version, problem


def check(options: argparse.Namespace, folder: Path) -> list[str]:
    """Print what is tried; return what is wrong."""
    wheel, sdist = build(ROOT, folder)
    problems = [*statements(ROOT), *wheel_problems(wheel, ROOT), *sdist_problems(sdist, ROOT)]
    if options.release:
        problems += unreleased(ROOT)
    print(f"built {wheel.name} and {sdist.name}", flush=True)
    tried = dict(try_all(wheel, folder))
    problems += filter(None, tried.values())
    missing = [version for version in PYTHONS if version not in tried]
    print(f"Tried: {', '.join(tried) or 'none'}. Not found: {', '.join(missing) or 'none'}.")
    if missing and (options.all or options.release or not tried):
        problems.append(f"not tried: Python {', '.join(missing)}. Install it, for example with pyenv")
    if not problems:
        options.output.mkdir(exist_ok=True)
        for package in (wheel, sdist):
            shutil.copy(package, options.output)
            print(f"written: {options.output / package.name}")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the packages, and try the wheel on each Python that is found.")
    parser.add_argument("--all", action="store_true", help=f"fail unless each of Python {', '.join(PYTHONS)} is found")
    text = "like --all, and fail unless the commit can be released: CHANGELOG.md has its news, and no file is changed"
    parser.add_argument("--release", action="store_true", help=text)
    parser.add_argument("--output", type=Path, default=ROOT / "dist", metavar="FOLDER", help="folder for the packages")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            problems = check(options, Path(folder))
    except CheckError as error:
        problems = [str(error)]
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
