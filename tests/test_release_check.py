"""The check of a release: the packages hold the files of the repository, and what is claimed is tried."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from test_commit_messages import GIT

from scripts import find_python, package_contents, release_claims

ROOT = Path(__file__).resolve().parent.parent
THIS = "{}.{}".format(*sys.version_info[:2])


# --- the packages --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel and an sdist of this tree, built as the release check builds them."""
    folder = tmp_path_factory.mktemp("packages")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=200)
    return folder


@pytest.fixture
def wheel(packages: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(next(packages.glob("*.whl")), tmp_path))


@pytest.fixture
def sdist(packages: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(next(packages.glob("*.tar.gz")), tmp_path))


def rewrite(wheel: Path, change: Callable[[str, bytes], bytes | None]) -> None:
    """Change the members of a wheel. None leaves a member out."""
    with zipfile.ZipFile(wheel) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in members.items():
            if (changed := change(name, data)) is not None:
                archive.writestr(name, changed)


def wheel_problems(wheel: Path) -> str:
    return "\n".join(package_contents.wheel_problems(wheel, ROOT))


def test_a_copy_without_a_history_has_the_same_files(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    names = package_contents.files(ROOT)
    for name in names:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    (copy / "src" / "__pycache__").mkdir()
    (copy / "src" / "__pycache__" / "module.pyc").write_bytes(b"")
    assert package_contents.files(copy) == names


def test_the_packages_hold_the_files_of_the_repository(wheel: Path, sdist: Path) -> None:
    assert wheel_problems(wheel) == ""
    assert list(package_contents.sdist_problems(sdist, ROOT)) == []


@pytest.mark.parametrize("end", ["/py.typed", "/index.html", "/systemd.service", "/pool.py"])
def test_a_file_that_the_wheel_lacks_is_named(wheel: Path, end: str) -> None:
    rewrite(wheel, lambda name, data: None if name.endswith(end) else data)
    assert f"{end} is missing" in wheel_problems(wheel)


def test_a_kind_of_file_that_no_module_needs_is_named(wheel: Path) -> None:
    rewrite(wheel, lambda name, data: None if name.endswith("/py.typed") else data)
    assert "the marker of a typed package is missing: greenroom/py.typed" in wheel_problems(wheel)


def test_tests_in_the_wheel_are_named(wheel: Path) -> None:
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("tests/test_docs.py", "")
    assert "tests/test_docs.py is not a file of the repository" in wheel_problems(wheel)


@pytest.mark.parametrize(
    ("file", "old", "new", "wanted"),
    [
        ("entry_points.txt", b"greenroom.cli", b"greenroom.no", "the command greenroom is not an entry point"),
        ("METADATA", b"Requires-Python: >=3.11", b"Requires-Python: >=3.8", "Requires-Python is >=3.8"),
        ("METADATA", b"\nVersion: ", b"\nVersion: 9", "its Version is 9"),
    ],
)
def test_wrong_metadata_is_named(wheel: Path, file: str, old: bytes, new: bytes, wanted: str) -> None:
    def change(name: str, data: bytes) -> bytes:
        return data.replace(old, new) if name.endswith(f".dist-info/{file}") else data

    rewrite(wheel, change)
    assert wanted in wheel_problems(wheel)


def test_a_file_too_many_in_the_sdist_is_named(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        members = [(member, archive.extractfile(member)) for member in archive.getmembers()]
        top = members[0][0].name.partition("/")[0]
        with tarfile.open(sdist.with_name("changed.tar.gz"), "w:gz") as changed:
            for member, content in members:
                if not member.name.endswith("/README.md") or member.name.count("/") > 1:
                    changed.addfile(member, content)
            secret = tarfile.TarInfo(f"{top}/secret.txt")
            secret.size = 5
            changed.addfile(secret, io.BytesIO(b"token"))
    found = list(package_contents.sdist_problems(sdist.with_name("changed.tar.gz"), ROOT))
    assert found == [
        "changed.tar.gz: README.md is missing",
        "changed.tar.gz: secret.txt is not a file of the repository",
    ]


# --- the Pythons ---------------------------------------------------------------------------------


def test_a_python_is_found_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = tmp_path / f"python{THIS}"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_python.find(THIS) == command


def test_a_python_that_does_not_run_or_is_another_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, content in (("a", "#!/bin/sh\nexit 127\n"), ("b", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')):
        command = tmp_path / folder / "python3.99"
        command.parent.mkdir()
        command.write_text(content)
        command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/a:{tmp_path}/b")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_python.find("3.99") is None


def test_a_python_of_pyenv_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = tmp_path / ".pyenv" / "versions" / f"{THIS}.99" / "bin" / f"python{THIS}"
    command.parent.mkdir(parents=True)
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_python.find(THIS) == command


# --- what is claimed -----------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository with what the claims are read from, in which nothing is changed."""
    for name in ("pyproject.toml", "CHANGELOG.md", "src/greenroom/__init__.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "news").mkdir()
    for arguments in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "release: begin"]):
        subprocess.run(["git", *arguments], cwd=tmp_path, env=GIT, check=True, timeout=100)
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_what_is_claimed_is_so() -> None:
    assert list(release_claims.statements(ROOT)) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "wanted"),
    [
        ("pyproject.toml", ":: 3.12", ":: 3.15", "the classifiers name Python 3.11, 3.15, 3.13"),
        ("pyproject.toml", '">=3.11"', '">=3.10"', "requires-python is >=3.10"),
        ("src/greenroom/__init__.py", '__version__ = "', '__version__ = "9', "__version__ differs"),
    ],
)
def test_a_wrong_claim_is_named(tree: Path, file: str, old: str, new: str, wanted: str) -> None:
    edit(tree / file, old, new)
    assert wanted in "\n".join(release_claims.statements(tree))


def test_a_commit_can_be_released_when_its_news_are_in_the_changelog(tree: Path) -> None:
    version = release_claims.project(tree)["version"]
    (tree / "news" / "+queue.feature.md").write_text("The queue is bounded.\n")
    found = list(release_claims.unreleased(tree))
    assert f"CHANGELOG.md has no section for {version}" in found
    assert "news/+queue.feature.md is not in CHANGELOG.md yet" in found
    assert "not committed: news/" in found

    (tree / "news" / "+queue.feature.md").unlink()
    with (tree / "CHANGELOG.md").open("a") as file:
        file.write(f"\n## {version} (2030-01-01)\n")
    subprocess.run(
        ["git", "commit", "--quiet", "--all", "--message", "release: write"], cwd=tree, env=GIT, check=True, timeout=100
    )
    assert list(release_claims.unreleased(tree)) == []
