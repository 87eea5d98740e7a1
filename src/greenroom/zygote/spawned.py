"""``python -m greenroom.zygote.spawned ID CONTROL LOG STDOUT STDERR LIFELINE HEARTBEAT``.

A process without a zygote: it loads the app itself and is then what a forked child is.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import NoReturn

from ..errors import ErrorInfo
from ..job import JobProcess
from ..system import lifeline, open_files, stackdump, wakeup
from ..wire import messages as m
from ..wire.frames import FrameDecoder
from . import child, shared_objects, signals
from .app_logging import AppLogging
from .import_hooks import LOADING, change_defaults, watched_imports
from .loader import child_settings, facts_of, load_app, refuse_replaced_library, refuse_services
from .logs import LogChannel


def main() -> NoReturn:
    launch_id, *fds = sys.argv[1:8]
    del sys.argv[1:]
    inheritance = child.Inheritance(*map(int, fds))
    lifeline.arm(inheritance.lifeline)
    wakeup.harden_program()
    signals.reset_in_forks()
    for fd in inheritance:
        os.set_inheritable(fd, False)  # they were passed through exec, and must not go any further
    configuration = _receive_configuration(inheritance.control)
    open_files.restore(configuration.open_files)
    sys.path[:] = configuration.sys_path
    # Before the import: its output is this process's.
    page = child.settle(inheritance, launch_id, configuration.pool_token, [])
    child.prepare_output()
    app_logging = AppLogging(LogChannel(inheritance.log, page))
    change_defaults()
    try:
        with app_logging.while_loading(), watched_imports(LOADING):
            app = load_app(configuration.app, configuration.arguments, configuration.handed)
            if app.preload_fn is not None:
                app.preload_fn()
        refuse_replaced_library()
        refuse_services(app)
    except BaseException as error:  # SystemExit too: whatever user code raises is the answer
        _fail(inheritance.control, ErrorInfo.of(error))
    signals.reset_all()
    shared_objects.renew()
    proc = JobProcess(configuration.generation)
    settings, facts = child_settings(app, configuration), facts_of(app)
    channels = child.Channels(inheritance.control, page, app_logging, None)
    child.run(lambda: child.live(app, settings, proc, channels, facts))


def _receive_configuration(control: int) -> m.Configure:
    decoder = FrameDecoder()
    with socket.socket(fileno=os.dup(control)) as sock:
        while data := sock.recv(65536):
            for frame in decoder.feed(data):
                configuration: m.Configure = m.decode(frame, m.Configure)
                return configuration
    os._exit(1)  # the supervisor has gone


def _fail(control: int, error: ErrorInfo) -> NoReturn:
    with socket.socket(fileno=control) as sock:
        sock.sendall(m.encode(m.Hello(pid=os.getpid(), dump_fd=stackdump.install())))
        sock.sendall(m.encode(m.PrewarmFailed(error)))
    child.flush_stdio()
    os._exit(1)


if __name__ == "__main__":  # not in the pools of processes that a session spawns: they import this module anew
    main()
