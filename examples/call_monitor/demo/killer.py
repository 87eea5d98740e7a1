"""For `--kill`: ends a call, an idle process and the zygote itself, with SIGKILL, at moments nobody chose."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Callable

from .api import WorkerApi
from .scene import Scene

Choice = Callable[[Scene], int | None]


async def kill_some(scene: Scene, api: WorkerApi, call_seconds: float) -> None:
    """Kill one of each kind, in a random order, while the calls run."""
    kinds: list[tuple[str, Choice]] = [("a call", _a_call), ("an idle process", _an_idle), ("the zygote", _the_zygote)]
    random.shuffle(kinds)
    while kinds:
        await asyncio.sleep(random.uniform(0.1, 0.25) * call_seconds)
        kind, choose = kinds[-1]
        pid = choose(scene) if scene.all_started else None
        if pid is not None and await _kill(pid, api):
            scene.note(f"--kill: killed {kind}, {pid}")
            kinds.pop()


def _a_call(scene: Scene) -> int | None:
    running = scene.running()
    return random.choice(running).pid if running else None


def _an_idle(scene: Scene) -> int | None:
    idle = scene.idle_pids()
    return random.choice(idle) if idle else None


def _the_zygote(scene: Scene) -> int | None:
    pid: int | None = scene.pool["zygote_pid"]
    return pid


async def _kill(pid: int, api: WorkerApi) -> bool:
    """Kill it if it is the worker's still: a number can be another's by now, a pidfd cannot."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        pool = await api.pool()
        if pid != pool["zygote_pid"] and pid not in [process["pid"] for process in pool["processes"]]:
            return False
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
