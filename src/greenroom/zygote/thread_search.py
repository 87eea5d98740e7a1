"""The zygote's search for who has started its native threads: it has the app loaded again by a traced process."""

from __future__ import annotations

import json
import os
import selectors
import sys
import time
from dataclasses import dataclass, field
from typing import IO, Any

from ..wire import messages as m

__all__ = ["Start", "search", "time_for"]

_SLOWER = 6
"""Times that a traced load may take as long as the first one."""
_LEAST, _LONGEST = 15.0, 30.0
"""Seconds for a search: a new interpreter takes its time too."""
_SHARE = 0.5
"""Of the time that the load has left. Who is late says nothing, and so hides why the app was refused."""


@dataclass(frozen=True, slots=True)
class Start:
    """How the zygote found the world, before the app changed it."""

    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    folder: str = field(default_factory=os.getcwd)


def time_for(loaded_in: float, left: float) -> float:
    """Return the seconds that a search may take, after a load of so many seconds."""
    return min(max(_LEAST, _SLOWER * loaded_in), _LONGEST, _SHARE * left)


def search(configuration: m.Configure, start: Start, seconds: float) -> list[tuple[str, str]]:
    """Return name and origin of each native thread that came in a second load. Raises what can go wrong."""
    import subprocess  # only here, in a zygote that is refused anyway

    flags = sys.orig_argv[1 : sys.orig_argv.index("-m")]
    with open(os.memfd_create("configuration"), "wb+", buffering=0) as order:  # a pipe could be full, and block
        order.write(m.encode(configuration))
        order.seek(0)
        process = subprocess.Popen(
            [sys.executable, *flags, "-m", f"{__package__}.thread_probe", str(os.getpid())],
            stdin=order,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=start.environment,
            cwd=start.folder,
        )
    with process:  # waits for it
        try:
            assert process.stdout is not None
            lines = _read(process.stdout, time.monotonic() + seconds).splitlines()
        finally:
            process.kill()
    told: list[Any] = json.loads(lines[-1]) if lines else []
    return [(str(name), str(origin)) for name, origin in told]


def _read(pipe: IO[bytes], give_up: float) -> bytes:
    """Read whole lines until the end, or until the time is over."""
    data = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while selector.select(max(0.0, give_up - time.monotonic())):
            chunk = os.read(pipe.fileno(), 65536)
            if not chunk:
                break
            data += chunk
    return data[: data.rfind(b"\n") + 1]
