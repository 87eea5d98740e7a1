"""The demo as its user runs it: a real worker, real calls, with and without a terminal."""

import codecs
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import DEADLINE

ROOT = Path(__file__).parents[2]


class Demo:
    """A running demo, and what it has printed."""

    def __init__(self, process: subprocess.Popen[bytes], output: int) -> None:
        self.process = process
        self.printed = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")()  # a piece may end within a character
        self._output = output

    def read(self) -> bool:
        """Take more of what it prints; false at the end."""
        try:
            piece = os.read(self._output, 65536)
        except OSError:  # how a terminal ends
            return False
        self.printed += self._decoder.decode(piece)
        return bool(piece)

    def read_until(self, pattern: str) -> re.Match[str]:
        give_up = time.monotonic() + DEADLINE
        while not (found := re.search(pattern, self.printed)):
            assert time.monotonic() < give_up, self.printed
            assert self.read(), f"{pattern!r} was not printed:\n{self.printed}"
        return found

    def finish(self) -> int:
        while self.read():
            pass
        return self.process.wait(DEADLINE)


@contextmanager
def demo(
    *options: object, terminal: tuple[int, int] | None = None, env: dict[str, str] | None = None
) -> Iterator[Demo]:
    """Run it, on a pipe or on a terminal of so many columns and lines."""
    reader, writer = pty.openpty() if terminal else os.pipe()
    if terminal:
        columns, lines = terminal
        termios.tcsetwinsize(writer, (lines, columns))
    process = subprocess.Popen(
        [sys.executable, "-m", "examples.call_monitor", *map(str, options)],
        cwd=ROOT,
        env=os.environ | {"TERM": "xterm-256color"} | (env or {}),
        stdin=subprocess.DEVNULL,
        stdout=writer,
        stderr=writer,
    )
    os.close(writer)
    try:
        yield Demo(process, reader)
    finally:
        process.terminate()
        process.wait(DEADLINE)
        os.close(reader)


def rows(printed: str) -> dict[str, list[str]]:
    """The closing table's rows, by caller."""
    found = (line.split() for line in printed.splitlines() if re.match(r"\+1555\d{4} +(warm|cold)", line))
    return {caller: fields for caller, *fields in found}


def test_piped_demo_prints_plain_lines_and_every_report() -> None:
    with demo("--calls", 6, "--idle", 2, "--speed", 10) as run:
        assert run.finish() == 0, run.printed
    assert "\x1b" not in run.printed
    assert len(rows(run.printed)) == 6
    for _, _, outcome, reason, talk, *_ in rows(run.printed).values():
        assert (outcome, reason) == ("succeeded", "completed")
        assert float(talk) > 5
    assert "6 calls: 6 served, 0 killed from outside, 0 lost or failed." in run.printed
    assert {fields[0] for fields in rows(run.printed).values()} == {"warm", "cold"}


@pytest.mark.more
@pytest.mark.parametrize("terminal", [(120, 40), (80, 24), (30, 10)])
def test_demo_on_a_terminal(terminal: tuple[int, int]) -> None:
    with demo("--calls", 4, "--idle", 2, "--seconds", 6, "--speed", 2, terminal=terminal) as run:
        assert run.finish() == 0, run.printed
    drawn, _, closing = run.printed.rpartition("\x1b[2K")
    assert "● running" in drawn
    assert "4 served" in closing
    assert "\x1b[?25h" in run.printed, "the cursor is still hidden"


def test_killed_call_is_reported_as_killed_and_the_others_complete() -> None:
    with demo("--calls", 4, "--idle", 2, "--speed", 4) as run:
        victim = int(run.read_until(r"kill -9 (\d+) \(a call\)")[1])
        os.kill(victim, signal.SIGKILL)
        assert run.finish() == 0, run.printed
    caller = run.read_until(rf"(\+\d+) started \w+ in \d+ ms, pid {victim}\b")[1]
    reports = rows(run.printed)
    assert reports.pop(caller)[2:4] == ["killed", "signaled"]
    assert [fields[2] for fields in reports.values()] == ["succeeded"] * 3
    assert "4 calls: 3 served, 1 killed from outside, 0 lost or failed." in run.printed


def test_demo_kills_a_call_an_idle_process_and_the_zygote() -> None:
    with demo("--calls", 4, "--idle", 2, "--speed", 3, "--kill") as run:
        assert run.finish() == 0, run.printed
    for kind in ("a call", "an idle process", "the zygote"):
        assert f"--kill: killed {kind}, " in run.printed
    assert re.search(r"zygote \d+ has taken over", run.printed)
    assert "4 calls: 3 served, 1 killed from outside, 0 lost or failed." in run.printed


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_demo_ends_its_worker(signum: int) -> None:
    with demo("--calls", 3, "--idle", 2, "--speed", 0.01) as run:  # half an hour, if it waited for its calls
        run.read_until(r"(?s)(?:started \w+ in .*){3}")
        run.read_until(r"try, in another terminal")
        run.process.send_signal(signum)
        assert run.finish() == 130, run.printed
    assert "Interrupted: 3 calls were ended with the worker." in run.printed


def test_lost_worker_loses_the_calls_and_fails_the_demo() -> None:
    with demo("--calls", 3, "--idle", 2) as run:
        worker = int(run.read_until(r"worker (\d+) is ready")[1])
        run.read_until(r"try, in another terminal")
        os.kill(worker, signal.SIGKILL)
        assert run.finish() == 1, run.printed
    assert "3 calls: 0 served, 0 killed from outside, 3 lost or failed." in run.printed
    assert "The worker ended with exit code -9." in run.printed


def test_worker_that_does_not_start_is_told_with_its_own_words(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('this runtime is broken')")
    with demo("--calls", 1, env={"PYTHONPATH": str(tmp_path)}) as run:
        assert run.finish() == 1
    assert "error: the worker failed" in run.printed
    assert "this runtime is broken" in run.printed
    assert 'File "' not in run.printed.split("error:")[0]


def test_demo_itself_does_not_load_the_model() -> None:
    script = (
        "import sys, examples.call_monitor.demo.cli; "
        "print([name for name in ('numpy', 'onnxruntime') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
