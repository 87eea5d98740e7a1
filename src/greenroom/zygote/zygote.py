"""Zygote: a single-threaded process that has loaded the app, and forks itself on request.

This code runs in the zygote. :mod:`greenroom.pool.shell.zygote_client` is the supervisor's side. A fork leaves this
module at once: a child goes on in :mod:`.child`, and a service in :mod:`.services`.
"""

from __future__ import annotations

import errno
import functools
import os
import select
import signal
import socket
import sys
import time
from contextlib import suppress
from typing import NoReturn

from ..app import App
from ..errors import AppLoadError, ErrorInfo
from ..job import JobProcess
from ..system import crash_stacks, huge_pages, lifeline, mark, open_files, prctl, proc, stackdump, wakeup
from ..wire import fds as fd_packets
from ..wire import messages as m
from ..wire.frames import Frame, FrameError
from . import (
    app_modules,
    child,
    deaths,
    exit_hooks,
    fork_safety,
    random_numbers,
    sharing,
    signals,
    thread_search,
    wall_trial,
)
from .app_logging import AppLogging
from .child_reaper import ChildReaper
from .executors import Executors
from .import_hooks import BEFORE_FORK, change_defaults, watched_imports
from .inherited_files import InheritedFiles, open_fds
from .loader import child_settings, facts_of, load_app, refuse_forks_of_numba, refuse_replaced_library, warnings_of
from .logs import DropCount, LogChannel
from .orphans import Orphans
from .services import Service, Services, become, listen, raw
from .thread_origins import ThreadOrigins
from .walls import Walls
from .warmup_run import warm_up_zygote

__all__ = ["FORK_ALARM", "Zygote"]

FORK_ALARM = 40.0
"""Seconds after which a fork that hangs ends the zygote. A fork may hang in a library's ``pthread_atfork`` handler.

The supervisor waits for a shorter time (``STARVED_FORK_TIMEOUT``, 30 s), also for a zygote that gets no CPU.
"""

LOG_PATIENCE = 1.0
"""Seconds that the zygote and its services wait for room in the log channel, if the supervisor does not read it."""


class Zygote:
    """Zygote of one generation: loads the app, forks children and reaps them.

    When the supervisor is gone, the zygote ends all processes of the pool. :meth:`run` is the only method that other
    code calls. It takes three steps, and then exits:

    1. Load the app, as the first message (``Configure``) says, and report the result.
    2. Serve: answer fork requests, reap, and start services, until the supervisor sends ``Stop`` or is gone.
    3. End all processes below this one.
    """

    def __init__(self, channel: socket.socket, lifeline_fd: int, log_fd: int) -> None:
        self._channel = channel
        self._lifeline_fd = lifeline_fd
        self._log_drops = DropCount()
        self._app_logging = AppLogging(LogChannel(log_fd, self._log_drops, LOG_PATIENCE))
        self._wakeup = signals.Wakeup()
        self._witness = signals.Witness()
        self._dump_fd = stackdump.install()
        self._marks_hold = False
        self._orphans: Orphans
        self._child_reaper: ChildReaper
        self._services = Services()
        self._listeners: dict[str, socket.socket] = {}  # by service
        self._exit_hooks = exit_hooks.ExitHooks()
        self._files: InheritedFiles
        self._executors: Executors
        self._app: App
        self._config: m.Configure
        self._child_settings: m.ChildSettings
        self._permit: fork_safety.Permit
        self._walls: Walls

    def run(self) -> NoReturn:
        prctl.set_child_subreaper()
        wakeup.harden_program()
        crash_stacks.enable()
        self._install_signal_handlers()
        signals.reset_in_forks()
        # An import of user code may hang in C code for ever. There is nothing to reap yet, so the kernel may kill this
        # process when the supervisor ends.
        lifeline.arm(self._lifeline_fd)
        code, has_served = 1, self._load()
        if has_served:
            code = 0 if self._serve_until_the_end() else 1
        is_last = has_served and code != 0  # the supervisor is gone
        exit_hooks.run_in_zygote(children_are_gone=is_last)
        deaths.end_all_children(spare_trackers=True)
        deaths.let_trackers_end(self._config.pool_token if is_last else None)
        deaths.end_all_children()
        if is_last:
            deaths.end_orphans(self._config.pool_token)
        child.flush_stdio()
        os._exit(code)

    def _install_signal_handlers(self) -> None:
        self._wakeup.install()
        signals.handle_group_signals(self._witness.note)

    # --- loading ---------------------------------------------------------------------------------

    def _load(self) -> bool:
        received = fd_packets.receive(self._channel, 0)
        if received is None:
            return False
        self._config = m.decode(received[0], m.Configure)
        self._marks_hold = mark.put(self._config.pool_token)
        open_files.restore(self._config.open_files)
        self._walls = Walls(self._config.walls, self._config.domain_problem)
        missing = wall_trial.raise_and_try(self._walls, self._config.outside)
        self._send(m.Loading(self._dump_fd, missing))
        try:
            wall_trial.refuse(self._walls, missing)
            loaded = self._load_app()
        except BaseException as error:  # SystemExit too: any error of the user's code is reported
            refusal = ErrorInfo.of(error, limit=6000)
            # Kill the processes of the app first: after the report, the supervisor may end this process at once.
            deaths.end_all_children()
            self._send(m.LoadFailed(refusal))
            return False
        # First: after the report, this process may have children, and must outlive the supervisor to end them.
        lifeline.only_wake(self._lifeline_fd)
        with suppress(BrokenPipeError, ConnectionResetError):  # the supervisor is gone, and _serve() will notice that
            self._send(loaded)
        return True

    def _load_app(self) -> m.Loaded:
        child.prepare_output()
        sys.path[:] = self._config.sys_path
        before, start = open_fds(), thread_search.Start()
        change_defaults()
        begin, began = time.monotonic(), time.time_ns()
        origins = ThreadOrigins()
        with (
            self._app_logging.while_loading(),
            watched_imports(BEFORE_FORK),
            origins.watching(),
            self._exit_hooks.watching(),
        ):
            self._app = load_app(self._config.app, self._config.arguments, self._config.handed)
            imported = time.monotonic()
            if self._app.preload_fn is not None:
                self._app.preload_fn()
            preloaded = time.monotonic()
        refuse_replaced_library()
        allowed = self._app.allow_threads.union(self._config.allow_threads)
        self._permit = fork_safety.Permit(allowed, self._app.prewarm_name, origins)
        if fork_safety.refusal(self._permit) is not None:
            self._search_for_threads(start, time.monotonic() - begin)
            refusal = fork_safety.refusal(self._permit)
            if refusal is not None:
                raise AppLoadError(refusal)
        refuse_forks_of_numba()
        # Not earlier: a native thread of the app would inherit this name from the thread that starts it.
        prctl.set_name("gr:zygote")
        signals.reset_all()  # the app may have replaced these handlers
        self._install_signal_handlers()
        self._orphans = Orphans(self._config.pool_token, marks_hold=self._marks_hold)
        self._child_reaper = ChildReaper(self._orphans, self._services, self._send)
        self._child_settings = child_settings(self._app, self._config)
        self._executors = Executors()  # before gc.freeze(): the collector lists no frozen objects
        digest = app_modules.digest_of(began)  # leaves holes in memory, which sharing.settle() then fills
        warm_up_zygote(self._child_settings)
        sharing.settle()
        image = m.ImageMemory(*huge_pages.arrange(self._config.huge_pages_seconds))
        self._files = InheritedFiles(before)
        services = _services_of(self._app)
        self._listeners = {name: listen(name, self._config.generation) for name in services}
        self._services.want(services, time.monotonic())
        warnings = warnings_of(self._config.handed) + self._files.warnings + random_numbers.warnings()
        if self._log_drops.dropped:
            warnings.append(
                f"{self._log_drops.dropped} records that the app logged while it loaded were dropped or cut"
            )
        facts = facts_of(self._app)
        return m.Loaded(imported - begin, preloaded - imported, image, warnings, facts, digest)

    def _search_for_threads(self, start: thread_search.Start, loaded_in: float) -> None:
        """Search for the origins of unexplained threads, so that the refusal can name these origins."""
        unknown = fork_safety.unexplained(self._permit)
        seconds = thread_search.time_for(loaded_in, self._config.preload_timeout - loaded_in)
        if not unknown:
            return
        try:
            self._permit.origins.learn(unknown, thread_search.search(self._config, start, seconds))
        except Exception as error:  # no error may hide the refusal
            print(f"greenroom: the search for the origin of {len(unknown)} threads failed: {error!r}", file=sys.stderr)

    # --- serving ---------------------------------------------------------------------------------

    def _serve_until_the_end(self) -> bool:
        """Serve, then end all processes below this one. Return whether the supervisor has asked for the end."""
        try:
            in_order = self._serve()
        except (BrokenPipeError, ConnectionResetError):
            in_order = False
        self._channel.close()  # not used any more; the search for children needs a free fd, and none may be left
        if in_order:
            # Exit hooks of preload end the processes that preload has started.
            deaths.end_all_children(self._orphans.of_preload)
        else:
            deaths.end_all_children(spare_trackers=True)
            deaths.end_orphans(self._config.pool_token, spare_trackers=True)
        return in_order

    def _serve(self) -> bool:
        """Fork and reap until the supervisor sends ``Stop`` (return true), or is gone (return false)."""
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        poll.register(self._wakeup.fd, select.POLLIN)
        while True:
            self._start_services()
            ready = dict(poll.poll(self._patience()))
            if self._wakeup.fd in ready:
                self._wakeup.clear()
            self._child_reaper.turn(has_news=self._wakeup.fd in ready)
            if self._channel.fileno() in ready:
                in_order = self._serve_one()
                if in_order is not None:
                    return in_order

    def _patience(self) -> float | None:
        """Return the milliseconds until the next task that no fd reports; ``None`` without such a task."""
        now = time.monotonic()
        waits = (self._services.seconds_to_next(now), self._child_reaper.seconds_to_next(now))
        seconds = [1000 * each + (each > 0) for each in waits if each is not None]
        return min(seconds, default=None)

    def _start_services(self) -> None:
        for name, service in self._services.due(time.monotonic()):
            child.flush_stdio()
            zygote = os.getpid()
            try:
                pid = _fork_with_alarm()
            except OSError as error:
                print(f"greenroom: the service {name} could not be forked: {error}", file=sys.stderr)
                self._services.failed(name, time.monotonic())
                continue
            if pid == 0:
                self._become_service(name, service, zygote)
            self._services.started(name, pid, time.monotonic())

    def _become_service(self, name: str, service: Service, zygote: int) -> NoReturn:
        listener = self._listeners.pop(name)
        self._part_with_zygote()
        self._app_logging.install(self._app.log_level)  # its records go into the zygote's channel
        child.own_what_it_starts(self._config.pool_token)  # before the walls, which let no mark be changed
        self._walls.raise_in_session()
        become(service, listener, self._services.pause(name), zygote=zygote, close=self._own_fds())

    def _part_with_zygote(self) -> None:
        """Make this fork independent: drop the zygote's exit hooks, and replace inherited files and executors."""
        self._exit_hooks.leave_to_zygote()
        self._files.renew()
        self._executors.renew()

    def _own_fds(self) -> list[int]:
        """Detach and return the fds that a forked process has to close."""
        listeners = [listener.detach() for listener in self._listeners.values()]
        return [self._channel.detach(), *self._wakeup.fds, self._dump_fd, self._lifeline_fd, *listeners]

    def _serve_one(self) -> bool | None:
        """Answer one request. Return true after ``Stop``, false if the supervisor is gone, else ``None``."""
        try:
            received = fd_packets.receive(self._channel, m.CHILD_FDS)
        except fd_packets.FdsLost as error:
            self._refuse(error)
            return None
        except FrameError as error:
            # Packets have boundaries, so the next packet can still be read. An error here would end the zygote.
            print(f"greenroom: the zygote ignores a request: {error}", file=sys.stderr)
            return None
        return False if received is None else self._obey(*received)

    def _obey(self, frame: Frame, fds: list[int]) -> bool | None:
        try:
            message = m.decode(frame, m.Fork | m.Stop)
            if isinstance(message, m.Stop):
                return True
            if len(fds) != m.CHILD_FDS:
                raise FrameError(f"Fork with {len(fds)} fds instead of {m.CHILD_FDS}")
            self._fork(message, fds)
        except FrameError as error:
            print(f"greenroom: the zygote ignores a request: {error}", file=sys.stderr)
        finally:
            for fd in fds:
                os.close(fd)
        return None

    def _refuse(self, error: fd_packets.FdsLost) -> None:
        message = m.decode(error.frame, m.Fork | m.Stop)
        if isinstance(message, m.Fork):
            self._send(m.ForkFailed(message.process_id, f"the zygote: {error}"))

    def _fork(self, request: m.Fork, fds: list[int]) -> None:
        known = self._child_reaper.forked.get(request.process_id)
        if known is not None:
            self._answer_again(request.process_id, known)
            return
        refusal = self._refusal()
        if refusal is not None:
            self._send(m.ForkFailed(request.process_id, refusal))
            return
        child.flush_stdio()  # otherwise each child would write the buffered text again
        try:
            pid = _fork_with_alarm()
        except OSError as error:
            self._send(m.ForkFailed(request.process_id, _explained(error)))
            return
        if pid == 0:
            self._become_child(request, fds)
        while fds:
            os.close(fds.pop())  # now, so that an fd is free for the pidfd
        self._child_reaper.note_fork(request.process_id, pid)
        self._send_forked(request.process_id, pid)

    def _refusal(self) -> str | None:
        try:
            return fork_safety.refusal(self._permit)
        except OSError as error:  # out of fds
            return f"the zygote cannot list its threads: {error}"

    def _become_child(self, request: m.Fork, fds: list[int]) -> NoReturn:
        def life() -> int:
            inheritance = child.Inheritance._make(fds)
            page = child.settle(inheritance, request.process_id, self._config.pool_token, self._own_fds())
            self._walls.raise_in_session()
            self._part_with_zygote()
            self._app_logging.move(inheritance.log, page)
            proc = JobProcess(self._config.generation, self._app.app_services)
            channels = child.Channels(inheritance.control, page, self._app_logging, self._witness)
            return child.live(self._app, self._child_settings, proc, channels)

        child.run(life)

    def _answer_again(self, process_id: str, pid: int) -> None:
        if pid in self._child_reaper.live:
            self._send_forked(process_id, pid)
        else:
            self._send(m.ForkFailed(process_id, "it was forked before, and has ended since"))

    def _send_forked(self, process_id: str, pid: int) -> None:
        inherited_mb = proc.anonymous_mb(os.getpid())
        pidfd = os.pidfd_open(pid)  # no race: a dead child stays a zombie until it is reaped here
        try:
            self._send(m.Forked(process_id, pid, inherited_mb), (pidfd,))
        except OSError as error:
            if error.errno != errno.ETOOMANYREFS:
                raise
            os.kill(pid, signal.SIGKILL)
            self._child_reaper.disown(pid)
            self._send(m.ForkFailed(process_id, f"the zygote cannot hand over a pidfd: {error}"))
        finally:
            os.close(pidfd)

    def _send(self, message: m.Message, fds: tuple[int, ...] = ()) -> None:
        packet = m.encode(message)
        try:
            fd_packets.send(self._channel, packet, fds)
        except OSError as error:
            if error.errno != errno.ETOOMANYREFS:
                raise
            # A session has fds in flight, but no more than its hard limit, which is lower than this one.
            with open_files.raised():
                fd_packets.send(self._channel, packet, fds)


def _services_of(app: App) -> dict[str, Service]:
    services = {name: raw(serve) for name, serve in app.services.items()}
    if app.app_services:
        # Imported once by the zygote for all processes, but only for an app that needs these modules.
        from . import service_client, service_process  # noqa: F401

        for name, service in app.app_services.items():
            services[name] = functools.partial(service_process.serve, service)
    return services


def _explained(error: OSError) -> str:
    """Return the text of a fork's error, with the limit that stopped the fork."""
    if error.errno == errno.EAGAIN:
        return (
            f"fork: {error}: a limit on processes and threads is reached. Raise pids.max of the cgroup (TasksMax= of "
            f"systemd) or RLIMIT_NPROC, or lower max_jobs"
        )
    if error.errno == errno.ENOMEM:
        return f"fork: {error}: the kernel grants no more memory. Lower max_jobs, or see vm.overcommit_memory"
    return f"fork: {error}"


def _fork_with_alarm() -> int:
    """Fork under an alarm, whose default action ends this process even if no Python code can run.

    The alarm is for a hang in a fork handler of some C library. Then the supervisor sees the end of the zygote, and
    starts another zygote. A child does not inherit the timer (fork(2)).
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, FORK_ALARM)
    try:
        with signals.kept_in_fork():
            return os.fork()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
