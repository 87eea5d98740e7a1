"""Run the tests in three phases: several at a time, then two at a time, then those that need the machine alone.

``python scripts/run_tests.py [PYTEST ARGUMENT...]``. A phase may find no test to run; the run fails when none has
one, or when one of them fails. This module is also the pytest plugin that tells the phases apart.
"""

from __future__ import annotations

import compileall
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PLUGIN = "scripts.run_tests"
AT_A_TIME = 2 * len(os.sched_getaffinity(0))  # most tests wait for something, rather than compute

sys.dont_write_bytecode = False  # pytest's copy of the tests: to make it takes each process eight seconds of CPU

WORKERS = {"others": AT_A_TIME, "in_pairs": 2, "alone": 0}
"""By phase, which is the marker of its tests but for the first: how many of them run at a time, 0 in one process."""

GROUPS = ("night", "more")
"""Markers of tests that ``make test`` leaves out. A test with both is of the first."""

OVER_AT_ONCE = (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR, pytest.ExitCode.USAGE_ERROR)


def main(arguments: list[str]) -> int:
    begin = time.monotonic()
    # What the tests start does not write it (see tests/conftest.py): some thousand processes would compile it anew.
    compileall.compile_dir(ROOT / "src", quiet=1)
    counts = Counter[str]()
    codes: list[int] = []
    for phase, workers in WORKERS.items():
        print(f"\n==> {phase}, {max(workers, 1)} at a time", flush=True)
        at_a_time = ["-n", str(workers)]
        # Last, where the user's arguments must not ask for several at a time.
        ordered = [*at_a_time, *arguments] if workers else [*arguments, *at_a_time]
        codes.append(run([f"--phase={phase}", "--dist", "worksteal", *ordered], counts))
        if codes[-1] in OVER_AT_ONCE:
            break
    print(f"\ntotal: {counts_text(counts)} in {time.monotonic() - begin:.0f} s")
    return total(codes)


def run(arguments: list[str], counts: Counter[str]) -> int:
    """Run pytest once, and add up its results; returns its exit code."""
    with tempfile.NamedTemporaryFile() as file:
        # Not by a variable: the workers that tests start refuse those that they do not know. And in one word:
        # pytest looks for its configuration beside whatever looks like a path.
        command = [sys.executable, "-m", "pytest", "-p", PLUGIN, f"--counts={file.name}", *arguments]
        code = wait(subprocess.Popen(command, cwd=ROOT))
        counts.update(json.loads(file.read() or "{}"))
    return code


def wait(process: subprocess.Popen[bytes]) -> int:
    while True:
        with suppress(KeyboardInterrupt):  # a Ctrl-C reaches pytest as well, which prints its results and ends
            return process.wait()


def total(codes: list[int]) -> int:
    """The exit code of all phases: that of the first that failed, else whether any of them ran a test."""
    failed = [code for code in codes if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)]
    return failed[0] if failed else min(codes)


def counts_text(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "no tests"


# --- the plugin ----------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--counts", metavar="FILE", help="write to FILE how many tests passed, failed and so on")
    parser.addoption("--phase", choices=list(WORKERS), help="run the tests of this phase only")
    parser.addoption("--more", action="store_true", help="run the tests marked `more`, in the place of all others")
    parser.addoption("--night", action="store_true", help="run the tests marked `night`, in the place of all others")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out files that do not name the wanted markers: to import them all takes some ten seconds."""
    phase, needed = config.getoption("phase"), []
    if phase not in (None, "others"):
        needed.append(f"mark.{phase}")
    needed += [f"mark.{group}" for group in GROUPS if config.getoption(group)]
    if not needed or not collection_path.match("test_*.py"):
        return None
    text = collection_path.read_text()
    return any(marker not in text for marker in needed) or None


@pytest.hookimpl(trylast=True)  # after -k and -m
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    phase = config.getoption("phase")
    if phase is None:
        return
    wanted = next((group for group in GROUPS if config.getoption(group)), None)
    others = [item for item in items if phase_of(item) != phase or group_of(item) != wanted]
    items[:] = [item for item in items if item not in set(others)]
    config.hook.pytest_deselected(items=others)


def phase_of(item: pytest.Item) -> str:
    return next((phase for phase in reversed(WORKERS) if item.get_closest_marker(phase)), "others")


def group_of(item: pytest.Item) -> str | None:
    """Return the group that runs a test in the place of ``make test``; ``None`` if there is none."""
    return next((group for group in GROUPS if item.get_closest_marker(group)), None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    kinds = ("passed", "failed", "error", "skipped", "xfailed", "xpassed")
    counts = {kind: len(terminalreporter.stats[kind]) for kind in kinds if terminalreporter.stats.get(kind)}
    Path(config.getoption("counts")).write_text(json.dumps(counts))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
