"""Loader: finds and imports the app, and collects its facts and settings."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from types import ModuleType
from typing import Any

from ..app import App
from ..app_facts import AppFacts, packed
from ..errors import AppLoadError, PayloadError
from ..integrations import installed
from ..wire import payload
from ..wire.messages import ChildSettings, Configure
from .app_modules import modules_of_app
from .script.script_file import SPARE_NAME, Script, import_script, is_path, module_of
from .script.script_handover import apply

__all__ = [
    "child_settings",
    "facts_of",
    "load_app",
    "refuse_forks_of_numba",
    "refuse_replaced_library",
    "refuse_services",
    "warnings_of",
]

LARGEST_MANIFEST = 16 * 1024

_DEFAULT_NAME = "app"


def load_app(reference: str, arguments: Sequence[str] | None = None, handed: Mapping[str, Any] | None = None) -> App:
    """Import ``module:attr`` or ``path.py:attr``, and return the app. Errors of the import itself come through.

    ``arguments`` become ``sys.argv[1:]`` of the app. ``handed`` is the data that its script has handed over, if the
    script was run. Raises :class:`AppLoadError` if there is no app, or if the app has no entrypoint.
    """
    place, colon, attribute = reference.rpartition(":")
    if not colon:
        place = reference
    if handed is not None:
        app = _put_together(place, handed)
    else:
        if arguments is not None:
            sys.argv[:] = [place, *arguments]
        module = _import(place)
        app = _with_version(_find(module, attribute) if colon else _find_unnamed(module), module)
    if app.entrypoint_fn is None:
        raise AppLoadError(f"the app {reference!r} has no entrypoint; mark one function with @app.entrypoint")
    return app


def refuse_replaced_library() -> None:
    """Raise :class:`AppLoadError` if gevent has replaced functions of the standard library by its own."""
    if getattr(sys.modules.get("gevent.monkey"), "saved", None):
        raise AppLoadError(
            "gevent.monkey.patch_all() has replaced the threads, sockets and signals of the standard library, but "
            "Greenroom needs the originals. Remove this call: each job has its own process with an asyncio event loop. "
            "Put blocking calls into a sync entrypoint, or into asyncio.to_thread"
        )


def refuse_services(app: App) -> None:
    """Raise :class:`AppLoadError` if the app has services. Called in a process that no zygote has forked."""
    if app.app_services:
        names = ", ".join(map(repr, sorted(app.app_services)))
        raise AppLoadError(
            f"start_method='spawn' cannot run the services of the app ({names}): they are forked from a zygote, and "
            f"'spawn' has none. Remove start_method. Import modules that must not be forked in the service's function"
        )


def refuse_forks_of_numba() -> None:
    """Raise :class:`AppLoadError` if numba has started GNU OpenMP, which ends each child that computes in parallel."""
    layer = sys.modules.get("numba.np.ufunc.parallel")
    if getattr(layer, "_is_initialized", False) and getattr(layer, "_threading_layer", "") == "omp":
        raise AppLoadError(
            "a function that numba compiles with parallel=True was compiled or called before the fork: numba's GNU "
            "OpenMP ends each forked process that calls such a function. Call it for the first time in prewarm "
            "(cache=True keeps the compiled code), or compile it without parallel=True, since each job has one thread"
        )


def warnings_of(handed: Mapping[str, Any] | None) -> list[str]:
    """Return a warning if a script that was run has changed so that it would hand over something else now."""
    script = Script.find(handed["script"]) if handed is not None else None
    if handed is None or script is None or script.fingerprint() == handed["block"]:
        return []
    return [
        f"the main block of {script.path}, or a function of the file that it calls, has changed since its run: the "
        f"result of that run is kept, with the current functions. Restart the worker to run the main block again"
    ]


def facts_of(app: App) -> AppFacts:
    """Return the app's facts for the supervisor. Raises :class:`AppLoadError` for a manifest that cannot be sent."""
    try:
        size = len(payload.encode(app.manifest))
    except PayloadError as error:
        raise AppLoadError(f"the app's manifest cannot be sent to the supervisor: {error}") from error
    if size > LARGEST_MANIFEST:
        raise AppLoadError(f"the app's manifest has {size} bytes; at most {LARGEST_MANIFEST} can be sent")
    topics = sorted({*app.answers, *app.hears})
    own_settings, version = packed(app.settings), app.version or ""
    return AppFacts(app.request_fn is not None, app.manifest, app.end_timeout, own_settings, topics, version)


def child_settings(app: App, configuration: Configure) -> ChildSettings:
    """Return the settings of a child. A setting of the app counts only if the operator has not set it."""
    left = app.settings.keys() - set(configuration.fixed)
    names = left.intersection(field.name for field in fields(ChildSettings))
    values: dict[str, Any] = {name: app.settings[name].value for name in names}
    return replace(configuration.child, **values)


def _import(place: str) -> ModuleType:
    try:
        return import_script(place) if is_path(place) else importlib.import_module(place)
    except SystemExit as stop:
        raise AppLoadError(
            f"{place} ended the program while it was imported: {_described(stop)}. Put code that reads the command "
            f'line or runs the program under `if __name__ == "__main__":`, which is not run here. For values that the '
            f"app needs at import, use os.environ"
        ) from stop


def _described(stop: SystemExit) -> str:
    """Return the text of an exit, and the line of the app that caused it."""
    frames = traceback.extract_tb(stop.__traceback__)
    own = {getattr(module, "__file__", None) for module in modules_of_app()}
    lines = [frame for frame in frames if frame.filename in own]
    place = f" ({lines[-1].filename}, line {lines[-1].lineno})" if lines else ""
    return f"SystemExit: {stop}{place}"


def _put_together(place: str, handed: Mapping[str, Any]) -> App:
    """Make the app from the data that a script has handed over, in the same surroundings."""
    if is_path(place):
        place = os.path.abspath(place)  # now, since apply() changes the working folder
    apply(handed)
    module = None
    if os.path.basename(handed["script"]) != "__main__.py":  # a __main__.py has only a main block
        module = _import(place)
        if module.__name__ != SPARE_NAME:
            sys.modules["__main__"] = module  # as in children of multiprocessing: pickles may use this name
    discovery = next(each.discovery for each in installed() if each.framework == handed["framework"])
    integration: Any = importlib.import_module(discovery)
    return _with_version(integration.put_together(handed["object"], place), module)


def _with_version(app: App, module: ModuleType | None) -> App:
    """Give the app the ``__version__`` of its module, unless the app names a version itself."""
    version = getattr(module, "__version__", None)
    if app.version is None and isinstance(version, str):
        app.version = version
    return app


def _find(module: ModuleType, attribute: str) -> App:
    value: object = getattr(module, attribute, None)
    if isinstance(value, App):
        return value
    for integration in _integrations():
        if integration.is_server(value):
            return integration.adapt(value)  # type: ignore[no-any-return]
    if value is not None:
        kind = f"a {type(value).__name__}, not a greenroom.App, nor an AgentServer or WorkerOptions of livekit-agents"
        raise AppLoadError(f"{attribute!r} of {_named(module)} is {kind}")
    raise AppLoadError(f"{_named(module)} has no {attribute!r}{_hint(module)}")


def _find_unnamed(module: ModuleType) -> App:
    """Return the app that is called ``app``; else the app of another framework's object."""
    if isinstance(getattr(module, _DEFAULT_NAME, None), App) or _apps_in(module):
        return _find(module, _DEFAULT_NAME)
    for integration in _integrations():
        app: App | None = integration.find(module)
        if app is not None:
            return app
    return _find(module, _DEFAULT_NAME)


def _integrations() -> Iterator[ModuleType]:
    """Yield the integrations whose framework the app itself has imported. No other integration is imported."""
    for integration in installed():
        if integration.framework in sys.modules:
            try:
                yield importlib.import_module(integration.discovery)
            except ImportError as error:
                raise AppLoadError(f"Greenroom needs {integration.needs}: {error}") from error


def _apps_in(module: ModuleType) -> list[str]:
    return [name for name, value in vars(module).items() if isinstance(value, App)]


def _named(module: ModuleType) -> str:
    """Return the file of a script, or a module's name."""
    path = getattr(module, "__file__", None)
    return path if path is not None and module_of(path) is module else f"module {module.__name__!r}"


def _hint(module: ModuleType) -> str:
    there = _apps_in(module)
    return f"; there is {', '.join(there)}" if there else "; make one: app = greenroom.App()"
