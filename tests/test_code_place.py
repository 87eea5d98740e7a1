"""File and line of the app: what people look for in a traceback, and in the stacks of all threads."""

from __future__ import annotations

import asyncio
import os
import traceback

import pytest

import greenroom
from greenroom.code_place import Place, place_in_stacks, place_in_traceback

LIBRARY = "/venv/lib/python3.11/site-packages/db.py"
STANDARD = os.path.join(os.path.dirname(os.__file__), "selectors.py")
OWN = os.path.join(os.path.dirname(greenroom.__file__), "zygote/child_main.py")


def frames(*places: tuple[str, int], name: str = ", in f") -> str:
    return "".join(f'  File "{file}", line {line}{name}\n    code()\n' for file, line in places)


@pytest.mark.parametrize(
    ("places", "found"),
    [
        ([("/srv/agent.py", 12)], ("/srv/agent.py", 12)),
        ([("/srv/main.py", 3), ("/srv/agent.py", 12)], ("/srv/agent.py", 12)),
        ([(OWN, 1), ("/srv/agent.py", 12), (LIBRARY, 7), (STANDARD, 5)], ("/srv/agent.py", 12)),
        ([(OWN, 1), (LIBRARY, 7), (STANDARD, 5)], (LIBRARY, 7)),
        ([(OWN, 1), ("<frozen runpy>", 88), (STANDARD, 5)], (STANDARD, 5)),
        ([], None),
    ],
)
def test_a_traceback_has_the_line_of_the_app(places: list[tuple[str, int]], found: tuple[str, int] | None) -> None:
    text = f"Traceback (most recent call last):\n{frames(*places)}KeyError: 1\n"
    assert place_in_traceback(text) == found


def test_real_tracebacks_are_read() -> None:
    with pytest.raises(SyntaxError) as wrong:
        compile("x = 1\ndef broken(:\n", "/srv/agent.py", "exec")
    assert place_in_traceback("".join(traceback.format_exception(wrong.value))) == ("/srv/agent.py", 2)
    try:
        asyncio.run(_group())
    except ExceptionGroup as group:
        place = place_in_traceback("".join(traceback.format_exception(group)))
    assert place == (__file__, _raising_line())


async def _group() -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_raise())


async def _raise() -> None:
    raise KeyError("menu")


def _raising_line() -> int:
    return _raise.__code__.co_firstlineno + 1


MAIN = ("/srv/agent.py", 12)
THREAD = ("/srv/worker.py", 40)


@pytest.mark.parametrize(
    ("threads", "found"),
    [
        ([(True, [(STANDARD, 5), MAIN, (OWN, 1)])], MAIN),
        ([(False, [THREAD]), (True, [MAIN])], MAIN),
        ([(True, [THREAD]), (False, [MAIN])], THREAD),  # a thread has crashed
        ([(True, [(OWN, 9)]), (False, [THREAD]), (False, [MAIN])], MAIN),  # a thread of Greenroom has written them
        ([(False, [THREAD]), (True, [(STANDARD, 5), (OWN, 1)])], THREAD),  # the app runs in a thread of its own
        ([(True, [(STANDARD, 5), (OWN, 1)])], (STANDARD, 5)),
        ([], None),
    ],
)
def test_stacks_have_the_line_of_the_app(
    threads: list[tuple[bool, list[tuple[str, int]]]], found: tuple[str, int] | None
) -> None:
    sections = [
        f"{'Current thread' if is_current else 'Thread'} 0x00007f11 (most recent call first):\n"
        + "".join(f'  File "{file}", line {line} in f\n' for file, line in places)
        for is_current, places in threads
    ]
    text = "Fatal Python error: Aborted\n\n" + "\n".join(sections)
    assert place_in_stacks(text) == (None if found is None else Place(*found))
