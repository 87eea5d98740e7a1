"""Thread probe: a program that loads an app a second time, with a tracer, to find the code that starts threads.

Usage: ``python -m greenroom.zygote.thread_probe PARENT``. PARENT is the pid of the zygote.

A native thread has no Python frame and often no name. So this program counts its threads after each call that took at
least a few microseconds. A higher count means that the call has started a thread. Python does not report all calls to a
profiler: most of the missing ones are calls of extension classes. So the program also counts after each line of the
app.

The program reads the zygote's configuration from stdin. When the program finds new threads, it writes one line of JSON
to stdout. The line is a list of pairs: the name of each living thread, and its origin. The last line is the valid one.
All processes that the app has started end with this program.
"""

from __future__ import annotations

import functools
import json
import linecache
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from ..system import mark, open_files, prctl, proc
from ..wire import messages as m
from ..wire.frames import FrameDecoder
from . import deaths
from .app_modules import is_of_app, line_of, module_name_of
from .import_hooks import BEFORE_FORK, change_defaults, watched_imports
from .loader import load_app

__all__ = ["Tracer"]

_TASKS = "/proc/self/task"
_SHORTEST_START = 4e-6
"""Shortest duration, in seconds, of a call that may have started a thread. A count of the threads takes as long as most
calls, and an app makes millions of calls."""
_LONGEST_LINE = 80
_PASSED_OVER = frozenset({"importlib", "_frozen_importlib", "_frozen_importlib_external", "greenroom", "runpy"})


def main() -> None:
    parent = int(sys.argv[1])
    del sys.argv[1:]
    prctl.set_parent_death_signal()
    if os.getppid() != parent:
        os._exit(1)  # the parent died before the call above, so its death sends no signal
    prctl.set_child_subreaper()
    configuration = _read_configuration()
    answer = _take_stdout()
    mark.put(configuration.pool_token)
    open_files.restore(configuration.open_files)
    sys.path[:] = configuration.sys_path
    change_defaults()
    tracer = Tracer(answer)
    try:
        with watched_imports(BEFORE_FORK), tracer:
            app = load_app(configuration.app, configuration.arguments, configuration.handed)
            if app.preload_fn is not None:
                app.preload_fn()
        tracer.report()
    finally:  # also when the app raises this time: the lines written before stay valid
        deaths.end_all_children()
        os._exit(0)  # any other exit would wait for threads of the app


def _read_configuration() -> m.Configure:
    for frame in FrameDecoder().feed(sys.stdin.buffer.read()):
        configuration: m.Configure = m.decode(frame, m.Configure)
        return configuration
    raise SystemExit("greenroom: no configuration was received")


def _take_stdout() -> int:
    """Return an fd for the answer, and redirect fds 0, 1 and 2 to ``/dev/null``.

    So no output of the app gets into the answer.
    """
    answer, null = os.dup(1), os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
    return answer


class Tracer:
    """Profiler and tracer, which records the call that has started each native thread."""

    def __init__(self, answer: int) -> None:
        self._answer = answer
        self._origins: dict[int, str] = {}

    def __enter__(self) -> None:
        # Local names, since the app may replace the functions of these modules.
        look, look_after, stat, clock = self._look, self._look_after, os.stat, time.perf_counter
        alone, last = stat(_TASKS).st_nlink, clock()

        def on_event(frame: FrameType, event: str, argument: Any) -> None:
            nonlocal last
            # The directory has a link for each thread, and two more. To read this number is the cheapest count.
            if clock() - last > _SHORTEST_START and stat(_TASKS).st_nlink != alone:
                look(frame, event, argument)
            last = clock()

        def on_call(frame: FrameType, event: str, argument: Any) -> Callable[..., Any] | None:
            if not _is_of_app(module_name_of(frame)):
                return None
            line = frame.f_lineno

            def on_line(frame: FrameType, event: str, argument: Any) -> Callable[..., Any]:
                nonlocal line, last
                if clock() - last > _SHORTEST_START and stat(_TASKS).st_nlink != alone:
                    look_after(frame, line)
                line, last = frame.f_lineno, clock()
                return on_line

            return on_line

        sys.setprofile(on_event)
        sys.settrace(on_call)

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)
        sys.setprofile(None)

    def report(self) -> None:
        """Write a line with the threads that live now, and their origins."""
        names = proc.thread_names()
        found = [(name, self._origins[task]) for task, name in sorted(names.items()) if task in self._origins]
        os.write(self._answer, (json.dumps(found) + "\n").encode())

    def _look(self, frame: FrameType, event: str, argument: Any) -> None:
        # A frame that has just begun has run no code yet. So the call belongs to its caller.
        begun = frame.f_back if event == "call" else frame
        self._note(lambda: _origin(begun, argument if event == "c_return" else None))

    def _look_after(self, frame: FrameType, line: int) -> None:
        self._note(lambda: _origin_in_line(frame, line))

    def _note(self, origin: Callable[[], str]) -> None:
        come = set(map(int, os.listdir(_TASKS))) - self._origins.keys() - {os.getpid()}
        come -= {thread.native_id for thread in threading.enumerate()}  # the first load records these
        if come:
            self._origins.update(dict.fromkeys(come, origin()))
            self.report()


_is_of_app = functools.cache(is_of_app)  # called for each call of a Python function


def _origin_in_line(frame: FrameType, line: int) -> str:
    file = frame.f_code.co_filename
    text = linecache.getline(file, line, frame.f_globals).strip()
    return f"{file}, line {line}, in {frame.f_code.co_name}: {text[:_LONGEST_LINE]}"


def _origin(frame: FrameType | None, c_function: Any) -> str:
    """Name the line of the app that led to the thread, and the function that this line called.

    If a function of another package has started the thread, name that function as well.
    """
    frames = list(_of_interest(frame))
    own = next((index for index, each in enumerate(frames) if is_of_app(module_name_of(each))), len(frames) - 1)
    inner = [_name_of(each) for each in frames[:own]]
    if c_function is not None and getattr(c_function, "__module__", None) != "_imp":  # frames show an import
        inner.insert(0, _name_of_c_function(c_function))
    line = f"{line_of(frames[own])}, in {frames[own].f_code.co_name}" if frames else "an unknown line"
    if not inner:
        return line
    nearest, called = inner[0], inner[-1]
    through = "" if _package_of(nearest) == _package_of(called) else f"{nearest}, by way of "
    return f"{through}{called} ({line})"


def _package_of(name: str) -> str:
    return name.removeprefix("the import of ").partition(".")[0]


def _of_interest(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        package = module_name_of(frame).partition(".")[0]
        if package not in _PASSED_OVER and frame.f_globals is not globals():
            yield frame
        frame = frame.f_back


def _name_of(frame: FrameType) -> str:
    module, name = module_name_of(frame), frame.f_code.co_qualname
    return f"the import of {module}" if name == "<module>" else f"{module}.{name}"


def _name_of_c_function(function: Any) -> str:
    name = str(getattr(function, "__qualname__", function))
    module = getattr(function, "__module__", None)
    if not isinstance(module, str):  # a method has no module name
        owner = getattr(function, "__self__", None)
        module = (owner if isinstance(owner, type) else type(owner)).__module__
    return f"{module}.{name}"


if __name__ == "__main__":
    main()
