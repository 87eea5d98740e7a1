"""Program of a process without a zygote: loads the app itself, and then does the work of a forked child.

Usage: ``python -m greenroom.zygote.spawned ID CONTROL LOG STDOUT STDERR LIFELINE HEARTBEAT``. ID is the process id in
the pool, and the others are fds.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import NoReturn

from ..errors import ErrorInfo
from ..job import JobProcess
from ..system import crash_stacks, lifeline, open_files, stackdump, wakeup
from ..wire import messages as m
from ..wire.frames import FrameDecoder
from . import child, shared_objects, signals, wall_trial
from .app_logging import AppLogging
from .child_main import Spawned
from .import_hooks import LOADING, change_defaults, watched_imports
from .loader import child_settings, facts_of, load_app, refuse_replaced_library, refuse_services
from .logs import LogChannel
from .walls import Walls


def main() -> NoReturn:
    process_id, *fds = sys.argv[1:8]
    del sys.argv[1:]
    inheritance = child.Inheritance(*map(int, fds))
    lifeline.arm(inheritance.lifeline)
    wakeup.harden_program()
    crash_stacks.enable()
    signals.reset_in_forks()
    for fd in inheritance:
        os.set_inheritable(fd, False)  # exec had to keep them, but the app's programs must not get them
    configuration = _receive_configuration(inheritance.control)
    open_files.restore(configuration.open_files)
    sys.path[:] = configuration.sys_path
    walls = Walls(configuration.walls, configuration.domain_problem)
    # Before the import, whose output belongs to this process.
    page = child.settle(inheritance, process_id, configuration.pool_token, [])
    # After the mark: if this process is killed meanwhile, the fork of the trial is known as the pool's, even dead.
    missing = wall_trial.raise_and_try(walls, configuration.outside)
    child.prepare_output()
    app_logging = AppLogging(LogChannel(inheritance.log, page))
    change_defaults()
    try:
        wall_trial.refuse(walls, missing)
        walls.raise_in_session()  # before the app has threads, which would stay outside
        with app_logging.while_loading(), watched_imports(LOADING):
            app = load_app(configuration.app, configuration.arguments, configuration.handed)
            if app.preload_fn is not None:
                app.preload_fn()
        refuse_replaced_library()
        refuse_services(app)
    except BaseException as error:  # SystemExit too: any error of the user's code is reported
        _fail(inheritance.control, ErrorInfo.of(error), missing)
    signals.reset_all()
    shared_objects.renew()
    proc = JobProcess(configuration.generation)
    settings, news = child_settings(app, configuration), Spawned(facts_of(app), missing)
    channels = child.Channels(inheritance.control, page, app_logging, None)
    child.run(lambda: child.live(app, settings, proc, channels, news))


def _receive_configuration(control: int) -> m.Configure:
    decoder = FrameDecoder()
    with socket.socket(fileno=os.dup(control)) as sock:
        while data := sock.recv(65536):
            for frame in decoder.feed(data):
                configuration: m.Configure = m.decode(frame, m.Configure)
                return configuration
    os._exit(1)  # the supervisor is gone


def _fail(control: int, error: ErrorInfo, missing_walls: dict[str, str] | None) -> NoReturn:
    with socket.socket(fileno=control) as sock:
        sock.sendall(m.encode(m.Hello(os.getpid(), stackdump.install(), missing_walls=missing_walls)))
        sock.sendall(m.encode(m.PrewarmFailed(error)))
    child.flush_stdio()
    os._exit(1)


if __name__ == "__main__":  # not in processes that a job spawns by multiprocessing, which import this module again
    main()
