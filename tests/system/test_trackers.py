"""Resource trackers, found without a look into their memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path

import pytest

from greenroom.system.trackers import is_resource_tracker

DEAF = "import signal; [signal.signal(each, signal.SIG_IGN) for each in (signal.SIGINT, signal.SIGTERM)]"
READ = "import sys; print('ready', flush=True); sys.stdin.read()"

PROGRAM = """
import multiprocessing, signal, sys
from greenroom.system.trackers import is_resource_tracker

def wait(connection):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    connection.send("ready")
    connection.recv()

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    ours, theirs = context.Pipe()
    process = context.Process(target=wait, args=(theirs,))
    process.start()
    ours.recv()
    print(is_resource_tracker(process.pid))
    ours.send("end")
    process.join()
"""


@contextmanager
def tracker() -> Iterator[int]:
    """A tracker of our own, whose program may not have begun yet."""
    made = resource_tracker.ResourceTracker()
    made.ensure_running()
    pid, pipe = made._pid, made._fd  # type: ignore[attr-defined]
    made._pid = made._fd = None  # type: ignore[attr-defined]  # nothing is left for its own clean-up
    try:
        yield pid
    finally:
        os.close(pipe)
        os.waitpid(pid, 0)


def test_a_tracker_is_one_from_its_first_moment() -> None:
    for _ in range(5):
        with tracker() as pid:
            looks = 0
            while b"resource_tracker" not in _command_line(pid) or not _ignores_signals(pid):
                assert is_resource_tracker(pid), os.listdir(f"/proc/{pid}/fd")
                looks += 1
            assert is_resource_tracker(pid)
            assert looks > 0
            os.kill(pid, signal.SIGTERM)
            assert is_resource_tracker(pid)


async def test_a_tracker_is_one_until_it_has_cleaned_up() -> None:
    """It closes its pipe first, and imports what it needs for a warning."""
    place = Path(f"/dev/shm/greenroom-test-{os.getpid()}")
    place.touch()
    made = resource_tracker.ResourceTracker()
    made.ensure_running()
    made.register(f"/{place.name}", "shared_memory")
    pid, pipe = made._pid, made._fd  # type: ignore[attr-defined]
    made._pid = made._fd = None  # type: ignore[attr-defined]
    os.close(pipe)
    while True:
        is_tracker, is_there = is_resource_tracker(pid), place.exists()
        if not is_there:
            break
        assert is_tracker
    os.waitpid(pid, 0)
    assert not is_resource_tracker(pid)


@pytest.mark.parametrize(
    ("code", "files"),
    [
        (READ, 1),  # takes the signals
        (f"{DEAF}; import os; kept = os.pipe(); {READ}", 1),
        (f"{DEAF}; import socket; kept = [socket.socket() for _ in range(1000)]; {READ}", 1),
    ],
    ids=["heeds signals", "pipe of its own", "many files"],
)
def test_another_program_is_none(code: str, files: int) -> None:
    read, write = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[read][:files],
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert not is_resource_tracker(process.pid)
        process.communicate()
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_process_of_multiprocessing_is_none(method: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(PROGRAM)
    done = subprocess.run([sys.executable, script, method], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def _command_line(pid: int) -> bytes:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read()


def _ignores_signals(pid: int) -> bool:
    with open(f"/proc/{pid}/status") as file:
        (line,) = (line for line in file if line.startswith("SigIgn:"))
    return bool(int(line.split()[1], 16) & 1 << (signal.SIGTERM - 1))
