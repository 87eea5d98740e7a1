"""The soak of everything, for a minute: its account is exact, and a kill that nobody was told of is found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import livekit_server

pytestmark = [pytest.mark.night, pytest.mark.alone]  # it takes both CPUs of a small machine
ROOT = Path(__file__).resolve().parent.parent


def soaked(*options: str) -> tuple[int, str]:
    """Run the real command; returns its exit code and what it printed."""
    if not livekit_server.is_built():
        if os.environ.get("CI"):
            pytest.fail("the LiveKit server is not built; `python3 scripts/livekit_server.py` builds it")
        options = (*options, "--rooms", "0")
    command = [sys.executable, "-m", "benchmarks.everything", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=220)
    return done.returncode, done.stdout + done.stderr


def test_a_minute_of_everything_is_accounted_for() -> None:
    code, said = soaked("--minutes", "1", "--seed", "1", "--pause", "0.3")
    assert code == 0, said
    assert "Every call is accounted for, and nothing is left." in said


def test_a_kill_that_is_not_in_the_ledger_is_a_violation() -> None:
    code, said = soaked("--minutes", "1", "--seed", "2", "--rooms", "0", "--unannounced")
    assert code == 1, said
    assert "killed/signaled was not the cause" in said
    assert "seed 2" in said
    assert "Around it" in said
    assert "recording" in said
