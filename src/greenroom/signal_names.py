"""Names and numbers of signals, for modules that decide and never send a signal."""

from __future__ import annotations

import signal

__all__ = ["ASK_TO_END", "CRASHES", "DUMP", "SIGKILL", "SIGSTOP", "signal_name"]

SIGKILL, SIGSTOP = int(signal.SIGKILL), int(signal.SIGSTOP)
DUMP = int(signal.SIGRTMIN) + 7
"""Signal that asks a process to write its stacks."""
ASK_TO_END = tuple(int(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT))
"""Signals by which an operator or a program asks a process to end."""

CRASHES = tuple(int(number) for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE))
"""Signals that end a process when its native code crashes."""


def signal_name(number: int) -> str:
    """Return the name of a signal, such as SIGSEGV."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
