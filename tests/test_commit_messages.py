"""The form of commit messages, as a hook checks one, and as CI checks the last ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "scripts" / "check_commits.py"
GIT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.com",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.com",
}

GOOD = [
    "pool: bound the queue",
    "pool: bound the queue\n\nA flood of launches took all memory.",
    "docs, tests: name each setting",
    "livekit/source: answer offers first",
    "tests: need no network",
    "zygote: feed SIGCHLD to the loop",
    "docs: README says where the log is",
    "p" * 30 + ": " + "q" * 28,
    "Merge branch 'other'",
    'Revert "pool: bound the queue, which is a subject of sixty characters"',
]
BAD = {
    "bound the queue": "names no area",
    "Pool: bound the queue": "names no area",
    "pool:bound the queue": "names no area",
    "a whole sentence: it is no area": "names no area",
    "pool: Bound the queue": "'Bound' begins with a capital",
    "pool: bounded the queue": "'bounded' is not an imperative",
    "pool: bounds the queue": "'bounds' is not an imperative",
    "pool: bounding the queue": "'bounding' is not an imperative",
    "pool: bound the queue.": "full stop",
    "p" * 30 + ": " + "q" * 29: "61 characters",
    "pool: bound the queue\nwith a body": "second line is not empty",
}


def check(*arguments: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=GIT, capture_output=True, text=True, check=False, timeout=100)


def message(folder: Path, text: str) -> Path:
    file = folder / "COMMIT_EDITMSG"
    file.write_text(text)
    return file


@pytest.mark.parametrize("text", GOOD)
def test_a_good_message_passes(text: str, tmp_path: Path) -> None:
    done = check("--message", message(tmp_path, text))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("text", BAD)
def test_a_bad_message_is_refused_with_the_reason(text: str, tmp_path: Path) -> None:
    done = check("--message", message(tmp_path, text))
    assert done.returncode == 1
    assert BAD[text] in done.stdout


@pytest.mark.parametrize(
    "text",
    [
        "\n# Please enter the commit message for your changes.\n",
        "pool: bound the queue\n# Changes to be committed:\n",
        "pool: bound the queue\n# ------------------------ >8 ------------------------\ndiff --git a/x b/x\n+No area\n",
        "fixup! pool: bound the queue\n",
    ],
)
def test_what_git_adds_to_a_message_is_left_out(text: str, tmp_path: Path) -> None:
    done = check("--message", message(tmp_path, text))
    assert done.returncode == 0, done.stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with three commits, of which the second has no area."""
    git(tmp_path, "init", "--quiet")
    for subject in ("pool: begin", "No area", "docs: explain the queue"):
        git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", f"{subject}\n\nWhy: it is needed.")
    return tmp_path


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=folder, env=GIT, check=True, timeout=100)


def test_the_last_commits_are_checked(repository: Path) -> None:
    assert check("--last", "1", cwd=repository).returncode == 0
    done = check("--last", "2", cwd=repository)
    assert done.returncode == 1
    assert done.stdout.count("\n") == 1
    assert "names no area" in done.stdout


def test_a_fixup_that_was_not_squashed_is_found(repository: Path) -> None:
    git(repository, "commit", "--quiet", "--allow-empty", "--message", "fixup! docs: explain the queue")
    assert check("--last", "1", cwd=repository).returncode == 1


def test_a_copy_without_a_history_has_no_commit_to_check(tmp_path: Path) -> None:
    done = check(cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "There is no history here: no commit message was checked.\n")
