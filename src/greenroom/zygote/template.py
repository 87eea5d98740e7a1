"""The zygote: a single-threaded process that has loaded the app, and forks itself on request."""

from __future__ import annotations

import functools
import os
import select
import signal
import socket
import sys
import time
from collections import deque
from typing import NoReturn

from ..app import App
from ..errors import AppLoadError, ErrorInfo
from ..job import JobProcess
from ..system import lifeline, mark, open_files, prctl, stackdump, wakeup
from ..wire import fds as fd_packets
from ..wire import messages as m
from ..wire.frames import Frame, FrameError
from . import census, child, exit_hooks, random_numbers, sharing, signals, thread_search, undertaker
from .app_logging import AppLogging
from .executors import Executors
from .import_hooks import BEFORE_FORK, change_defaults, watched_imports
from .inherited_files import InheritedFiles, open_fds
from .loader import child_settings, facts_of, load_app, refuse_forks_of_numba, refuse_replaced_library, warnings_of
from .logs import DropCount, LogChannel
from .orphans import TRACKER_PATIENCE, Orphans
from .rehearsal import rehearse_in_zygote
from .services import COULD_NOT_LOAD, Service, Services, become, listen, raw
from .thread_origins import ThreadOrigins

__all__ = ["FORK_ALARM", "Zygote"]

FORK_ALARM = 10.0
"""Seconds after which a fork that hangs (in somebody's ``pthread_atfork`` handler) ends the zygote."""

LOG_PATIENCE = 1.0
"""Seconds for which the zygote, and a service, wait for a supervisor that does not read their log."""

_REMEMBERED = 4096


class Zygote:
    """Loads the app, forks children, buries them; ends everything when the supervisor is gone."""

    def __init__(self, channel: socket.socket, lifeline_fd: int, log_fd: int) -> None:
        self._channel = channel
        self._lifeline_fd = lifeline_fd
        self._log_drops = DropCount()
        self._app_logging = AppLogging(LogChannel(log_fd, self._log_drops, LOG_PATIENCE))
        self._wakeup = signals.Wakeup()
        self._witness = signals.Witness()
        self._dump_fd = stackdump.install()
        self._live: dict[int, str] = {}  # pid -> launch_id
        self._launched: dict[str, int] = {}  # launch_id -> pid, also of some that are dead
        self._forgettable: deque[str] = deque()
        self._mourned: dict[int, m.Reaped] = {}  # pid -> what is to be told when nothing is left of it
        self._is_mourning = False
        self._mourning_since = 0.0
        self._marks_hold = False
        self._orphans: Orphans
        self._services = Services()
        self._listeners: dict[str, socket.socket] = {}  # of services
        self._exit_hooks = exit_hooks.ExitHooks()
        self._files: InheritedFiles
        self._executors: Executors
        self._app: App
        self._config: m.Configure
        self._child_settings: m.ChildSettings
        self._permit: census.Permit

    def run(self) -> NoReturn:
        prctl.set_child_subreaper()
        wakeup.harden_program()
        self._install_signal_handlers()
        signals.reset_in_forks()
        # While user code is being imported it may be stuck in C code for ever, and there is nothing
        # to bury yet: the kernel may end this process together with the supervisor.
        lifeline.arm(self._lifeline_fd)
        code, has_served = 1, self._load()
        if has_served:
            lifeline.only_wake(self._lifeline_fd)
            code = 0 if self._serve_until_the_end() else 1
        exit_hooks.run_in_zygote(children_are_gone=has_served and code != 0)
        undertaker.end_all_children(undertaker.trackers())
        undertaker.let_trackers_end()
        undertaker.end_all_children()
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
        self._send(m.Loading(dump_fd=self._dump_fd))
        try:
            loaded = self._load_app()
        except BaseException as error:  # SystemExit too: whatever user code raises is the answer
            refusal = ErrorInfo.of(error, limit=6000)
            undertaker.end_all_children()  # what the app has started: the supervisor may end this process at once
            self._send(m.LoadFailed(refusal))
            return False
        self._send(loaded)
        return True

    def _load_app(self) -> m.Loaded:
        child.prepare_output()
        sys.path[:] = self._config.sys_path
        before, start = open_fds(), thread_search.Start()
        change_defaults()
        begin = time.monotonic()
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
        self._permit = census.Permit(allowed, self._app.prewarm_name, origins)
        if census.refusal(self._permit) is not None:
            self._search_for_threads(start, time.monotonic() - begin)
            refusal = census.refusal(self._permit)
            if refusal is not None:
                raise AppLoadError(refusal)
        refuse_forks_of_numba()
        # Not before: a native thread inherits the name of the thread that starts it.
        prctl.set_name("gr:zygote")
        signals.reset_all()  # the app may have put handlers of its own in the place of these
        self._install_signal_handlers()
        self._orphans = Orphans(self._config.pool_token, marks_hold=self._marks_hold)
        self._child_settings = child_settings(self._app, self._config)
        self._executors = Executors()  # before the collector's objects are frozen, and not shown any more
        rehearse_in_zygote(self._child_settings)
        sharing.settle()
        self._files = InheritedFiles(before)
        services = _services_of(self._app)
        self._listeners = {name: listen(name, self._config.generation) for name in services}
        self._services.want(services, time.monotonic())
        warnings = warnings_of(self._config.handed) + self._files.warnings + random_numbers.warnings()
        if self._log_drops.dropped:
            warnings.append(
                f"{self._log_drops.dropped} records that the app logged while it loaded were dropped or cut"
            )
        return m.Loaded(imported - begin, preloaded - imported, warnings, facts_of(self._app))

    def _search_for_threads(self, start: thread_search.Start, loaded_in: float) -> None:
        """Find who has started the threads that nobody has seen coming, for the refusal to say it."""
        unknown = census.unexplained(self._permit)
        seconds = thread_search.time_for(loaded_in, self._config.preload_timeout - loaded_in)
        if not unknown:
            return
        try:
            self._permit.origins.learn(unknown, thread_search.search(self._config, start, seconds))
        except Exception as error:  # whatever it is, it must not hide the refusal
            print(f"greenroom: the search for who started {len(unknown)} threads failed: {error!r}", file=sys.stderr)

    # --- serving ---------------------------------------------------------------------------------

    def _serve_until_the_end(self) -> bool:
        """Serve, then end everything below; returns whether the end came in order."""
        try:
            in_order = self._serve()
        except (BrokenPipeError, ConnectionResetError):
            in_order = False
        self._channel.close()  # of no use any more; and looking for children takes an fd, of which there may be none
        if in_order:
            # What preload has started is ended by the hooks that preload has put up.
            undertaker.end_all_children(self._orphans.of_preload)
        else:
            trackers = undertaker.trackers()
            undertaker.end_all_children(trackers)
            undertaker.end_strays(self._config.pool_token, trackers)
        return in_order

    def _serve(self) -> bool:
        """Fork and bury until the supervisor says stop (true), or is gone (false)."""
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        poll.register(self._wakeup.fd, select.POLLIN)
        while True:
            self._start_services()
            ready = dict(poll.poll(self._patience()))
            if self._wakeup.fd in ready or self._is_mourning:
                self._wakeup.clear()
                self._bury_the_dead()
            if self._channel.fileno() in ready:
                in_order = self._serve_one()
                if in_order is not None:
                    return in_order

    def _patience(self) -> float | None:
        """Milliseconds until there is something to do that no fd tells of."""
        if self._is_mourning:
            return 100
        seconds = self._services.seconds_to_next(time.monotonic())
        return None if seconds is None else 1000 * seconds + 1

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
        self._app_logging.install(self._app.log_level)  # into the zygote's channel
        become(service, listener, self._services.pause(name), zygote=zygote, close=self._own_fds())

    def _part_with_zygote(self) -> None:
        """In a fork: leave to the zygote what preload has made, or put something of this process's own in its place."""
        self._exit_hooks.leave_to_zygote()
        self._files.renew()
        self._executors.renew()

    def _own_fds(self) -> list[int]:
        """Detach and return what a forked process has to close."""
        listeners = [listener.detach() for listener in self._listeners.values()]
        return [self._channel.detach(), *self._wakeup.fds, self._dump_fd, self._lifeline_fd, *listeners]

    def _serve_one(self) -> bool | None:
        """Answer one request; returns what ends the service, if anything does."""
        try:
            received = fd_packets.receive(self._channel, m.CHILD_FDS)
        except fd_packets.FdsLost as error:
            self._refuse(error)
            return None
        except FrameError as error:
            # Packets keep their bounds: the next one is in step again, and sessions are at stake.
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
            self._send(m.ForkFailed(message.launch_id, f"the zygote: {error}"))

    def _fork(self, request: m.Fork, fds: list[int]) -> None:
        known = self._launched.get(request.launch_id)
        if known is not None:
            self._answer_again(request.launch_id, known)
            return
        refusal = self._refusal()
        if refusal is not None:
            self._send(m.ForkFailed(request.launch_id, refusal))
            return
        child.flush_stdio()  # what is buffered now would be written once by every child
        try:
            pid = _fork_with_alarm()
        except OSError as error:
            self._send(m.ForkFailed(request.launch_id, f"fork: {error}"))
            return
        if pid == 0:
            self._become_child(request, fds)
        while fds:
            os.close(fds.pop())  # now, so that there is one for the pidfd
        self._remember(request.launch_id, pid)
        self._send_forked(request.launch_id, pid)

    def _refusal(self) -> str | None:
        try:
            return census.refusal(self._permit)
        except OSError as error:  # out of fds
            return f"the zygote cannot look at its threads: {error}"

    def _become_child(self, request: m.Fork, fds: list[int]) -> NoReturn:
        def life() -> int:
            inheritance = child.Inheritance._make(fds)
            page = child.settle(inheritance, request.launch_id, self._config.pool_token, self._own_fds())
            self._part_with_zygote()
            self._app_logging.move(inheritance.log, page)
            proc = JobProcess(self._config.generation, self._app.app_services)
            channels = child.Channels(inheritance.control, page, self._app_logging, self._witness)
            return child.live(self._app, self._child_settings, proc, channels)

        child.run(life)

    def _answer_again(self, launch_id: str, pid: int) -> None:
        if pid in self._live:
            self._send_forked(launch_id, pid)
        else:
            self._send(m.ForkFailed(launch_id, "it was forked before, and has ended since"))

    def _send_forked(self, launch_id: str, pid: int) -> None:
        pidfd = os.pidfd_open(pid)  # no race: a dead child stays a zombie until it is buried here
        try:
            self._send(m.Forked(launch_id, pid), (pidfd,))
        finally:
            os.close(pidfd)

    def _remember(self, launch_id: str, pid: int) -> None:
        self._live[pid] = launch_id
        self._launched[launch_id] = pid
        while len(self._forgettable) > _REMEMBERED:
            del self._launched[self._forgettable.popleft()]

    # --- burying ---------------------------------------------------------------------------------

    def _bury_the_dead(self) -> None:
        while (stop := undertaker.next_stop()) is not None:
            if stop[0] in self._live:
                self._send(m.Stopped(self._live[stop[0]], stop[1]))
            elif stop[0] in self._services.pids:
                os.kill(stop[0], signal.SIGKILL)  # it serves nobody, and the next one will
        while (death := undertaker.next_death()) is not None:
            self._bury(death)
        if self._is_mourning:
            self._end_of_mourning()

    def _bury(self, death: undertaker.Death) -> None:
        launch_id = self._live.pop(death.pid, None)
        if launch_id is not None:
            self._send(m.Exited(launch_id, death.exit_code, death.signal))
        usage = undertaker.bury(death.pid)
        self._orphans.buried(death.pid)
        if launch_id is not None:
            self._forgettable.append(launch_id)
            self._mourn()
            self._mourned[death.pid] = m.Reaped(launch_id, usage.cpu_seconds, usage.peak_memory_mb, 0)
            return
        exit_hooks.note_death(death.pid, -(death.signal or 0) if death.exit_code is None else death.exit_code)
        has_paused = death.exit_code == COULD_NOT_LOAD
        service = self._services.died(death.pid, time.monotonic(), has_paused=has_paused)
        if service is not None:
            self._mourn()
        if service is not None and not has_paused:  # else it has said so itself
            how = f"signal {death.signal}" if death.exit_code is None else f"exit code {death.exit_code}"
            print(f"greenroom: the service {service} died ({how}); it is started again", file=sys.stderr)

    def _mourn(self) -> None:
        if not self._is_mourning:  # else another death is being mourned, whose orphans still count
            self._is_mourning = True
            self._mourning_since = time.monotonic()

    def _end_of_mourning(self) -> None:
        """Report a death as complete when nothing is left of what the dead child had started."""
        since = time.monotonic() - self._mourning_since
        killed = set[int]()
        try:
            alive = self._live.keys() | self._services.pids
            has_patience = since < TRACKER_PATIENCE
            killed, spared = self._orphans.end_of(self._mourned, alive, spare_trackers=has_patience)
        except OSError:  # no fd to look with: in a while, perhaps
            is_done = False
        else:
            is_done = not killed and not spared
        if not is_done and since < undertaker.PATIENCE:
            return
        if killed:
            # Told once, and then left: they must not hold up every later session's report.
            print(f"greenroom: processes {sorted(killed)}, left behind by a session, do not die", file=sys.stderr)
            self._orphans.give_up(killed)
        self._is_mourning = False
        counts = self._orphans.take_counts()
        for pid, reaped in self._mourned.items():
            reaped.descendants_killed = counts[pid] + counts.pop(None, 0)
            self._send(reaped)
        self._mourned.clear()

    def _send(self, message: m.Message, fds: tuple[int, ...] = ()) -> None:
        fd_packets.send(self._channel, m.encode(message), fds)


def _services_of(app: App) -> dict[str, Service]:
    services = {name: raw(serve) for name, serve in app.services.items()}
    if app.app_services:
        # Imported by the zygote, once for all processes, but not where no app needs it.
        from . import service_client, service_process  # noqa: F401

        for name, service in app.app_services.items():
            services[name] = functools.partial(service_process.serve, service)
    return services


def _fork_with_alarm() -> int:
    """Fork, under an alarm whose default action ends this process even where no Python code can run.

    It guards against a hang in a fork handler of some C library: the supervisor sees the end of the
    zygote and starts another. A child does not inherit the timer.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, FORK_ALARM)
    try:
        with signals.kept_in_fork():
            return os.fork()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
