"""``make test``: three phases, and one outcome."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import run_tests

SCRIPT = Path(run_tests.__file__)
TESTS = """
import os, pathlib, pytest

LEDGER = pathlib.Path(__file__).with_name("ledger")

def note(word):
    with LEDGER.open("a") as ledger:
        ledger.write(f"{word} {os.environ.get('PYTEST_XDIST_WORKER', 'by itself')}\\n")

@pytest.mark.alone
def test_alone():
    note("alone")

def test_shared():
    note("shared")

@pytest.mark.in_pairs
def test_in_pairs():
    note("in pairs")

@pytest.mark.alone
def test_alone_that_fails():
    assert not "this"

@pytest.mark.more
def test_long():
    note("long")

@pytest.mark.more
@pytest.mark.alone
def test_long_and_alone():
    note("long and alone")
"""


def run(folder: Path, *arguments: str) -> tuple[int, str, list[str]]:
    """Run the tests above; returns the exit code, the last line, and what the tests have noted."""
    (folder / "test_both.py").write_text(TESTS)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n  alone\n  in_pairs\n  more\n")
    command = [sys.executable, SCRIPT, "-p", "xdist.plugin", "-p", "no:cacheprovider", folder, *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=environment)
    ledger = folder / "ledger"
    return done.returncode, done.stdout.splitlines()[-1], ledger.read_text().splitlines() if ledger.exists() else []


def test_those_that_need_the_machine_run_last_and_by_themselves(tmp_path: Path) -> None:
    code, total, notes = run(tmp_path, "-n", "1")
    assert code == 1
    assert total.startswith("total: 1 failed, 3 passed in ")
    assert notes == ["shared gw0", "in pairs gw0", "alone by itself"]


def test_long_tests_run_when_they_are_asked_for_and_no_others(tmp_path: Path) -> None:
    code, total, notes = run(tmp_path, "-n", "1", "--more")
    assert (code, notes) == (0, ["long gw0", "long and alone by itself"])
    assert total.startswith("total: 2 passed in ")


@pytest.mark.more
def test_a_phase_may_have_no_test(tmp_path: Path) -> None:
    code, total, notes = run(tmp_path, "-n", "0", "-k", "alone and not fails")
    assert (code, notes) == (0, ["alone by itself"])
    assert total.startswith("total: 1 passed in ")


@pytest.mark.more
def test_a_run_without_any_test_fails(tmp_path: Path) -> None:
    code, total, _ = run(tmp_path, "-n", "0", "-k", "nonesuch")
    assert code == pytest.ExitCode.NO_TESTS_COLLECTED
    assert total.startswith("total: no tests in ")


def test_all_phases_find_their_configuration() -> None:
    command = [sys.executable, SCRIPT, "-n", "0", "--collect-only", "tests/test_cgroup.py"]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout
    assert said.count(f"rootdir: {SCRIPT.parent.parent}\nconfigfile: pyproject.toml\n") == 3, said


@pytest.mark.parametrize(
    ("codes", "code"),
    [([0, 0], 0), ([0, 5], 0), ([5, 0], 0), ([5, 5], 5), ([1, 0], 1), ([5, 1], 1), ([2], 2), ([4], 4)],
)
def test_the_exit_code_is_that_of_all_phases(codes: list[int], code: int) -> None:
    assert run_tests.total(codes) == code
