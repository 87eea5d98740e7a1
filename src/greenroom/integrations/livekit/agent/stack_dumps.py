"""Stack dumps at SIGUSR1, of a job or of the inference process, as in LiveKit's own processes."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
from pathlib import Path
from types import FrameType
from typing import Any

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
    stacks = "\n".join(map(stack_of, _tasks()))
    _logger.info("SIGUSR1: the stacks are in a file in the folder that LK_DUMP_DIR names; the tasks are:\n%s", stacks)


def _tasks() -> set[asyncio.Task[Any]]:
    try:
        return asyncio.all_tasks()
    except RuntimeError:
        return set()  # no event loop runs, as in the inference process
