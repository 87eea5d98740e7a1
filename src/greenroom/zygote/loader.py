"""Finding and importing the app."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from importlib.machinery import SourceFileLoader
from types import ModuleType
from typing import NoReturn

from ..app import App
from ..errors import AppLoadError, PayloadError
from ..wire import payload
from ..wire.messages import AppFacts

__all__ = ["MAIN_NAME", "facts_of", "load_app"]

LARGEST_MANIFEST = 16 * 1024
MAIN_NAME = "__greenroom_app__"
"""The module name of an app that is loaded from a file: not ``__main__``, so its guard stays shut."""


def load_app(reference: str) -> App:
    """Import ``module:attr`` or ``path.py:attr``. What the import itself raises comes through."""
    place, colon, attribute = reference.rpartition(":")
    if not colon:
        place, attribute = reference, "app"
    module = _from_file(place) if place.endswith(".py") or os.sep in place else importlib.import_module(place)
    app = _find(module, attribute, reference)
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
    return AppFacts(app.request_fn is not None, app.manifest)


def _find(module: ModuleType, attribute: str, reference: str) -> App:
    app: object = getattr(module, attribute, None)
    if isinstance(app, App):
        return app
    if app is not None:
        raise AppLoadError(f"{reference!r} is a {type(app).__name__}, not a greenroom.App")
    there = [name for name, value in vars(module).items() if isinstance(value, App)]
    hint = f"; there is {', '.join(there)}" if there else "; make one: app = greenroom.App()"
    raise AppLoadError(f"module {module.__name__!r} has no {attribute!r}{hint}")


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
