"""Process of a script: runs it as ``python script.py`` would, from its first line to its end."""

from __future__ import annotations
import __future__

import ast
import functools
import importlib.machinery
import importlib.util
import operator
import os
import socket
import sys
from pathlib import Path
from types import CodeType, ModuleType, TracebackType
from typing import Any, NoReturn

from ...app import App
from ...errors import ErrorInfo
from ...system import crash_stacks, lifeline, open_files, prctl, stackdump
from ...wire import fds as fd_packets
from ...wire import messages as m
from .. import child
from ..app_logging import AppLogging
from ..import_hooks import HANDING_OVER, watched_imports
from ..logs import DropCount, LogChannel
from .script_file import Script
from .script_handover import ScriptHandover, open_handover

__all__ = ["run"]

LOG_PATIENCE = 1.0
"""Seconds that the script waits for room in its log channel, when the supervisor does not read it."""

_OURS = str(Path(__file__).parents[2])
_FEATURES = [getattr(__future__, name) for name in __future__.all_feature_names]
_FUTURES = functools.reduce(operator.or_, (feature.compiler_flag for feature in _FEATURES))


def run(channel: socket.socket, lifeline_fd: int, log_fd: int) -> None:
    """Run the script, and return when its last line has run. An error or an exit of the script ends the process."""
    lifeline.arm(lifeline_fd)
    prctl.set_name("gr:script")
    crash_stacks.enable()
    received = fd_packets.receive(channel, 0)
    if received is None:
        return
    configuration: m.Configure = m.decode(received[0], m.Configure)
    child.own_what_it_starts(configuration.pool_token)  # so that its descendants end with it, even as orphans
    open_files.restore(configuration.open_files)
    child.prepare_output()
    sys.path[:] = configuration.sys_path
    fd_packets.send(channel, m.encode(m.Loading(stackdump.install())))
    app_logging = AppLogging(LogChannel(log_fd, DropCount(), LOG_PATIENCE))
    handover = open_handover(channel, app_logging.install)
    with watched_imports(HANDING_OVER), app_logging.while_loading():
        try:
            _ScriptRun(configuration, handover).run()
        except Exception as error:
            _fail(error, handover)


class _ScriptRun:
    def __init__(self, configuration: m.Configure, handover: ScriptHandover) -> None:
        self._configuration = configuration
        self._handover = handover

    def run(self) -> None:
        sys.argv[:] = [self._configuration.app, *self._configuration.arguments]
        script = Script.find(self._configuration.app)
        if script is None or script.block is None or script.makes_an_app:
            self._nothing_to_run()
        self._handover.script = script
        namespace = vars(_main_module(script))
        if script.name is not None:
            sys.argv[0] = script.path
        above, block = _compiled(script)
        exec(above, namespace)
        if any(isinstance(value, App) for value in namespace.values()):
            self._nothing_to_run()
        self._handover.begin_block(namespace)
        exec(block, namespace)

    def _nothing_to_run(self) -> NoReturn:
        self._handover.send(m.NothingToRun())
        child.flush_stdio()
        os._exit(0)


def _main_module(script: Script) -> ModuleType:
    """Make the module ``__main__`` of the script, as Python does. The present one belongs to this program."""
    module = ModuleType("__main__")
    module.__file__ = script.path
    module.__dict__["__cached__"] = None
    if script.name is None:
        module.__loader__ = importlib.machinery.SourceFileLoader("__main__", script.path)
        sys.path.insert(0, os.path.dirname(script.path))
    else:
        spec = importlib.util.find_spec(script.name)
        assert spec is not None
        module.__spec__, module.__loader__, module.__package__ = spec, spec.loader, spec.parent
    sys.modules["__main__"] = module
    return module


def _compiled(script: Script) -> tuple[CodeType, CodeType]:
    """Return the code before the main block, and the code from there on.

    Both have the same ``from __future__`` imports.
    """
    body = script.tree.body
    above = _compile(body[: script.block], script.path, 0)
    return above, _compile(body[script.block :], script.path, above.co_flags & _FUTURES)


def _compile(body: list[ast.stmt], path: str, flags: int) -> CodeType:
    code: CodeType = compile(ast.Module(body, []), path, "exec", flags=flags, dont_inherit=True)
    return code


def _fail(error: Exception, handover: ScriptHandover) -> NoReturn:
    """End as Python does after an uncaught exception. Greenroom's frames above the script are not shown."""
    shown = error.with_traceback(_of_script(error.__traceback__))
    if handover.has_handed_over or sys.excepthook is not sys.__excepthook__:
        sys.excepthook(type(shown), shown, shown.__traceback__)
    if not handover.has_handed_over:
        handover.send(m.LoadFailed(ErrorInfo.of(shown, limit=6000)))
    sys.exit(1)


def _of_script(traceback: TracebackType | None) -> TracebackType | None:
    frames: Any = traceback
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_OURS):
        frames = frames.tb_next
    return frames  # type: ignore[no-any-return]
