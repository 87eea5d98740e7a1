"""Thread search: the zygote has a traced process load the app again, to find the code that starts native threads."""

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
"""Factor by which a traced load may take longer than the first load."""
_LEAST, _LONGEST = 15.0, 30.0
"""Limits of a search in seconds. A new interpreter also takes time to start."""
_SHARE = 0.5
"""Largest part of the load's remaining time for a search. A zygote that is late cannot report why the app was
refused."""


@dataclass(frozen=True, slots=True)
class Start:
    """Surroundings of the zygote, before the app changed them."""

    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    folder: str = field(default_factory=os.getcwd)


def time_for(loaded_in: float, left: float) -> float:
    """Return the seconds for a search.

    The first load took ``loaded_in`` seconds, and ``left`` seconds remain for the load.
    """
    return min(max(_LEAST, _SLOWER * loaded_in), _LONGEST, _SHARE * left)


def search(configuration: m.Configure, start: Start, seconds: float) -> list[tuple[str, str]]:
    """Return the name and origin of each native thread that came in a second load.

    Errors of the search come through.
    """
    import subprocess  # imported here, since only a refused zygote needs it

    flags = sys.orig_argv[1 : sys.orig_argv.index("-m")]
    with open(os.memfd_create("configuration"), "wb+", buffering=0) as file:  # a full pipe would block
        file.write(m.encode(configuration))
        file.seek(0)
        process = subprocess.Popen(
            [sys.executable, *flags, "-m", f"{__package__}.thread_probe", str(os.getpid())],
            stdin=file,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=start.environment,
            cwd=start.folder,
        )
    with process:  # the end of this block waits for the process
        try:
            assert process.stdout is not None
            lines = _read(process.stdout, time.monotonic() + seconds).splitlines()
        finally:
            process.kill()
    found: list[Any] = json.loads(lines[-1]) if lines else []
    return [(str(name), str(origin)) for name, origin in found]


def _read(pipe: IO[bytes], give_up: float) -> bytes:
    """Read whole lines until end of file, or until ``give_up`` on the monotonic clock."""
    data = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while selector.select(max(0.0, give_up - time.monotonic())):
            chunk = os.read(pipe.fileno(), 65536)
            if not chunk:
                break
            data += chunk
    return data[: data.rfind(b"\n") + 1]
