"""Client of a zygote, in the supervisor: its start, its forks, its reports, and its death.

This code runs in the supervisor. :mod:`greenroom.zygote.zygote` runs in the zygote itself. All fork requests and all
reports are packets on one channel (:mod:`greenroom.wire.fds`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
from collections import deque
from contextlib import suppress

from ...clean_text import clean
from ...errors import AppLoadError, ErrorInfo, WallMissing, name_of
from ...log_fields import log_fields
from ...system.heartbeat import Beats
from ...wire import fds as fd_packets
from ...wire import messages as m
from ...wire.frames import FrameError
from ..core import vocabulary as v
from ..core.exit_verdict import ExitStatus
from ..core.stalls import FULL_DUMP, Sample
from . import output
from .channels import ZygoteChannels
from .child_client import ChildClient
from .dumps import DumpTaker
from .interpreters import ending_of, never_began, start_interpreter
from .tools import Report, Tools
from .watch import sample_of

__all__ = ["ZygoteClient", "explained", "load_error"]

_logger = logging.getLogger("greenroom")

_FROM_ZYGOTE = m.Loading | m.Loaded | m.LoadFailed | m.Forked | m.ForkFailed | m.Stopped | m.Exited | m.Reaped

HANG_UP_TIMEOUT = 1.0
"""Seconds from the hang-up of a zygote's channel to the death of the zygote.

A zygote that lives longer has broken the protocol.
"""


class ZygoteClient:
    """Process of one zygote, with its channel.

    ``number`` is the launcher's number. Each report about the zygote carries this number.

    The order of the calls is :meth:`start`, :meth:`fork` for each process, and :meth:`close` or :meth:`kill`. In the
    end, the pidfd reports the death. Only for a zygote that SIGKILL does not end, :meth:`forget` is called.
    """

    def __init__(self, number: int, generation: int, tools: Tools, report: Report) -> None:
        self.children: dict[str, ChildClient] = {}
        """Children of the zygote, by id, until the zygote has reaped them."""
        self._number = number
        self._generation = generation
        self._tools = tools
        self._report = report
        self._loop = asyncio.get_running_loop()
        self._popen: subprocess.Popen[bytes]
        self._pidfd = -1
        self._is_open = False
        """True while the channel is read and written to."""
        self._answers = 0
        self._has_loaded = False
        self._dump_fd: int | None = None
        self._dump: DumpTaker | None = None
        self._captures: list[output.StreamCapture | output.LogCapture] = []
        self._outlet: output.Outlet
        self._disowned: set[str] = set()
        self._outbox: deque[ChildClient] = deque()

    @property
    def pids(self) -> set[int]:
        """Pid of the zygote, until the zygote is reaped. A sweep for orphans spares this pid."""
        return {self._popen.pid} if self._pidfd != -1 else set()

    # --- start -----------------------------------------------------------------------------------

    def start(self, configuration: m.Configure) -> None:
        """Start the zygote, and send the configuration, with which the zygote loads the app.

        Raises ``OSError``; then there is no process.
        """
        packet = m.encode(configuration)  # before the start: an error here leaves no process
        ends = self._channels = ZygoteChannels()
        self._popen, self._pidfd = self._tools.domain.run(
            start_interpreter, "greenroom.zygote", ends, configuration.pool_token
        )
        self._channel = socket.socket(fileno=ends.channel)
        self._channel.setblocking(False)  # also where the program has set a default timeout
        self._is_open = True
        self._loop.add_reader(self._pidfd, self._on_death)
        self._loop.add_reader(self._channel, self._on_readable)
        outlet = self._outlet = output.Outlet(self._emit, self._tools.log_budget)
        self._captures = [
            output.StreamCapture(ends.stdout, "stdout", outlet),
            output.StreamCapture(ends.stderr, "stderr", outlet),
            output.LogCapture(ends.log, outlet, self._break),
        ]
        self._report(v.LauncherSpawned(self._number, self._popen.pid))
        with suppress(BrokenPipeError, ConnectionResetError):  # the zygote has ended, and its pidfd reports that
            fd_packets.send(self._channel, packet)

    def dump(self) -> None:
        """Request the stacks of the zygote, and report them."""
        if self._dump_fd is not None and self._pidfd != -1:
            with suppress(OSError):  # the zygote is dead, or may not be read any more
                self._dump = DumpTaker(self._popen.pid, self._dump_fd, FULL_DUMP, self._tools.clock, self._on_dump)
                return
        self._on_dump("")

    def _on_dump(self, stacks: str) -> None:
        self._report(v.LauncherDumped(self._number, stacks))

    # --- forks -----------------------------------------------------------------------------------

    def fork(self, child: ChildClient) -> None:
        """Request a process. The answer of the zygote is reported through ``child``."""
        self.children[child.id] = child
        self._outbox.append(child)
        self._flush()

    def _flush(self) -> None:
        while self._outbox and self._is_open:
            child = self._outbox[0]
            packet = m.encode(m.Fork(process_id=child.id))
            try:
                fd_packets.send(self._channel, packet, child.channels.child_ends)
            except BlockingIOError:
                self._loop.add_writer(self._channel, self._flush)
                return
            except (BrokenPipeError, ConnectionResetError):
                # The zygote is dying. Its pidfd will report the death, and each unforked process gets the true cause.
                self._outbox.clear()
                break
            except OSError as error:
                # For example ETOOMANYREFS: too many fds are in flight (unix(7)).
                extra = log_fields("fork_refused", **self._ids, cause=str(error))
                _logger.warning("zygote %d accepts no request: %s", self._popen.pid, error, extra=extra)
                self._outbox.popleft()
                self.children.pop(child.id, None)
                child.not_forked(f"the zygote accepts no request: {error}")
                continue
            self._outbox.popleft()
            child.channels.close_child_ends()
        if self._is_open:
            self._loop.remove_writer(self._channel)

    def sample(self) -> Sample:
        """Return a sample of the zygote. Its answers to fork requests count as beats."""
        beats = Beats(self._answers, self._answers, 0)
        return sample_of(self._popen.pid, self._tools.clock.now(), beats)

    # --- messages --------------------------------------------------------------------------------

    def _on_readable(self) -> bool:
        """Read one packet. Return false if no packet is there to read."""
        if not self._is_open:
            return False
        try:
            received = fd_packets.receive(self._channel, 1)
        except BlockingIOError:
            return False
        except fd_packets.FdsLost as error:
            self._disown(error)
            return True
        except FrameError as error:
            self._break(str(error))
            return False
        except OSError:
            received = None
        if received is None:
            # Wait for the pidfd to report the death. Only then are the zygote's children children of this process.
            self._loop.remove_reader(self._channel)
            self._tools.clock.call_later(HANG_UP_TIMEOUT, self._break_if_alive, "it has closed its channel")
            return False
        frame, fds = received
        try:
            self._handle(m.decode(frame, _FROM_ZYGOTE), fds)
        except FrameError as error:
            self._break(str(error))
        finally:
            for fd in fds:
                os.close(fd)
        return True

    def _handle(self, message: m.Message, fds: list[int]) -> None:
        if isinstance(message, m.Loading):
            is_first, self._dump_fd = self._dump_fd is None, message.dump_fd
            if is_first:
                self._tools.walls.note(message.missing_walls)
                self._report(v.LauncherBegan(self._number))
        elif isinstance(message, m.Loaded):
            self._loaded(message)
        elif isinstance(message, m.LoadFailed):
            self._report(v.LauncherFailed(self._number, load_error(message.error)))
        else:
            self._handle_of_child(message, fds)

    def _loaded(self, message: m.Loaded) -> None:
        if self._has_loaded:
            raise FrameError("Loaded was sent again")
        self._has_loaded = True
        imports, preload = message.import_seconds, message.preload_seconds
        extra = log_fields("zygote_loaded", **self._ids, import_seconds=imports, preload_seconds=preload)
        text = "zygote %d has loaded the app: %.2f s for imports, %.2f s for preload"
        _logger.info(text, self._popen.pid, imports, preload, extra=extra)
        for warning in message.warnings:
            extra = log_fields("zygote_warning", **self._ids)
            _logger.warning("zygote %d: %s", self._popen.pid, clean(warning), extra=extra)
        self._log_image(message.image)
        image = (message.image.anonymous_mb, message.image.huge_mb, message.image.arrange_seconds)
        self._report(v.LauncherLoaded(self._number, message.app, message.digest, imports, preload, *image))

    def _log_image(self, image: m.ImageMemory) -> None:
        fields = {
            "anonymous_mb": round(image.anonymous_mb, 1),
            "huge_pages_mb": round(image.huge_mb, 1),
            "huge_pages_seconds": round(image.arrange_seconds, 3),
        }
        extra = log_fields("zygote_memory", **self._ids, **fields, cause=image.problem or None)
        text = "zygote %d has %.0f MiB of memory without a file, %.0f MiB of it in huge pages (%.2f s of CPU)%s"
        problem = f": {clean(image.problem)}" if image.problem else ""
        _logger.debug(
            text, self._popen.pid, image.anonymous_mb, image.huge_mb, image.arrange_seconds, problem, extra=extra
        )

    def _handle_of_child(self, message: m.Message, fds: list[int]) -> None:
        assert isinstance(message, (m.Forked, m.ForkFailed, m.Stopped, m.Exited, m.Reaped))
        if message.process_id in self._disowned:
            return
        kind, child = type(message).__name__, self.children.get(message.process_id)
        if child is None:
            raise FrameError(f"{kind} for process {message.process_id!r}, which was not requested")
        if isinstance(message, (m.Forked, m.ForkFailed)):
            self._answers += 1
            if child.pid is not None:
                raise FrameError(f"{kind} for process {child.id}, which it has reported as forked before")
        elif child.pid is None:
            raise FrameError(f"{kind} for process {child.id}, which it has not reported as forked")
        if isinstance(message, m.Forked):
            if len(fds) != 1:
                raise FrameError(f"Forked with {len(fds)} fds instead of a pidfd")
            pidfd = fds.pop()  # the child owns this fd from now on
            child.forked(message.pid, pidfd, message.inherited_mb)
        elif isinstance(message, m.ForkFailed):
            del self.children[child.id]
            child.not_forked(clean(message.message))
        elif isinstance(message, m.Stopped):
            self._report(v.Stopped(child.id, message.signal))
        elif isinstance(message, m.Exited):
            if not child.exited(ExitStatus(message.exit_code, message.signal)):
                self._doubt(kind, child)
        elif child.is_dead:
            del self.children[child.id]
            child.reaped(message)
        else:
            self._doubt(kind, child)

    def _doubt(self, kind: str, child: ChildClient) -> None:
        """Log a report that the kernel contradicts. A process that has got hold of the channel may have sent it."""
        extra = log_fields("report_doubted", process_id=child.id, job_pid=child.pid, cause=kind)
        text = "the zygote reports %s for process %s, but the process lives; the report is ignored"
        _logger.warning(text, kind, child.id, extra=extra)

    def _disown(self, error: fd_packets.FdsLost) -> None:
        """Give up a child whose pidfd was lost. Without a pidfd, the child cannot be supervised."""
        try:
            message = m.decode(error.frame, m.Forked)
        except FrameError as nonsense:
            self._break(str(nonsense))
            return
        child = self.children.pop(message.process_id, None)
        if child is not None:
            self._disowned.add(message.process_id)
            child.disown(f"this process: {error}")

    def _break_if_alive(self, complaint: str) -> None:
        if self._pidfd != -1 and self._is_open:
            self._break(complaint)

    def _break(self, complaint: str) -> None:
        self._report(v.LauncherBroke(self._number, complaint))

    # --- the end of the zygote -------------------------------------------------------------------

    def close(self) -> None:
        """Ask the zygote to end all processes below it, and to exit."""
        if self._is_open:
            with suppress(OSError):  # the zygote is dead; or it does not read, and will see the channel's hang-up
                fd_packets.send(self._channel, m.encode(m.Stop()))
            self._close_channel()

    def kill(self) -> None:
        """Send SIGKILL to the zygote. Its children live on, as children of this process."""
        if self._pidfd != -1:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def forget(self) -> None:
        """Close the channels of a zygote that lives on, and reap the zygote when it dies."""
        self._let_go()
        self._loop.remove_reader(self._pidfd)
        self._loop.add_reader(self._pidfd, self._reap)

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        ending_of(self._popen)
        os.close(self._pidfd)
        self._pidfd = -1

    def _on_death(self) -> None:
        self._loop.remove_reader(self._pidfd)
        ending = ending_of(self._popen)
        while self._on_readable():  # messages of the zygote from before its death still count
            continue
        self._let_go()
        os.close(self._pidfd)
        self._pidfd = -1
        has_begun = self._dump_fd is not None
        cause = f"the zygote ended while it loaded the app ({ending})"
        cause = cause if has_begun else never_began("the zygote", ending)
        self._report(v.LauncherLost(self._number, ending, cause))

    def _let_go(self) -> None:
        if self._is_open:
            self._close_channel()
        for capture in self._captures:
            capture.finish()
        self._captures.clear()  # the captures refer to this object: leave no cycle
        self._outlet.finish()
        if self._dump is not None:
            self._dump.finish()
            self._dump = None  # the taker refers to this object, too
        self._channels.close()

    def _close_channel(self) -> None:
        self._is_open = False
        self._outbox.clear()
        self._loop.remove_reader(self._channel)
        self._loop.remove_writer(self._channel)
        self._channel.detach()
        self._channels.close_channel()

    def _emit(self, line: output.OutputLine | output.Loss) -> None:
        output.emit(line, self._ids)

    @property
    def _ids(self) -> dict[str, object]:
        """Fields of log lines about this zygote."""
        process_id = f"zygote-{self._generation}"
        return {
            "process_id": process_id,
            "job_pid": self._popen.pid,
            "job_id": None,
            "generation": self._generation,
        }


def load_error(error: ErrorInfo) -> AppLoadError:
    """Return the exception for an error with which an app did not load."""
    if error.type == name_of(WallMissing):
        return WallMissing(clean(error.message))
    return AppLoadError(f"the app did not load: {explained(error)}")


def explained(error: ErrorInfo) -> str:
    """Return an error as text. Only an error of the user's code is returned with its traceback."""
    return error.message if error.type == name_of(AppLoadError) else f"{error}\n{error.traceback}"
