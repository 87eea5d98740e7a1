"""Stacks of a crash: what is read from the memory, or the lines, of a process that can write anything there."""

from __future__ import annotations

import pytest

from greenroom.pool.shell.crash_lines import MOST, CrashLines
from greenroom.system.crash_stacks import MAX_BYTES, stacks_in

ABORTED = "Fatal Python error: Aborted\n\nCurrent thread 1\n  a\n"


@pytest.mark.parametrize(
    ("written", "stacks"),
    [
        (b"", None),
        (bytes(MAX_BYTES), None),
        (b"a word that is no stack", None),
        (b"\0Fatal Python error: behind the end", None),
        (ABORTED.encode() + bytes(100), ABORTED),
        (b"Fatal Python error: Segmentation fault\n\n" + ABORTED.encode(), ABORTED),
        (b"Fatal Python error: \xff\xc3", "Fatal Python error: \ufffd\ufffd"),
        (
            b"Fatal Python error: A\n\nThread 1\n  a\n\nThread 2\n  b\n\nCurrent thread 3\n  c\n\nThread 4\n  d\n",
            "Fatal Python error: A\n\nCurrent thread 3\n  c\n\nThread 1\n  a\n\nThread 2\n  b\n\nThread 4\n  d\n",
        ),
        (
            b"Fatal Python error: A\n\nThread 1\n  a\n\nCurrent thread 3\n  c\n",
            "Fatal Python error: A\n\nCurrent thread 3\n  c\n\nThread 1\n  a\n",
        ),
    ],
)
def test_the_last_stacks_in_the_memory_of_a_child(written: bytes, stacks: str | None) -> None:
    assert stacks_in(written) == stacks


def test_lines_from_the_last_fatal_error_on_are_kept() -> None:
    lines = CrashLines()
    lines.take("a line of the app")
    assert lines.text() is None
    for line in (
        "Fatal Python error: Aborted",
        "of a copy",
        "Fatal Python error: Aborted",
        "",
        "Current thread 1",
        "  a",
    ):
        lines.take(line)
    assert lines.text() == ABORTED


def test_the_lines_are_bounded() -> None:
    lines = CrashLines()
    lines.take("Fatal Python error: flood")
    for _ in range(1000):
        lines.take("s" * 1000)
    text = lines.text()
    assert text is not None
    assert len(text) <= MOST + 1
