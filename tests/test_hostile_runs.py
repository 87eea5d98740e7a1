"""The hostile hour, for a few seconds: every attack strikes a real worker, and the account finds what was lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import eventually

from benchmarks.hostile import processes
from benchmarks.hostile.attacks import DEFAULT
from greenroom.system import proc

pytestmark = [
    pytest.mark.night,
    pytest.mark.alone,
]  # attacks in one process, and whatever runs beside, would share two cores
ROOT = Path(__file__).resolve().parent.parent


def hostile(folder: Path, *options: str) -> tuple[int, dict[str, Any], str]:
    """Run the real command; returns its exit code, its result and what it printed."""
    result = folder / "result.json"
    command = [sys.executable, "-m", "benchmarks.hostile", "--seed", "1", "--json", str(result), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=250)
    assert result.exists(), done.stdout + done.stderr
    return done.returncode, json.loads(result.read_text()), done.stdout + done.stderr


def test_every_attack_strikes_and_no_session_is_lost(tmp_path: Path) -> None:
    few = ("--minutes", "0.25", "--rounds", "1", "--at-once", "9", "--live", "5", "--rate", "0.3")
    code, result, said = hostile(tmp_path, *few)
    idle = [name for name in DEFAULT if sum(result["attacks"].get(name, {}).values()) < 2]
    assert not idle, said
    assert not result["faults"], said
    assert result["sessions"]["served"]["live"] == 5
    assert code == 0, said


def test_a_session_that_is_killed_from_outside_is_called_lost(tmp_path: Path) -> None:
    code, result, said = hostile(tmp_path, "--minutes", "0.1", "--only", "killed-live", "--live", "2")
    assert code == 1, said
    assert len(result["sessions"]["lost"]) == 1, said
    assert result["went_wrong_under"] == {"killed-live": 1}, said
    assert "it ended by signaled instead of completed" in said
    assert result["sessions"]["served"]["live"] == 1


async def test_a_run_that_is_killed_leaves_no_worker() -> None:
    command = [sys.executable, "-m", "benchmarks.hostile", "--only", "wrong-hosts", "--live", "1"]
    run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        await eventually(lambda: len(proc.children(run.pid)) == 3, "a worker and two helpers")
        mark = next(mark for pid in proc.children(run.pid) if (mark := mark_of(pid)))
        assert len(processes.marked(mark)) > 1
    finally:
        run.kill()
        run.wait()
    await eventually(lambda: not processes.marked(mark), "the end of all that it had started")


def mark_of(pid: int) -> str | None:
    """The mark of a worker's processes, if this is one."""
    environment = Path(f"/proc/{pid}/environ").read_text(errors="replace").split("\0")
    return next((each for each in environment if each.startswith("HOSTILE_RUN=")), None)
