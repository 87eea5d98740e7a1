"""The hooks that `make hooks` installs: they run what CI runs, and git heeds them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_commit_messages import GIT

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / ".pre-commit-config.yaml"
HOOKS: list[dict[str, Any]] = [
    hook for repository in yaml.safe_load(CONFIG.read_text())["repos"] for hook in repository["hooks"]
]


def test_nothing_is_downloaded_for_a_hook() -> None:
    assert {repository["repo"] for repository in yaml.safe_load(CONFIG.read_text())["repos"]} == {"local"}
    assert {hook["language"] for hook in HOOKS} == {"system"}
    assert not any(hook.get("additional_dependencies") for hook in HOOKS)


def test_each_hook_is_a_step_of_ci() -> None:
    steps = " ".join(re.findall(r"^step .* make (.*)$", (ROOT / ".ci" / "run").read_text(), re.M)).split()
    targets = [hook["entry"].removeprefix("make ") for hook in HOOKS if hook["entry"].startswith("make ")]
    assert len(targets) >= 5
    assert [target for target in targets if target not in steps] == []
    assert "commits-check" in steps


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with the hooks and what the hook of commit messages runs, and none of the files of other hooks."""
    place = tmp_path / "repository"
    (place / "scripts").mkdir(parents=True)
    shutil.copy(CONFIG, place)
    shutil.copy(ROOT / "scripts" / "check_commits.py", place / "scripts")
    (place / ".venv").symlink_to(sys.prefix)
    (place / "notes.txt").write_text("notes")
    git(place, "init", "--quiet")
    git(place, "add", "notes.txt", CONFIG.name)
    subprocess.run([sys.executable, "-m", "pre_commit", "install"], cwd=place, env=environment(place), check=True)
    return place


def environment(place: Path) -> dict[str, str]:
    return {**GIT, "PRE_COMMIT_HOME": str(place.parent / "cache")}


def git(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["git", *arguments]
    return subprocess.run(
        command, cwd=place, env=environment(place), capture_output=True, text=True, check=False, timeout=100
    )


def test_git_refuses_a_message_of_another_form(repository: Path) -> None:
    refused = git(repository, "commit", "--message", "Some notes")
    assert refused.returncode != 0
    assert "the subject names no area" in refused.stdout + refused.stderr
    taken = git(repository, "commit", "--message", "docs: keep notes")
    assert taken.returncode == 0, taken.stdout + taken.stderr
    assert git(repository, "log", "--format=%s").stdout == "docs: keep notes\n"


def test_git_refuses_a_change_that_a_check_refuses(repository: Path) -> None:
    (repository / "Makefile").write_text("lint:\n\t@! grep -n eval *.py\n")
    (repository / "module.py").write_text("eval('1')\n")
    git(repository, "add", "module.py")
    refused = git(repository, "commit", "--message", "pool: evaluate")
    assert refused.returncode != 0
    assert "1:eval('1')" in refused.stdout + refused.stderr
    (repository / "module.py").write_text("one = 1\n")
    git(repository, "add", "module.py")
    taken = git(repository, "commit", "--message", "pool: evaluate")
    assert taken.returncode == 0, taken.stdout + taken.stderr
