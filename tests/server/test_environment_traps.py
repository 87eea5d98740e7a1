"""The command under environments that other programs survive: variables, closed streams, limits, a narrow ``/proc``."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import GREENROOM
from running_worker import RunningWorker

MakeApp = Callable[[str], str]

APP = """
import logging, tempfile

@app.preload
def preload(): print("vorgeladen ☎")

@app.entrypoint
async def entrypoint(ctx):
    print("Grüße ☎")
    logging.getLogger("app").info("héllo ☎")
    with tempfile.TemporaryFile() as file:
        return [await asyncio.to_thread(file.write, b"abc"), "☎"]
"""

ENVIRONMENTS: dict[str, dict[str, str | None]] = {
    "for debugging": {
        "PYTHONMALLOC": "debug",
        "PYTHONDEVMODE": "1",
        "PYTHONASYNCIODEBUG": "1",
        "PYTHONFAULTHANDLER": "1",
    },
    "for production": {
        "PYTHONOPTIMIZE": "2",
        "PYTHONUNBUFFERED": "1",
        "PYTHONHASHSEED": "1",
        "PYTHONSAFEPATH": "1",
        "PYTHONNOUSERSITE": "1",
        "PYTHONPYCACHEPREFIX": "/no/such/folder",
    },
    "of little": {"TMPDIR": "/no/such/folder", "TZ": "No/Such", "HOME": None, "PATH": ""},
    "in ASCII": {
        "PYTHONIOENCODING": "ascii",
        "LC_ALL": "POSIX",
        "LANG": "C",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONUTF8": "0",
    },
}


def environment(changes: dict[str, str | None]) -> dict[str, str]:
    merged = {**os.environ, **changes}
    return {name: value for name, value in merged.items() if value is not None}


async def serve_one(worker: RunningWorker) -> None:
    """Have one session run and be reported, and the worker end as it is told to."""
    report = await worker.report((await worker.start())["id"])
    assert (report["reason"], report["result"]) == ("completed", [3, "☎"])
    worker.signal(signal.SIGTERM)
    assert await worker.ends() == 0


@pytest.mark.parametrize("name", ENVIRONMENTS)
async def test_a_session_is_served_and_heard(make_app: MakeApp, name: str) -> None:
    changes = environment(ENVIRONMENTS[name])
    async with RunningWorker(make_app(APP), "--num-idle-processes", "1", env=changes) as worker:
        await serve_one(worker)
    for text in ("vorgeladen ☎", "Grüße ☎", "héllo ☎"):
        assert any(line.endswith(text) for line in worker.lines), text


class SilentWorker(RunningWorker):
    """One whose log cannot be read: where it listens is told to it."""

    def __init__(self, app: str, *wrapper: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            self._port = server.getsockname()[1]
        flags = ("--num-idle-processes", "1", "--port", str(self._port))
        super().__init__(app, *flags, wrapper=wrapper)

    async def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def serves(self) -> None:
        while self._process.returncode is None:
            try:
                if (await self.get("/readyz")).status == 200:
                    return
            except OSError:
                continue  # it does not listen yet
        raise AssertionError(f"it ended with exit code {self._process.returncode}")


@pytest.mark.parametrize("shell", ["2>&-", "<&- >&- 2>&-", ">/dev/full 2>/dev/full"])
async def test_nobody_hears_it(make_app: MakeApp, shell: str) -> None:
    app = APP + "\nassert os.path.samefile('/proc/self/fd/0', '/dev/null')"
    async with SilentWorker(make_app(app), "sh", "-c", f'exec "$@" {shell}', "sh") as worker:
        await worker.serves()
        standard = [os.readlink(f"/proc/{worker.pid}/fd/{fd}") for fd in (1, 2)]
        assert not [place for place in standard if "socket" in place or "memfd" in place or "eventpoll" in place]
        await serve_one(worker)


async def test_whoever_read_its_log_is_gone(make_app: MakeApp) -> None:
    code = (
        "import os, sys; r, w = os.pipe(); os.dup2(w, 2); os.closerange(r, w + 1); os.execvp(sys.argv[1], sys.argv[1:])"
    )
    async with SilentWorker(make_app(APP), sys.executable, "-c", code) as worker:
        await worker.serves()
        await serve_one(worker)


async def test_a_limit_on_the_size_of_files_is_told(make_app: MakeApp) -> None:
    """The memory of a heartbeat page, and of the stacks of a crash behind it, is a file to the kernel."""
    wrapper = ("sh", "-c", 'ulimit -f 0; exec "$@"', "sh")
    async with RunningWorker(make_app(APP), "--num-idle-processes", "1", wrapper=wrapper) as worker:
        await worker.logs(r"the limit on the size of files \(ulimit -f, LimitFSIZE=\)")
        worker.signal(signal.SIGTERM)
        assert await worker.ends() == 0


def in_narrow_proc() -> tuple[str, ...]:
    """Return what wraps a command so that ``/proc`` shows it processes alone, as under systemd's ProcSubset=pid."""
    narrow = 'mount -t proc -o subset=pid proc /proc && exec "$@"'
    command = ("unshare", "--mount", "sh", "-c", narrow, "sh")
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], check=False).returncode != 0:
        pytest.skip("no mount namespace can be made here (that takes root)")
    return command


async def test_a_proc_of_processes_alone_is_told_once(make_app: MakeApp) -> None:
    options = ("--num-idle-processes", "1", "--min-free-memory-mb", "128")
    async with RunningWorker(make_app(APP), *options, wrapper=in_narrow_proc()) as worker:
        assert (await worker.start())["id"]
        await worker.until("/pressure", lambda answer: answer.body["session_mb"] is not None or has_ended(answer))
        await serve_one(worker)
    assert len([line for line in worker.lines if "ProcSubset=pid" in line]) == 1


def has_ended(answer: Any) -> bool:
    return answer.body["running"] == 0


async def test_doctor_examines_an_app_in_a_proc_of_processes_alone(make_app: MakeApp, tmp_path: Path) -> None:
    wrapper = in_narrow_proc()
    app = make_app(APP)
    command = [*wrapper, GREENROOM, "doctor", app, "--processes", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "so the free memory is unknown" in done.stdout


@pytest.mark.parametrize("allocator", ["debug", "malloc"])
async def test_another_allocator_is_not_filled_up(allocator: str) -> None:
    """Else the zygote would look for the end of a pool that there is not, and take gigabytes."""
    code = "from greenroom.zygote import sharing; sharing.settle(); print(len(sharing._fillings))"
    command = [sys.executable, "-c", code]
    changes = {**os.environ, "PYTHONMALLOC": allocator}
    done = subprocess.run(command, env=changes, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1000
