"""The worker under soak: ``greenroom start``, started again when it has ended, as systemd would."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.hostile import processes
from greenroom.system import prctl, proc

from . import variants
from .account import Violation
from .plans import JOB_TIMEOUT
from .worker_log import WorkerLog

__all__ = ["Life", "Worker"]

IDLE = 4
OPTIONS = {
    "num-idle-processes": IDLE,
    "max-jobs": 24,
    "job-timeout": JOB_TIMEOUT,
    "stall-timeout": 5,
    "shutdown-timeout": 5,
    "cleanup-timeout": 12,
    "prewarm-timeout": 10,
    "preload-timeout": 60,
    "memory-limit-mb": 250,
    "idle-ttl": 5,
    "drain-timeout": 3,
    "rate-limit": 100000,
    "log-format": "json",
    "livekit-agent-name": "soak",
}
APP = ("agent.py", "livekit_agent.py", "ledger_lines.py")
SERVES_SECONDS = 90.0
STOP_SECONDS = 60.0
GONE_SECONDS = 10.0
"""After the supervisor's death all that it had started must be gone by then (law 6). It takes 0.1 s or so; the rest is
for a machine that is busy with the soak."""


@dataclass(slots=True)
class Life:
    """One life of the worker."""

    pid: int
    began: float
    memory_at_start_mb: float = 0.0
    memory_at_end_mb: float = 0.0
    memory_peak_mb: float = 0.0


class Worker:
    """Runs until ``close``; what it has started carries a mark."""

    def __init__(self, folder: Path, environment: dict[str, str], log_copy: Path) -> None:
        self.folder = folder
        self.ledger = folder / "ledger"
        self.ledger.touch()
        self.run = f"soak-{secrets.token_hex(8)}"
        """The beginning of the names of all shared memory that its jobs make."""
        self.mark = f"SOAK_RUN={self.run}"
        """In the environment of all that it starts."""
        self.log_copy = log_copy
        self.log: WorkerLog
        self.lives: list[Life] = []
        self.longest_gone = 0.0
        """Seconds from the supervisor's death until nothing of it was left, at most."""
        self.hold_ups: list[tuple[float, float]] = []
        """When the worker said that its event loop had been held up, and for how long."""
        self.longest_wait = 0.0
        """Seconds that the supervisor waited for a CPU between two samples, at most: no fault of its own."""
        self._waited = 0.0
        self._environment = environment
        self._port = _free_port()
        self._process: subprocess.Popen[bytes]
        self._is_agent = "LIVEKIT_URL" in environment
        for name in APP:
            shutil.copy(Path(__file__).with_name(name), folder / name)
        variants.write_good(folder, 0)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def life(self) -> Life:
        return self.lives[-1]

    @property
    def has_ended(self) -> int | None:
        return self._process.poll()

    async def start(self, **options: object) -> None:
        """Start it, and return when it serves. Raises :class:`Violation` if it does not."""
        name, _, value = self.mark.partition("=")
        kept = {key: each for key, each in os.environ.items() if not key.startswith(("GREENROOM_", "LIVEKIT_"))}
        settings = OPTIONS | {"port": self._port} | {key.replace("_", "-"): value for key, value in options.items()}
        self._process = subprocess.Popen(
            [Path(sys.executable).with_name("greenroom"), "start", "agent.py",
             *(text for key, value in settings.items() for text in (f"--{key}", str(value)))],
            cwd=self.folder,
            env={**kept, **self._environment, name: value, "GREENROOM_APP_LEDGER": str(self.ledger),
                 "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, bufsize=1 << 20,
            # However this process ends, the worker does too.
            preexec_fn=prctl.set_parent_death_signal,  # noqa: PLW1509  (it takes no lock)
        )  # fmt: skip
        assert self._process.stderr is not None
        self.lives.append(Life(self.pid, time.time()))
        self._waited = 0.0
        self.log = WorkerLog(self._process.stderr, self.log_copy, self.hold_ups)
        give_up = time.monotonic() + SERVES_SECONDS
        while not (self.log.is_serving and (self.log.is_registered or not self._is_agent)):
            if self.has_ended is not None or time.monotonic() > give_up:
                raise Violation([f"the worker does not serve (exit code {self.has_ended}):\n{self.log.tail}"])
            await asyncio.sleep(0.02)

    def sample(self) -> None:
        """Note how much memory it has."""
        with suppress(OSError):
            before, (_, self._waited) = self._waited, proc.schedule(self.pid)
            self.longest_wait = max(self.longest_wait, self._waited - before) if before else self.longest_wait
            self.life.memory_at_end_mb = memory_mb(self.pid)
            self.life.memory_at_start_mb = self.life.memory_at_start_mb or self.life.memory_at_end_mb
            self.life.memory_peak_mb = processes.peak_mb(self.pid)

    # --- its end -----------------------------------------------------------------------------------

    async def kill(self) -> list[str]:
        """Kill it as the kernel's OOM killer would; returns what is left of it after the bound of law 6."""
        self.sample()
        self._process.kill()
        return await self.ended()

    async def ended(self) -> list[str]:
        """Wait until it has ended, and then for all that it had started; returns what is left then."""
        code = await asyncio.to_thread(self._process.wait, STOP_SECONDS)
        died = time.monotonic()
        while left := self._left():
            if time.monotonic() - died > GONE_SECONDS:
                break
            await asyncio.sleep(0.02)
        self.longest_gone = max(self.longest_gone, time.monotonic() - died)
        await asyncio.to_thread(self.log.close)
        return [f"{pid} ({processes.command_of(pid)}), {GONE_SECONDS:g} s after exit code {code}" for pid in left]

    async def stop(self) -> tuple[int | None, list[str]]:
        """End it in good order; returns its exit code, and what is left of it."""
        self.sample()
        self._process.send_signal(signal.SIGTERM)
        left = await self.ended()
        return self.has_ended, left

    def _left(self) -> list[int]:
        # A process in whose environment the mark is, or what came to this process, its subreaper, because it is not.
        reap(self.strangers())
        return processes.marked(self.mark) or [pid for pid in self.strangers() if not _is_zombie(pid)]

    def strangers(self) -> list[int]:
        """Children of this process that it has not started: orphans of the worker's."""
        return [pid for pid in proc.children(os.getpid()) if pid not in self.known_children]

    known_children: set[int] = set()  # noqa: RUF012  (of the one process that soaks)

    async def close(self) -> None:
        """Kill it, if it still runs, and all that carries its mark."""
        if hasattr(self, "_process") and self.has_ended is None:
            await self.kill()
        for pid in processes.marked(self.mark):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def reap(pids: list[int]) -> None:
    """Reap what has come to this process, its subreaper, and is dead."""
    for pid in pids:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def _is_zombie(pid: int) -> bool:
    try:
        return proc.stat(pid).state == "Z"
    except OSError:
        return True


def memory_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * processes.PAGE_MB


def _free_port() -> int:
    """Find a port below the range that the kernel gives to clients: it must be free again at each restart."""
    first_of_clients = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = 10_000 + secrets.randbelow(first_of_clients - 10_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
