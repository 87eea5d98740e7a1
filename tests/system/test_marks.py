"""Marks of what a pool has started, where a session of one pool is the supervisor of another."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from greenroom.system import mark

OUTER, INNER, OTHER = "0123456789abcdef", "fedcba9876543210", "00000000000000ff"


@contextmanager
def started_by(*marks: tuple[str, int]) -> Iterator[int]:
    def put() -> None:
        for token, owner in marks:
            mark.put(token, owner)

    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=put) as process:  # noqa: PLW1509
        yield process.pid


def test_a_process_has_an_owner_in_each_pool_around_it() -> None:
    with started_by((OUTER, 1001), (INNER, mark.ZYGOTES), (INNER, 1002), (INNER, 1003)) as pid:
        assert mark.owner_of(pid, INNER) == 1003
        assert mark.owner_of(pid, OUTER) == 1001
        assert mark.owner_of(pid, OTHER) is None
        assert [mark.is_on(pid, token) for token in (INNER, OUTER, OTHER)] == [True, True, False]
    assert mark.OWNER_VARIABLE not in os.environ
