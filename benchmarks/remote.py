"""The harness's end of a driver: start it, ask it, and leave nothing of it behind."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks import machine
from benchmarks.images import COMMON_ENV, IMAGE_VARIABLE, IMAGES
from benchmarks.peers import Peer

_ROOT = Path(__file__).resolve().parent.parent
_PR_SET_CHILD_SUBREAPER = 36
_RPC_FD = "GREENROOM_BENCH_RPC_FD"


class Failed(Exception):
    """The driver could not do what it was asked: why, in a few words."""


def adopt_orphans() -> None:
    """Become the parent of whatever a peer leaves behind, so that it can be found and ended."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Remote:
    """A driver in a process of its own, for one peer and one image. A context manager: on leaving, the driver
    and every process below it are killed and reaped."""

    def __init__(self, peer: Peer, image: str) -> None:
        self.peer = peer
        self._image = image

    def __enter__(self) -> Self:
        command = self.peer.command()
        self._scratch = tempfile.TemporaryDirectory(prefix="greenroom-bench-")
        self._log = open(Path(self._scratch.name) / "log", "w+b")
        ours, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            command,
            cwd=_ROOT,
            env=self._environment(theirs.fileno()),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        self._link = ours
        self._lines = ours.makefile("rb")
        return self

    def _environment(self, fd: int) -> dict[str, str]:
        own = {
            "PYTHONPATH": os.pathsep.join([str(_ROOT), str(_ROOT / "src")]),
            "TMPDIR": self._scratch.name,
            IMAGE_VARIABLE: self._image,
            _RPC_FD: str(fd),
        }
        return os.environ | COMMON_ENV | IMAGES[self._image].env | own

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, do: str, *, within: float, **arguments: Any) -> dict[str, Any]:
        """One request and its answer. Raises `Failed` on an error, and when the driver ends or is late."""
        self._link.settimeout(within)
        try:
            self._link.sendall(json.dumps({"do": do, **arguments}).encode() + b"\n")
            line = self._lines.readline()
        except TimeoutError:
            raise Failed(f"not done within {within:.0f} s") from None
        except OSError as error:
            raise Failed(f"{error}{self._log_tail()}") from None
        if not line:
            raise Failed(f"the driver ended{self._log_tail()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Failed(str(answer["error"]))
        return answer

    def _log_tail(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1][:200]}" if lines else ""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _kill_everything_below_us()
        self._process.wait()
        self._lines.close()
        self._link.close()
        if kind is not None and (keep := os.environ.get("GREENROOM_BENCH_LOGS")):
            self._keep_log(Path(keep))
        self._log.close()
        self._scratch.cleanup()

    def _keep_log(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._log.seek(0)
        (folder / f"{self.peer.name}-{self._image}-{self.pid}.log").write_bytes(self._log.read())


def _kill_everything_below_us() -> None:
    """One driver runs at a time and we adopt orphans, so every process below us belongs to it."""
    deadline = time.monotonic() + 30
    while alive := machine.descendants(os.getpid()):
        for pid in alive:
            _kill(pid)
        _reap()
        if time.monotonic() > deadline:
            raise RuntimeError(f"these processes do not end: {alive}")
        time.sleep(0.02)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _reap() -> None:
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
