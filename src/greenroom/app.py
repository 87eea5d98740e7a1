"""App: functions that a user registers, and the name by which another process finds them."""

from __future__ import annotations

import inspect
import socket
import sys
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar, overload

from .app_service import AppService, checked
from .errors import AppLoadError, GreenroomError

if TYPE_CHECKING:
    from .app_facts import AppSetting
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
    """Application: the functions that a :class:`~greenroom.ProcessPool` runs.

    Assign the app at the top level of a module, so that other processes can import it.

    ``allow_threads`` names threads that may be alive in the zygote when it forks, by their Python or native names.
    A fork copies only the calling thread. A lock that another thread holds at that moment stays locked in each
    child. So the zygote refuses all threads that are not named here.

    ``version`` is a text that names the app's code, such as a release or a commit. Metrics and the records of jobs have
    it. The default is ``__version__`` of the app's module, if there is one. A reload reads it again.
    """

    def __init__(self, *, allow_threads: Iterable[str] = (), version: str | None = None) -> None:
        if isinstance(allow_threads, str):
            raise GreenroomError("allow_threads takes a list of names, not one string")
        if version is not None and not isinstance(version, str):
            raise GreenroomError(f"version takes a text, not {version!r}")
        self.version = version
        """Version of the app's code; ``None`` if it has none."""
        self.allow_threads = frozenset(allow_threads)
        self.manifest: dict[str, Any] = {}
        """For integrations: plain data for the supervisor, which never imports the app. The zygote reads the data after
        ``preload``."""
        self.preload_fn: Preload | None = None
        self.prewarm_fn: Prewarm | None = None
        self.entrypoint_fn: Entrypoint | None = None
        self.request_fn: RequestFn | None = None
        self.answers: dict[str, Callable[[Any], object]] = {}
        """For integrations: functions, sync or async, that answer questions in the resident process, by topic.

        The argument is the question's data. The return value is the answer and must be plain data. If the function
        raises an exception, the caller gets an error."""
        self.hears: dict[str, Callable[[str, Any], object]] = {}
        """For integrations: functions that hear news in the resident process, by topic.

        The first argument is the key of the news. The second one is the data, or ``None`` when the news no longer
        holds. The functions are sync. The event loop calls them in the order of the news."""
        self.app_services: dict[str, AppService] = {}
        """For integrations: services that :meth:`service` has registered, by name."""
        self.services: dict[str, Callable[[socket.socket], object]] = {}
        """For integrations: functions that run in processes which all jobs share, by name."""
        self.end_timeout = 0.0
        """For integrations: seconds from :meth:`JobContext.begin_own_end` to the shutdown callbacks of the job."""
        self.log_level: int | None = None
        """For integrations: level of the root logger. ``None`` stands for INFO, unless the app sets up logging."""
        self.settings: dict[str, AppSetting] = {}
        """For integrations: values that the app sets for Greenroom's settings, by name."""
        self.logs_its_errors = False
        """For integrations: true if the framework logs the exception of an entrypoint."""
        self.prewarm_name = "prewarm"
        """For integrations: the framework's name for ``prewarm``."""
        self._module = sys._getframe(1).f_globals.get("__name__", "")

    def preload(self, fn: P) -> P:
        """Register the sync function that runs once in the zygote, before all forks.

        Use it for large imports and for models that are only read. All processes share this memory.
        """
        if inspect.iscoroutinefunction(fn):
            raise GreenroomError(f"preload function {fn.__qualname__} is async; an event loop must not be forked")
        self._once("preload", self.preload_fn, fn)
        self.preload_fn = fn
        return fn

    def prewarm(self, fn: W) -> W:
        """Register the function, sync or async, that runs once in each process, before the process is idle.

        Use it for connections, threads and event loops. :attr:`JobProcess.userdata` keeps results for the entrypoint.
        """
        self._once("prewarm", self.prewarm_fn, fn)
        self.prewarm_fn = fn
        return fn

    def entrypoint(self, fn: E) -> E:
        """Register the function that is the job. The return value is the job's result: plain data or bytes.

        The function should be async. A sync function runs in a thread.
        """
        self._once("entrypoint", self.entrypoint_fn, fn)
        self.entrypoint_fn = fn
        return fn

    def request(self, fn: R) -> R:
        """Register the function, sync or async, that accepts or rejects an offered job.

        The function returns ``True``, ``False``, :class:`~greenroom.Accept` or :class:`~greenroom.Reject`. The function
        runs in the resident process and has ``request_timeout`` seconds. The job is rejected if the function raises or
        returns any other value. Without an answer in time, the option ``request_failure`` decides.
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
        """Register a service: one process that all jobs call by ``ctx.service(name)``.

        Use a service for a model that cannot be forked. The registered function runs once in that process, loads the
        model, and returns the function that answers calls. The answering function may be async; a sync function runs
        in ``concurrency`` threads. The default ``name`` is the name of the registered function.

        ``timeout`` is the number of seconds for a call, the wait included, unless the caller sets another one. The
        service holds the data of ``queue`` waiting calls. Further callers keep their data until there is room.
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
        """Return the name by which another process imports this app: ``module:attr`` or ``path.py:attr``.

        Raises :class:`AppLoadError` for an app that is not a global variable of the module that made the app.
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
