"""Trials of the kernel features that Greenroom needs. A trial uses the feature; it does not look up a version.

A trial returns the fault in a few words, or an empty text if the feature works. :func:`psi` and
:func:`shm_free_mb` read a state instead.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

from . import prctl, proc

__all__ = ["lifeline", "memfd", "pidfd", "psi", "shm_free_mb", "smaps_rollup", "subreaper", "walls"]

_PATIENCE = 10.0
"""Seconds for an interpreter to start, and for a signal to arrive."""

_ON_A_LIFELINE = (
    "import os, signal, sys; from greenroom.system import lifeline; lifeline.arm(int(sys.argv[1])); "
    "os.write(1, b'armed'); signal.pause()"
)


def pidfd() -> str:
    """Try to watch and signal a process by an fd (Linux 5.3), and to await its exit (5.4)."""
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
    """Try to adopt orphans. This process stays a subreaper."""
    try:
        prctl.set_child_subreaper()
    except OSError as error:
        return f"{error}"
    return ""


def lifeline() -> str:
    """Try to have the kernel kill a process when the other end of its lifeline closes (F_SETSIG)."""
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


def walls() -> dict[str, str]:
    """Try the walls around sessions. Return the cause for each wall that is missing."""
    command = [sys.executable, "-m", "greenroom.zygote.wall_trial"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=4 * _PATIENCE, check=False)
    try:
        return dict(json.loads(done.stdout))
    except ValueError:
        return {"all": f"the trial failed: {done.stderr.decode(errors='replace')[-500:]}"}


def psi(root: Path = Path("/")) -> bool:
    """Return whether the kernel reports waits for memory and CPU (pressure stall information)."""
    try:
        return "some avg10=" in (root / "proc/pressure/memory").read_text()
    except OSError:
        return False


def shm_free_mb(folder: Path = Path("/dev/shm")) -> float | None:
    """Return the free space (MiB) of shared memory; ``None`` if the folder is missing or not writable."""
    try:
        room = os.statvfs(folder)
    except OSError:
        return None
    return room.f_bavail * room.f_frsize / 2**20 if os.access(folder, os.W_OK) else None


def _is_readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], _PATIENCE)[0])
