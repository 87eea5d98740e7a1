"""Finding and importing the app."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from importlib.machinery import SourceFileLoader
from types import ModuleType
from typing import Any, NoReturn

from ..app import App
from ..app_setting import packed
from ..errors import AppLoadError, PayloadError
from ..wire import payload
from ..wire.messages import AppFacts, ChildSettings, Configure

__all__ = ["MAIN_NAME", "child_settings", "facts_of", "load_app"]

LARGEST_MANIFEST = 16 * 1024
MAIN_NAME = "__greenroom_app__"
"""The module name of an app that is loaded from a file: not ``__main__``, so its guard stays shut."""

_DEFAULT_NAME = "app"

_FRAMEWORKS = {"livekit.agents": ("..integrations.livekit.discovery", "livekit-agents 1.5 or later")}


def load_app(reference: str) -> App:
    """Import ``module:attr`` or ``path.py:attr``. What the import itself raises comes through."""
    place, colon, attribute = reference.rpartition(":")
    if not colon:
        place = reference
    module = _from_file(place) if place.endswith(".py") or os.sep in place else importlib.import_module(place)
    app = _find(module, attribute) if colon else _find_unnamed(module)
    if app.entrypoint_fn is None:
        raise AppLoadError(f"the app {reference!r} has no entrypoint; mark one function with @app.entrypoint")
    return app


def facts_of(app: App) -> AppFacts:
    """What the supervisor is told of the app. Raises :class:`AppLoadError` for a manifest that cannot be sent."""
    try:
        size = len(payload.encode(app.manifest))
    except PayloadError as error:
        raise AppLoadError(f"the app's manifest cannot be sent to the supervisor: {error}") from error
    if size > LARGEST_MANIFEST:
        raise AppLoadError(f"the app's manifest has {size} bytes; at most {LARGEST_MANIFEST} can be sent")
    return AppFacts(app.request_fn is not None, app.manifest, packed(app.settings))


def child_settings(app: App, configuration: Configure) -> ChildSettings:
    """What holds in a child: what the app sets, where the operator has set nothing."""
    left = app.settings.keys() - set(configuration.fixed)
    names = left.intersection(field.name for field in fields(ChildSettings))
    values: dict[str, Any] = {name: app.settings[name].value for name in names}
    return replace(configuration.child, **values)


def _find(module: ModuleType, attribute: str) -> App:
    value: object = getattr(module, attribute, None)
    if isinstance(value, App):
        return value
    for integration in _integrations():
        if integration.is_server(value):
            return integration.adapt(value)  # type: ignore[no-any-return]
    if value is not None:
        kind = f"a {type(value).__name__}, not a greenroom.App, nor an AgentServer or WorkerOptions of livekit-agents"
        raise AppLoadError(f"{attribute!r} of module {module.__name__!r} is {kind}")
    raise AppLoadError(f"module {module.__name__!r} has no {attribute!r}{_hint(module)}")


def _find_unnamed(module: ModuleType) -> App:
    """The app that is called ``app``; else the one that another framework's object stands for."""
    if isinstance(getattr(module, _DEFAULT_NAME, None), App) or _apps_in(module):
        return _find(module, _DEFAULT_NAME)
    for integration in _integrations():
        app: App | None = integration.find(module)
        if app is not None:
            return app
    return _find(module, _DEFAULT_NAME)


def _integrations() -> Iterator[ModuleType]:
    """Those for frameworks that the app itself has imported: nothing is imported on suspicion."""
    for framework, (name, needs) in _FRAMEWORKS.items():
        if framework in sys.modules:
            try:
                yield importlib.import_module(name, __package__)
            except ImportError as error:
                raise AppLoadError(f"Greenroom needs {needs}: {error}") from error


def _apps_in(module: ModuleType) -> list[str]:
    return [name for name, value in vars(module).items() if isinstance(value, App)]


def _hint(module: ModuleType) -> str:
    there = _apps_in(module)
    return f"; there is {', '.join(there)}" if there else "; make one: app = greenroom.App()"


def _from_file(path: str) -> ModuleType:
    path = os.path.abspath(path)
    if not os.path.isfile(path):
        raise AppLoadError(f"there is no file {path}")
    # As Python does for a script: its neighbours can be imported.
    sys.path.insert(0, os.path.dirname(path))
    loader = _ScriptLoader(MAIN_NAME, path)
    spec = importlib.util.spec_from_file_location(MAIN_NAME, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[MAIN_NAME] = module
    loader.exec_module(module)
    return module


class _ScriptLoader(SourceFileLoader):
    """Compiles the file anew each time, as Python does for a script.

    What Python has compiled and kept is told to be stale by the file's size and its time in whole
    seconds: an edit of one digit, reloaded within the second, would go on as it was.
    """

    def path_stats(self, path: str) -> NoReturn:
        raise OSError("not kept")
