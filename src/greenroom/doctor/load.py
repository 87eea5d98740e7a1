"""One load of the app in a fresh interpreter, as in a zygote: its costs, and its leftovers."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from typing import IO, Any

from ..errors import AppLoadError
from ..options import PoolOptions
from ..pool import Invocation
from ..pool.core.stalls import FULL_DUMP, DumpPatience, Sample
from ..pool.shell.interpreters import child_environment, interpreter_flags
from ..pool.shell.watch import sample_of
from ..system import stackdump
from ..system.heartbeat import Beats
from ..zygote import deaths
from . import importtime, probe
from .facts import LoadFacts

__all__ = ["load_once"]

_MOST_PACKAGES = 8
_LAST_LINES = 15


def load_once(app: str, options: PoolOptions, invocation: Invocation, handed: dict[str, Any] | None) -> LoadFacts:
    """Load the app. Raises :class:`AppLoadError` if the app does not load within ``preload_timeout``.

    ``handed`` is the data that the app's script has handed over, if the app has a script. The call blocks. Output of
    the app is discarded. If the app ends the interpreter, the error has the last lines of stderr.
    """
    # Append mode, since both processes share one file offset. Otherwise the interpreter would write at the current
    # read position of this process.
    with tempfile.TemporaryFile("a+", encoding="utf-8", errors="backslashreplace") as log:
        answer = _run(app, invocation, handed, options, log)
        log.seek(0)
        lines = log.read().splitlines()
    if answer is None:
        raise AppLoadError(f"the interpreter ended while it loaded the app. Its last lines:\n{_last(lines)}")
    if "error" in answer:
        raise AppLoadError(_explained(answer["error"]))
    return _facts(answer, lines)


def _run(app: str, invocation: Invocation, handed: dict[str, Any] | None, options: PoolOptions, log: IO[str]) -> Any:
    timeout = options.preload_timeout
    token = secrets.token_hex(8)
    reading, writing = os.pipe2(os.O_CLOEXEC)
    far_lifeline, near_lifeline = os.pipe2(os.O_CLOEXEC)
    fds = (writing, far_lifeline)
    command = [sys.executable, *interpreter_flags(), "-X", "importtime", "-m", probe.__name__, *map(str, fds)]
    with os.fdopen(reading) as pipe, os.fdopen(near_lifeline, "wb"):
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=log,
                pass_fds=fds,
                env=child_environment(token),
                text=True,
                start_new_session=True,
            )
        finally:
            for fd in fds:
                os.close(fd)
        request = {
            "app": app,
            "arguments": invocation.arguments,
            "handed": handed,
            "token": token,
            "sys_path": [path or os.getcwd() for path in sys.path],
            "start_method": options.start_method,
            "allow_threads": options.allow_threads,
        }
        try:
            _send(process, request)
            _await_begin(process, log, timeout)
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            stacks = _stacks(process, log)
            raise AppLoadError(
                f"the app did not load within preload_timeout ({timeout:g} s). Its stacks:\n{stacks}"
            ) from None
        finally:
            process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
            deaths.end_orphans(token)  # processes of the app that the interpreter could not end itself
        text = pipe.read()
    return json.loads(text) if text else None


def _send(process: subprocess.Popen[str], request: dict[str, Any]) -> None:
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # the interpreter has ended; its log has the cause
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()


def _await_begin(process: subprocess.Popen[str], log: IO[str], timeout: float) -> None:
    """Wait until the interpreter begins to load the app. Raises :class:`subprocess.TimeoutExpired`."""
    give_up = time.monotonic() + timeout
    while process.poll() is None and probe.BEGIN not in _from(0, log):
        if time.monotonic() > give_up:
            raise subprocess.TimeoutExpired(process.args, timeout)
        time.sleep(0.01)


def _stacks(process: subprocess.Popen[str], log: IO[str]) -> str:
    """Return the stacks of the interpreter, which a handler in C writes to the log."""
    begin = log.seek(0, os.SEEK_END)
    stackdump.request(process.pid)
    patience = DumpPatience(FULL_DUMP)
    while not stackdump.is_complete(dump := _from(begin, log)) and not patience.ends_with(_sample(process.pid)):
        time.sleep(0.005)
    return dump.rstrip() or "(no stacks were written)"


def _sample(pid: int) -> Sample:
    return sample_of(pid, time.monotonic(), Beats(0, 0, 0))


def _from(begin: int, log: IO[str]) -> str:
    log.seek(begin)
    return log.read()


def _facts(answer: dict[str, Any], lines: list[str]) -> LoadFacts:
    begin = lines.index(probe.BEGIN) + 1
    end = lines.index(probe.END, begin)
    imports = lines[begin:end]
    texts: dict[str, Any] = {
        name: tuple(answer.pop(name)) for name in ("threads", "allowed_threads", "fds", "children")
    }
    return LoadFacts(
        **answer,
        **texts,
        modules=importtime.modules_in(imports),
        packages=importtime.costs(imports, most=_MOST_PACKAGES),
    )


def _explained(error: dict[str, str]) -> str:
    """Return the text of an error. Errors of user code have a traceback, errors of Greenroom need none."""
    is_own = error["type"] == f"{AppLoadError.__module__}.{AppLoadError.__qualname__}"
    return error["message"] if is_own else f"{error['type']}: {error['message']}\n{error['traceback'].rstrip()}"


def _last(lines: list[str]) -> str:
    output = [line for line in lines if line and not line.startswith("import time:") and line != probe.BEGIN]
    return "\n".join(output[-_LAST_LINES:]) or "(no output)"
