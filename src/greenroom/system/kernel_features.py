"""Whether the kernel, and where it is run, offer what Greenroom stands on. Each is tried out, not looked up.

Every trial returns what is wrong in a few words, and an empty text if it works.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

from . import prctl, proc

__all__ = ["lifeline", "memfd", "pidfd", "psi", "shm_free_mb", "smaps_rollup", "subreaper"]

_PATIENCE = 10.0
"""Seconds for an interpreter to start, and for a signal to arrive."""

_ON_A_LIFELINE = (
    "import os, signal, sys; from greenroom.system import lifeline; lifeline.arm(int(sys.argv[1])); "
    "os.write(1, b'armed'); signal.pause()"
)


def pidfd() -> str:
    """Watching and signalling a process by an fd (5.3), and reaping by it (5.4)."""
    process = subprocess.Popen([sys.executable, "-S", "-E", "-c", "import signal; signal.pause()"])
    try:
        fd = os.pidfd_open(process.pid)
        try:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
            os.waitid(os.P_PIDFD, fd, os.WEXITED | os.WNOWAIT)
        finally:
            os.close(fd)
    except (OSError, AttributeError) as error:
        return f"{error}"
    finally:
        process.kill()
        process.wait()
    return ""


def subreaper() -> str:
    try:
        prctl.set_child_subreaper()
    except OSError as error:
        return f"{error}"
    return ""


def lifeline() -> str:
    """Whether the kernel kills a process when the other end of its lifeline closes (F_SETSIG)."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    with os.fdopen(writing, "wb") as write_end, os.fdopen(reading, "rb") as read_end:
        command = [sys.executable, "-c", _ON_A_LIFELINE, str(reading)]
        with subprocess.Popen(command, pass_fds=(reading,), stdout=subprocess.PIPE) as process:
            read_end.close()
            try:
                assert process.stdout is not None
                if not _is_readable(process.stdout.fileno()) or process.stdout.read(5) != b"armed":
                    return "a process could not arm its lifeline"
                write_end.close()
                status = process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                return "the kernel did not kill a process whose lifeline was cut"
            finally:
                process.kill()
    return "" if status == -signal.SIGKILL else f"a process whose lifeline was cut ended with {status}"


def memfd() -> str:
    try:
        os.close(os.memfd_create("greenroom-doctor"))
    except OSError as error:
        return f"{error}"
    return ""


def smaps_rollup() -> str:
    try:
        proc.memory_parts(os.getpid())
    except OSError as error:
        return f"{error}"
    return ""


def psi(root: Path = Path("/")) -> bool:
    """Whether the kernel tells how much is waited for memory and CPU (pressure stall information)."""
    try:
        return "some avg10=" in (root / "proc/pressure/memory").read_text()
    except OSError:
        return False


def shm_free_mb(folder: Path = Path("/dev/shm")) -> float | None:
    """``None`` if it is not there or cannot be written to."""
    try:
        room = os.statvfs(folder)
    except OSError:
        return None
    return room.f_bavail * room.f_frsize / 2**20 if os.access(folder, os.W_OK) else None


def _is_readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], _PATIENCE)[0])
