"""The app: what a user registers, and where it can be found again by another process."""

from __future__ import annotations

import inspect
import socket
import sys
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar, overload

from .app_service import AppService, checked
from .errors import AppLoadError, GreenroomError

if TYPE_CHECKING:
    from .app_setting import AppSetting
    from .job import Accept, JobContext, JobProcess, JobRequest, Reject

__all__ = ["App"]

Preload = Callable[[], object]
Prewarm = Callable[["JobProcess"], object | Awaitable[object]]
Entrypoint = Callable[["JobContext"], object | Awaitable[object]]
RequestFn = Callable[["JobRequest"], "bool | Accept | Reject | Awaitable[bool | Accept | Reject]"]

P = TypeVar("P", bound=Preload)
W = TypeVar("W", bound=Prewarm)
E = TypeVar("E", bound=Entrypoint)
R = TypeVar("R", bound=RequestFn)
L = TypeVar("L", bound=Callable[[], Callable[..., Any]])


class App:
    """The functions of an application, to be served by a :class:`~greenroom.ProcessPool`.

    ``allow_threads`` names threads that may be alive in the zygote when it forks (by their Python
    or native name). A fork copies only the calling thread: whatever lock another one holds at that
    moment stays locked in every child for ever. So a thread is refused unless it is named here.

    ``manifest`` is plain data for the supervisor, which never imports the app: what an integration
    there has to know of it. It is read when the app has loaded, after ``preload``.
    """

    def __init__(self, *, allow_threads: Iterable[str] = ()) -> None:
        if isinstance(allow_threads, str):
            raise GreenroomError("allow_threads takes a list of names, not one string")
        self.allow_threads = frozenset(allow_threads)
        self.manifest: dict[str, Any] = {}
        self.preload_fn: Preload | None = None
        self.prewarm_fn: Prewarm | None = None
        self.entrypoint_fn: Entrypoint | None = None
        self.request_fn: RequestFn | None = None
        self.app_services: dict[str, AppService] = {}
        """What :meth:`service` has registered, by name."""
        self.services: dict[str, Callable[[socket.socket], object]] = {}
        """For integrations: processes that all jobs share, by name; see :mod:`greenroom.zygote.services`."""
        self.end_timeout = 0.0
        """For integrations: seconds that a job may take, once it has begun to end by itself, until its shutdown
        callbacks; see :meth:`JobContext.begin_own_end`."""
        self.log_level: int | None = None
        """For integrations: the level of the root logger. ``None``: INFO, unless the app sets up logging itself."""
        self.settings: dict[str, AppSetting] = {}
        """For integrations: what the app sets of Greenroom's settings, by name."""
        self.logs_its_errors = False
        """For integrations: their framework logs what the entrypoint raises."""
        self.prewarm_name = "prewarm"
        """For integrations: what their framework calls it."""
        self._module = sys._getframe(1).f_globals.get("__name__", "")

    def preload(self, fn: P) -> P:
        """Run once, in the zygote, before any fork: heavy imports, read-only models. Sync."""
        if inspect.iscoroutinefunction(fn):
            raise GreenroomError(f"preload function {fn.__qualname__} is async; an event loop must not be forked")
        self._once("preload", self.preload_fn, fn)
        self.preload_fn = fn
        return fn

    def prewarm(self, fn: W) -> W:
        """Run once in each process, before it is offered a job. Sync or async."""
        self._once("prewarm", self.prewarm_fn, fn)
        self.prewarm_fn = fn
        return fn

    def entrypoint(self, fn: E) -> E:
        """The job; its return value is the job's result. Async; a sync function runs in a thread."""
        self._once("entrypoint", self.entrypoint_fn, fn)
        self.entrypoint_fn = fn
        return fn

    def request(self, fn: R) -> R:
        """Accept or turn down a session that is offered: return ``True``, ``False``, :class:`~greenroom.Accept`
        or :class:`~greenroom.Reject`. Sync or async.

        It runs in the warm process that the session would get, and has ``request_timeout`` seconds. If it
        raises or returns anything else, the session is turned down; if it is late, that process is ended.
        """
        self._once("request", self.request_fn, fn)
        self.request_fn = fn
        return fn

    @overload
    def service(self, name: L, /) -> L: ...

    @overload
    def service(
        self, name: str | None = None, /, *, concurrency: int = 1, timeout: float = 30.0, queue: int = 64
    ) -> Callable[[L], L]: ...

    def service(self, name: Any = None, /, *, concurrency: int = 1, timeout: float = 30.0, queue: int = 64) -> Any:
        """Run one process that all sessions call by ``ctx.service(name)``: for a model that cannot be forked.

        The function runs once in that process: it loads the model, and returns the function that answers calls, which
        may be async. A sync one runs in ``concurrency`` threads. ``timeout`` is the seconds that a call may take, the
        wait included, unless the caller says otherwise. The data of ``queue`` calls waits in the service; further
        callers wait with theirs. The name is that of the function, unless it is given.
        """

        def register(load: L) -> L:
            own = getattr(load, "__name__", None) if name is None else name
            service = checked(AppService(own, load, concurrency, timeout, queue))  # type: ignore[arg-type]
            if service.name in self.app_services or service.name in self.services:
                raise GreenroomError(f"the app has a service {service.name!r} already. Give this one another name")
            self.app_services[service.name] = service
            return load

        if name is None or isinstance(name, str):
            return register
        load, name = name, None
        return register(load)

    def import_string(self) -> str:
        """Where another process finds this app: ``module:attr`` or ``path.py:attr``.

        Raises :class:`AppLoadError` for an app that is not a global of the module that made it.
        """
        module = sys.modules.get(self._module)
        names = [name for name, value in vars(module).items() if value is self] if module else []
        if not names:
            raise AppLoadError(
                f"the app made in module {self._module!r} is not a global variable there, so a new process "
                f"cannot import it; assign it at the top level of a module (app = greenroom.App())"
            )
        if self._module != "__main__":
            return f"{self._module}:{names[0]}"
        path = getattr(module, "__file__", None)
        if path is None:
            raise AppLoadError("an app made in an interactive session cannot be imported; put it into a file")
        return f"{path}:{names[0]}"

    def _once(self, role: str, present: Callable[..., Any] | None, fn: Callable[..., Any]) -> None:
        if not callable(fn):
            raise GreenroomError(f"@app.{role} takes a function, not {fn!r}")
        if present is not None:
            raise GreenroomError(f"the app has a {role} function already: {present.__qualname__}")
