"""Stack dumps at SIGUSR1, of a job or of the inference process, as in LiveKit's own processes."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from livekit.agents.ipc import proc_client

from ....zygote.job_run import stack_of

__all__ = ["dump_on_signal"]

_VARIABLE = "LK_DUMP_STACK_TRACES"
_logger = logging.getLogger("greenroom.livekit")


def dump_on_signal() -> None:
    """Handle SIGUSR1, unless the app handles it. The default action of the signal would end the process."""
    if not _is_caught(signal.SIGUSR1):
        signal.signal(signal.SIGUSR1, _dump)


def _is_caught(signum: int) -> bool:
    # signal.getsignal() does not know the handlers that faulthandler or C code has installed.
    mask = re.search(r"^SigCgt:\s*(\w+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return mask is not None and bool(int(mask[1], 16) >> (signum - 1) & 1)


def _dump(signum: int, frame: FrameType | None) -> None:
    if os.environ.get(_VARIABLE, "0").lower() in ("0", "false", "no"):
        _logger.warning("SIGUSR1: the stacks are not dumped; set %s=1 for the worker, and LK_DUMP_DIR", _VARIABLE)
        return
    proc_client._dump_stack_traces_impl()
    # LiveKit writes only the outermost frame of each task, which is Greenroom's in an entrypoint's task.
    stacks = "\n".join(_stacks(frame))
    _logger.info("SIGUSR1: the stacks are in a file in the folder that LK_DUMP_DIR names; the tasks are:\n%s", stacks)


def _stacks(interrupted: FrameType | None) -> Iterator[str]:
    """Return the stack of each task. That of the task that runs is the one that the signal has interrupted."""
    try:
        tasks, running = asyncio.all_tasks(), asyncio.current_task()
    except RuntimeError:
        return  # no event loop runs, as in the inference process
    if running is not None and interrupted is not None:
        yield f"{running!r}, most recent call last:\n{''.join(traceback.format_stack(interrupted))}"
        tasks.discard(running)
    yield from map(stack_of, tasks)
