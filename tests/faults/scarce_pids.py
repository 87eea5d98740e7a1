"""A bound on the number of processes, for whoever is put under it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["pids_cgroup"]


@contextmanager
def pids_cgroup() -> Iterator[Path]:
    """A cgroup of its own that bounds the number of processes: RLIMIT_NPROC does not bind root."""
    parent = Path("/sys/fs/cgroup/pids")
    if not parent.is_dir():
        parent = Path("/sys/fs/cgroup")
        control = parent / "cgroup.subtree_control"
        if not control.exists() or "pids" not in control.read_text():
            pytest.skip("there is no pids controller to bound the number of processes with")
    group = parent / f"greenroom-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made to bound the number of processes with: {error}")
    try:
        yield group
    finally:
        group.rmdir()
