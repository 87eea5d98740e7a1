"""Resource trackers of ``multiprocessing``, found by their signals and their open files.

A tracker removes the shared memory of dead processes, and then ends. Its command line would tell it, but a session
could hold up who reads that: the kernel waits for the memory map of the process, which a file system of the session's
own (FUSE) can keep locked. Signals and open files can be read at any time.
"""

from __future__ import annotations

import os
import signal
import stat
from contextlib import suppress

from . import proc

__all__ = ["is_resource_tracker"]

_DEAF_TO = 1 << (signal.SIGINT - 1) | 1 << (signal.SIGTERM - 1)
"""Signals that a tracker never takes. They are blocked before its program begins, and ignored before they are not."""
_MOST_FILES = 8
"""Files beyond the standard streams: its pipe, the stderr of its parent, and modules that it imports."""
_STDERR = 2


def is_resource_tracker(pid: int) -> bool:
    """Return whether a process is a resource tracker of ``multiprocessing``, or may soon be one. Never raises.

    A process that has the signals and files of a tracker is taken for one. While it executes its program, the files of
    its parent are still open. But then the parent goes on already, and may die (execve(2) after vfork(2)).
    """
    try:
        return proc.unheard_signals(pid) & _DEAF_TO == _DEAF_TO and (_has_few_files(pid) or not proc.has_begun(pid))
    except PermissionError:
        return True  # a process of another user, or with more capabilities, shows only its signals
    except OSError:
        return False  # the process has ended


def _has_few_files(pid: int) -> bool:
    """Return whether a process has few open files, and no pipe beyond its stderr that it writes.

    A tracker reads a pipe, and has closed it when it begins to clean up. Whoever writes such a pipe keeps a tracker
    from its clean-up.
    """
    with os.scandir(f"/proc/{pid}/fd") as entries:  # a process may have a million files, so this does not list all
        others = (entry for entry in entries if int(entry.name) > _STDERR)
        return not any(count >= _MOST_FILES or _is_own_output(pid, entry) for count, entry in enumerate(others))


def _is_own_output(pid: int, entry: os.DirEntry[str]) -> bool:
    """Return whether an open file is a pipe to write, and not the one of the process's stderr."""
    with suppress(FileNotFoundError):  # closed meanwhile
        # The permissions of the link itself are those of the open file (proc(5)).
        if entry.stat(follow_symlinks=False).st_mode & stat.S_IWUSR:
            target = os.readlink(entry.path)
            return target.startswith("pipe:") and target != os.readlink(f"/proc/{pid}/fd/{_STDERR}")
    return False
