"""Python interpreters that the supervisor starts: their start, their environment and their end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ...system import mark
from .channels import ZygoteChannels

__all__ = [
    "DEFAULT_ENVIRONMENT",
    "child_environment",
    "ending_of",
    "import_path",
    "interpreter_flags",
    "never_began",
    "pidfd_of",
    "start_interpreter",
]

DEFAULT_ENVIRONMENT = {
    # One thread for each job: many jobs run on one machine, and a zygote with several threads must not fork. OpenBLAS
    # (numpy) starts its threads at import; OpenMP (torch, scikit-learn) and MKL start theirs at the first computation.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OPENCV_FOR_THREADS_NUM": "1",
    # pandas imports pyarrow, whose allocator starts a thread at import: the thread returns memory to the kernel.
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    # onnxruntime 1.32 starts a telemetry thread at import; forked children then hang in normal exit.
    "ORT_DISABLE_TELEMETRY": "1",
}
"""Environment of the zygote and all its children. A variable of the supervisor's environment replaces one of these."""


def start_interpreter(module: str, ends: ZygoteChannels, token: str) -> tuple[subprocess.Popen[bytes], int]:
    """Start a module of Greenroom at the far ends of these channels. Return the process and its pidfd.

    The channels are closed if this raises, mostly ``OSError``.
    """
    fds = ends.far_channel, ends.far_lifeline, ends.far_log
    try:
        popen = subprocess.Popen(
            [sys.executable, *interpreter_flags(), "-m", module, *map(str, fds)],
            stdin=subprocess.DEVNULL,
            stdout=ends.far_stdout,
            stderr=ends.far_stderr,
            pass_fds=fds,
            env=child_environment(token),
            # setsid(2): a terminal's Ctrl-C goes only to the supervisor.
            start_new_session=True,
        )
        pidfd = pidfd_of(popen)
    except BaseException:
        ends.close()
        raise
    ends.close_far_ends()
    return popen, pidfd


def never_began(what: str, ending: str) -> str:
    """Return the error text for an interpreter that ended before it reported the load of the app."""
    folder = Path(__file__).parent.parent.parent
    return (
        f"{what} ended before it could load the app ({ending}). Its output is in the lines above. If this program "
        f"finds greenroom by its own sys.path (a PEX, a zipapp, a vendored folder), other interpreters do not find it: "
        f"set PYTHONPATH={folder}"
    )


def ending_of(popen: subprocess.Popen[bytes]) -> str:
    """Reap a dead process, and return a text about its end.

    This never waits: a debugger can hold the exit status of a process for any time. ``Popen`` reaps such a process
    later, when another one is started.
    """
    status = popen.poll()
    if status is None:
        return "unknown: a debugger holds its exit status"
    return f"signal {-status}" if status < 0 else f"exit code {status}"


def child_environment(token: str) -> dict[str, str]:
    """Return the environment of all processes that a pool starts."""
    return {**DEFAULT_ENVIRONMENT, **os.environ, mark.VARIABLE: token}


def import_path() -> list[str]:
    """Return the import path of this interpreter for others. Python ignores items of ``sys.path`` that are not text."""
    return [path or os.getcwd() for path in sys.path if isinstance(path, str)]


def interpreter_flags() -> list[str]:
    """Return the flags (-X, -W, -O …) of this interpreter. ``multiprocessing`` passes on the same flags."""
    return subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined,no-any-return]


def pidfd_of(popen: subprocess.Popen[bytes]) -> int:
    """Return a pidfd of a process. Raises ``OSError``; then the process is killed, because it cannot be watched."""
    try:
        return os.pidfd_open(popen.pid)
    except OSError:
        popen.kill()
        popen.wait()
        raise
