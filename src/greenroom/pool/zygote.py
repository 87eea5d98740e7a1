"""The supervisor's handle on a zygote: start it, have it fork, hear of deaths, notice its own."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Protocol

from ..app_setting import unpacked
from ..errors import AppLoadError, ErrorInfo, fresh
from ..log_fields import log_fields
from ..system import mark
from ..system.heartbeat import Beats
from ..texts import clean
from ..wire import fds as fd_packets
from ..wire import messages as m
from ..wire.frames import FrameError
from . import output
from .channels import ZygoteChannels
from .clock import Timer
from .contracts import Services
from .dumps import DumpTaker
from .exits import ExitStatus
from .process import Process
from .stalls import FULL_DUMP, Sample
from .states import IllegalTransition, State
from .watch import sample_of

__all__ = [
    "DEFAULT_ENVIRONMENT",
    "Zygote",
    "ZygoteOwner",
    "child_environment",
    "explained",
    "interpreter_flags",
    "never_began",
    "pidfd_of",
    "start_interpreter",
]

_logger = logging.getLogger("greenroom")

DEFAULT_ENVIRONMENT = {
    # One thread for each session: many run on one machine, and a zygote with a team of threads must not fork. OpenBLAS
    # (numpy) starts its threads when it is imported; OpenMP (torch, scikit-learn) and MKL when they first compute.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OPENCV_FOR_THREADS_NUM": "1",
    # The allocator of pyarrow, which pandas imports, has a thread from the import on that gives memory back.
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    # onnxruntime 1.32 starts a telemetry thread at import; forked children then hang in normal exit.
    "ORT_DISABLE_TELEMETRY": "1",
}
"""Set for the zygote and all its children where the supervisor's environment does not say otherwise."""

_FROM_ZYGOTE = m.Loading | m.Loaded | m.LoadFailed | m.Forked | m.ForkFailed | m.Stopped | m.Exited | m.Reaped


CLOSE_TIMEOUT = 3.0
"""Seconds for a zygote to exit when it is not needed any more, and has no children left."""


HANG_UP_TIMEOUT = 1.0
"""Seconds from the end of its channel to the death of a zygote; one that lives on is of no use."""


class ZygoteOwner(Protocol):
    def zygote_lost(self, zygote: Zygote) -> None:
        """It is dead, and what it had sent was read. Called once, also after :meth:`Zygote.close`."""


class Zygote:
    """One generation's zygote."""

    def __init__(self, generation: int, services: Services, owner: ZygoteOwner) -> None:
        self.generation = generation
        self.processes: dict[str, Process] = {}
        """Those it is the parent of, by id, until they are reaped."""
        self.loaded: m.Loaded | None = None
        self.loaded_at = 0.0
        self.is_closed = False
        self.ending = ""
        """How it ended, once it has."""
        self.options = services.terms.options
        self._services = services
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._popen: subprocess.Popen[bytes]
        self._pidfd = -1
        self._loading: asyncio.Future[m.Loaded | AppLoadError] = self._loop.create_future()
        self._is_overdue = False
        self._answers = 0
        self._load_timer: Timer | None = None
        self._dump_fd: int | None = None
        self._dump: DumpTaker | None = None
        self._captures: list[output.StreamCapture | output.LogCapture] = []
        self._outlet: output.Outlet
        self._disowned: set[str] = set()
        self._outbox: deque[Process] = deque()
        self._overdue: Timer | None = None

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def pids(self) -> set[int]:
        """The pids below this process that are no session's: to be spared when strays are killed."""
        return {self.pid}

    @property
    def facts(self) -> m.AppFacts | None:
        """What it has told of the app; ``None`` before it has loaded it."""
        return self.loaded.app if self.loaded is not None else None

    def learn(self, facts: m.AppFacts) -> None:
        """Raise :class:`IllegalTransition`: nobody learns from a session's process what the app is."""
        raise IllegalTransition("it told of the app, which is its zygote's to do")

    # --- start -----------------------------------------------------------------------------------

    async def load(self, configuration: m.Configure) -> m.Loaded:
        """Start it, and have it load the app. Raises :class:`AppLoadError`; then it is gone."""
        self._spawn(configuration.pool_token)
        fd_packets.send(self._channel, m.encode(configuration))
        self._begin_load()
        try:
            outcome = await asyncio.shield(self._loading)
        except asyncio.CancelledError:
            self.kill()
            raise
        finally:
            self._end_load()
        if isinstance(outcome, AppLoadError):
            self.close()
            raise fresh(outcome)
        try:
            self.options = self._services.terms.with_app(unpacked(outcome.app.settings))
        except AppLoadError:
            self.close()
            raise
        self.loaded, self.loaded_at = outcome, self._services.clock.now()
        imports, preload = self.loaded.import_seconds, self.loaded.preload_seconds
        extra = log_fields("zygote_loaded", **self._ids, import_seconds=imports, preload_seconds=preload)
        text = "zygote %d has loaded the app: %.2f s for imports, %.2f s for preload"
        _logger.info(text, self.pid, imports, preload, extra=extra)
        for warning in self.loaded.warnings:
            _logger.warning("zygote %d: %s", self.pid, clean(warning), extra=log_fields("zygote_warning", **self._ids))
        return self.loaded

    def _begin_load(self) -> None:
        """Start its deadline, or start it anew: an interpreter that starts late takes none of the app's time."""
        self._end_load()
        timeout = self._services.options.preload_timeout
        self._load_timer = self._services.clock.call_later(timeout, self._load_overdue, timeout)

    def _end_load(self) -> None:
        if self._load_timer is not None:
            self._load_timer.cancel()
            self._load_timer = None

    def _spawn(self, token: str) -> None:
        ends = self._channels = ZygoteChannels()
        self._popen, self._pidfd = start_interpreter("greenroom.zygote", ends, token)
        self._channel = socket.socket(fileno=ends.channel)
        self._loop.add_reader(self._pidfd, self._on_death)
        self._loop.add_reader(self._channel, self._on_readable)
        outlet = self._outlet = output.Outlet(self._emit, self._services.log_budget)
        self._captures = [
            output.StreamCapture(ends.stdout, "stdout", outlet),
            output.StreamCapture(ends.stderr, "stderr", outlet),
            output.LogCapture(ends.log, outlet),
        ]

    def _load_overdue(self, timeout: float) -> None:
        if self._loading.done():  # in this very turn of the event loop
            return
        # Whatever it says from now on: the signal may have cut short what it was waiting for.
        self._is_overdue = True
        if self._dump_fd is None:
            self._end_overdue_load(timeout, "its interpreter had not begun with it")
            return
        on_end = partial(self._have_stacks, timeout)
        try:
            self._dump = DumpTaker(self.pid, self._dump_fd, FULL_DUMP, self._services.clock, on_end)
        except OSError:  # dead, or not ours to look into any more
            self._have_stacks(timeout, "")

    def _have_stacks(self, timeout: float, stacks: str) -> None:
        self._end_overdue_load(timeout, f"it was in:\n{stacks}" if stacks else "its stack could not be had")

    def _end_overdue_load(self, timeout: float, where: str) -> None:
        self._is_overdue = False
        self._load_failed(AppLoadError(f"the app did not load within preload_timeout ({timeout:g} s); {where}"))
        self.kill()

    @property
    def _awaits_load(self) -> bool:
        return not self._loading.done() and not self._is_overdue

    def _load_failed(self, error: AppLoadError) -> None:
        if self._awaits_load:
            self._loading.set_result(error)

    # --- forks -----------------------------------------------------------------------------------

    def fork(self, process: Process) -> None:
        """Ask for a process; it is told of the answer itself."""
        self.processes[process.id] = process
        self._outbox.append(process)
        self._flush()

    def _flush(self) -> None:
        while self._outbox:
            process = self._outbox[0]
            packet = m.encode(m.Fork(launch_id=process.id))
            try:
                fd_packets.send(self._channel, packet, process.fork_fds)
            except BlockingIOError:
                self._loop.add_writer(self._channel, self._flush)
                return
            except (BrokenPipeError, ConnectionResetError):
                # It is dying: when its pidfd says so, those that it did not fork are told, with the true cause.
                self._outbox.clear()
                break
            except OSError as error:
                # Too many fds are under way (ETOOMANYREFS), say.
                _logger.warning("zygote %d takes no request: %s", self.pid, error)
                self._outbox.popleft()
                self.processes.pop(process.id, None)
                # Not now: what follows from it may be the next request, and this is where they are sent.
                self._loop.call_soon(process.fork_failed, f"the zygote takes no request: {error}")
                continue
            self._outbox.popleft()
            process.fork_sent()
        self._loop.remove_writer(self._channel)

    def sample(self) -> Sample:
        """How it looks now; its answers to requests are its beats."""
        return sample_of(self.pid, self._services.clock.now(), Beats(self._answers, self._answers, 0))

    # --- what it says ----------------------------------------------------------------------------

    def _on_readable(self) -> bool:
        """Read one packet; false when there is none."""
        try:
            received = fd_packets.receive(self._channel, 1)
        except BlockingIOError:
            return False
        except fd_packets.FdsLost as error:
            self._disown(error)
            return True
        except FrameError as error:
            self._drop(str(error))
            return False
        except OSError:
            received = None
        if received is None:
            # Its death is told by its pidfd, and only then have its children been passed on.
            self._loop.remove_reader(self._channel)
            self._services.clock.call_later(HANG_UP_TIMEOUT, self._drop_if_alive, "it has hung up")
            return False
        frame, fds = received
        try:
            self._handle(m.decode(frame, _FROM_ZYGOTE), fds)
        except (FrameError, IllegalTransition) as error:
            self._drop(str(error))
        finally:
            for fd in fds:
                os.close(fd)
        return True

    def _handle(self, message: m.Message, fds: list[int]) -> None:
        if isinstance(message, m.Loading):
            is_first, self._dump_fd = self._dump_fd is None, message.dump_fd
            if is_first and self._load_timer is not None and self._awaits_load:
                self._begin_load()
        elif isinstance(message, m.Loaded):
            if self._awaits_load:
                self._loading.set_result(message)
        elif isinstance(message, m.LoadFailed):
            self._load_failed(AppLoadError(f"the app did not load: {explained(message.error)}"))
        else:
            self._handle_of_process(message, fds)

    def _handle_of_process(self, message: m.Message, fds: list[int]) -> None:
        assert isinstance(message, (m.Forked, m.ForkFailed, m.Stopped, m.Exited, m.Reaped))
        if message.launch_id in self._disowned:
            return
        process = self.processes.get(message.launch_id)
        if process is None:
            raise FrameError(
                f"{type(message).__name__} for a process {message.launch_id!r} that it was never asked for"
            )
        if isinstance(message, (m.Forked, m.ForkFailed)):
            self._answers += 1
        if isinstance(message, m.Forked):
            if len(fds) != 1:
                raise FrameError(f"Forked with {len(fds)} fds instead of a pidfd")
            process.fork_answered(message.pid, fds[0])
            fds.clear()  # its own now
        elif isinstance(message, m.ForkFailed):
            process.fork_failed(clean(message.message))
            self.processes.pop(process.id, None)
        elif isinstance(message, m.Stopped):
            process.stopped(message.signal)
        elif isinstance(message, m.Exited):
            if process.pid is None:
                raise FrameError(f"Exited for process {process.id}, which it has not said to have forked")
            process.exited(ExitStatus(message.exit_code, message.signal))
        else:
            if process.state is not State.EXITED:
                raise FrameError(f"Reaped for process {process.id}, which is {process.state.value}")
            del self.processes[process.id]
            process.reaped(message)

    def _disown(self, error: fd_packets.FdsLost) -> None:
        """A child whose pidfd could not be taken cannot be supervised: its lifeline is cut at once."""
        try:
            message = m.decode(error.frame, m.Forked)
        except FrameError as nonsense:
            self._drop(str(nonsense))
            return
        process = self.processes.pop(message.launch_id, None)
        if process is not None:
            self._disowned.add(message.launch_id)
            process.disown(f"this process: {error}")

    def _drop_if_alive(self, complaint: str) -> None:
        if self._pidfd != -1 and not self.is_closed:
            self._drop(complaint)

    def _drop(self, complaint: str) -> None:
        _logger.error("zygote %d broke the protocol and is killed: %s", self.pid, complaint)
        self._load_failed(AppLoadError(f"the zygote broke the protocol: {complaint}"))
        self.kill()

    # --- its end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Have it end everything below it, and exit."""
        if self.is_closed:
            return
        self.is_closed = True
        if self.loaded is None:
            self.kill()  # it would not look at the channel before it has loaded
        else:
            with suppress(OSError):  # it is dead, or does not read: then it will see the end of the channel
                fd_packets.send(self._channel, m.encode(m.Stop()))
        self._loop.remove_reader(self._channel)
        self._loop.remove_writer(self._channel)
        self._channel.detach()
        self._channels.close_channel()
        self._overdue = self._services.clock.call_later(CLOSE_TIMEOUT, self.kill)  # it may be stopped, or hang

    def kill(self) -> None:
        """End it by SIGKILL; its children live on, below this process."""
        if self._pidfd != -1:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _on_death(self) -> None:
        self._loop.remove_reader(self._pidfd)
        status = self._popen.wait()  # returns at once: it is dead
        self.ending = f"signal {-status}" if status < 0 else f"exit code {status}"
        if not self.is_closed:
            while self._on_readable():  # what it had told before still counts
                continue
            self.close()
        for capture in self._captures:
            capture.finish()
        self._captures.clear()  # they refer to this object
        self._outlet.finish()
        if self._overdue is not None:
            self._overdue.cancel()
        if self._dump is not None:
            self._dump.finish()
            self._dump = None  # it refers to this object
        os.close(self._pidfd)
        self._pidfd = -1
        self._channels.close()
        has_begun = self._dump_fd is not None
        cause = f"the zygote ended while it loaded the app ({self.ending})"
        self._load_failed(AppLoadError(cause if has_begun else never_began("the zygote", self.ending)))
        self._owner.zygote_lost(self)

    def _emit(self, line: output.OutputLine | output.Loss) -> None:
        output.emit(line, self._ids)

    @property
    def _ids(self) -> dict[str, object]:
        """What log lines about it carry."""
        process_id = f"zygote-{self.generation}"
        return {"process_id": process_id, "job_pid": self.pid, "job_id": None, "generation": self.generation}


def explained(error: ErrorInfo) -> str:
    """With the traceback, where it leads into the user's code; a complaint of Greenroom's says it all."""
    is_own = error.type == f"{AppLoadError.__module__}.{AppLoadError.__qualname__}"
    return error.message if is_own else f"{error}\n{error.traceback}"


def start_interpreter(module: str, ends: ZygoteChannels, token: str) -> tuple[subprocess.Popen[bytes], int]:
    """Start a module of Greenroom's at the far ends of these channels; returns it with a pidfd.

    Raises ``OSError``; then the channels are closed.
    """
    fds = ends.far_channel, ends.far_lifeline, ends.far_log
    try:
        popen = subprocess.Popen(
            [sys.executable, *interpreter_flags(), "-m", module, *map(str, fds)],
            stdin=subprocess.DEVNULL,
            stdout=ends.far_stdout,
            stderr=ends.far_stderr,
            pass_fds=fds,
            env=child_environment(token),
            # A session of its own: a terminal's Ctrl-C goes to the supervisor alone.
            start_new_session=True,
        )
        pidfd = pidfd_of(popen)
    except OSError:
        ends.close()
        raise
    ends.close_far_ends()
    return popen, pidfd


def never_began(what: str, ending: str) -> str:
    """Why an interpreter has ended that never said that it began to load the app."""
    folder = Path(__file__).parent.parent.parent
    return (
        f"{what} ended before it could load the app ({ending}); what it said is in the lines above. If this program "
        f"finds greenroom by a sys.path of its own (a PEX, a zipapp, a vendored folder), other interpreters do not: "
        f"set PYTHONPATH={folder}"
    )


def child_environment(token: str) -> dict[str, str]:
    """The environment of everything that a pool starts."""
    return {**DEFAULT_ENVIRONMENT, **os.environ, mark.VARIABLE: token}


def interpreter_flags() -> list[str]:
    """The -X, -W, -O … that this interpreter runs under, as multiprocessing passes them on, too."""
    return subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined,no-any-return]


def pidfd_of(popen: subprocess.Popen[bytes]) -> int:
    """A process that cannot be watched is not kept. Raises ``OSError``, and it is gone then."""
    try:
        return os.pidfd_open(popen.pid)
    except OSError:
        popen.kill()
        popen.wait()
        raise
