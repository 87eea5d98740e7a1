"""Server that a script hands over, as plain data: taken apart in the script's process, put together in the zygote."""

from __future__ import annotations

import dataclasses
import importlib
import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any

from livekit.agents import AgentServer, Plugin, WorkerOptions

from ....app import App
from ....errors import AppLoadError
from ....zygote.script.script_file import import_script
from ....zygote.script.script_handover import current_handover
from .adapter import adapt
from .blueprint import Blueprint, Unfound, server_of
from .by_reference import NotImportable, made, plain
from .log_levels import Level, set_levels
from .manifest import describe as manifest_of
from .worker_view import EVENTS

__all__ = ["describe", "level_of", "put_together"]

_logger = logging.getLogger("greenroom.livekit")

_OF_ITS_PROCESS = ("_lock", "_mp_ctx", "_loop", "_events", "_closed", "_draining", "_connecting", "_connection_failed")
"""Attributes of an ``AgentServer`` that belong to its process, and are not settings."""
_LOAD = ("load_fnc", "_load_fnc")
_UNFOUND = "unfound"


# --- in the script's process ----------------------------------------------------------------------


def describe(source: Any, place: str, before: Mapping[str, Any] | None) -> dict[str, Any]:
    """Take the server of a script apart.

    ``place`` is the file and line of the call that serves it, for errors. ``before`` holds the attributes that the
    server had before the main block; ``None`` if the main block has made the server.
    Raises :class:`AppLoadError` for an object that no other process could find.
    """
    if not isinstance(source, (AgentServer, WorkerOptions)):
        raise AppLoadError(f"{place}: a {type(source).__name__} cannot be served. Pass an AgentServer or WorkerOptions")
    name = _name_in_script(source)
    if name is None or before is None:
        before = _defaults_of(source)
    found = {key: value for key, value in _attributes(source).items() if not _is_same(value, before, key)}
    packages = dict.fromkeys(plugin.package for plugin in Plugin.registered_plugins)
    return {
        "is_options": isinstance(source, WorkerOptions),
        "name": name,
        "place": place,
        "values": {key: _described(key, value, place) for key, value in found.items()},
        "handlers": list(_handlers(source, before)),
        "plugins": [package for package in packages if package != "__main__"],
    }


def level_of(source: Any) -> int:
    """Return the log level, as in the app's other processes. Sets the level of LiveKit's loggers, too."""
    server = server_of(source)
    level = Level(manifest_of(Blueprint.of(server), source)["options"].get("log_level"), os.environ).number
    set_levels(level)
    return level


def _name_in_script(source: Any) -> str | None:
    """Return the server's name in the script; ``None`` if the main block has made it.

    Other processes find a server by its name only if it exists before the main block begins.
    """
    names = current_handover().before_block.items()
    return next((name for name, value in names if value is source), None)


def _attributes(source: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(source).items() if name not in _OF_ITS_PROCESS}


def _defaults_of(source: Any) -> dict[str, Any]:
    if isinstance(source, WorkerOptions):
        fields = dataclasses.fields(source)
        return {field.name: field.default for field in fields if field.default is not dataclasses.MISSING}
    return dict(vars(AgentServer()))


def _is_same(value: Any, before: Mapping[str, Any], name: str) -> bool:
    return name in before and (value is before[name] or (type(value) is type(before[name]) and value == before[name]))


def _described(name: str, value: Any, place: str) -> Any:
    try:
        return plain(value, _is_shared)
    except NotImportable as error:
        if name in _LOAD:  # the worker runs without a load_fnc, and logs that
            return {"kind": _UNFOUND, "why": str(error)}
        raise AppLoadError(
            f"{place}: {name.removeprefix('_')} cannot be found by the processes of the jobs: {error}. Define it at "
            f"the top level of a file, outside of any function and of 'if __name__ == \"__main__\"'. It can read its "
            f"data from sys.argv, the environment and proc.userdata"
        ) from None


def _handlers(source: Any, before: Mapping[str, Any]) -> Iterator[list[Any]]:
    """Yield the worker's event handlers that the main block has added. Log a warning for one that cannot be shared."""
    known = before.get("_events") or {}
    for event in EVENTS:
        for handler in getattr(source, "_events", {}).get(event, ()):
            if handler in known.get(event, ()):
                continue
            try:
                yield [event, plain(handler, _is_shared)]
            except NotImportable as error:
                name = getattr(handler, "__qualname__", repr(handler))
                _logger.warning(
                    "%s is not called at %s: %s. Define it at the top level of a file, and register it by server.on() "
                    "there or in the main block", name, event, error,
                )  # fmt: skip


def _is_shared(reference: list[str]) -> bool:
    """Return whether other processes find this object, too. They do not find an object of the main block."""
    place, path = reference
    script = current_handover().script
    return place not in (script.path, script.name) or path.partition(".")[0] in current_handover().before_block


# --- in the zygote --------------------------------------------------------------------------------


def put_together(handed: Mapping[str, Any], script: str) -> App:
    """Make the app from the data that a script has handed over. ``script`` is its file or module, already imported.

    Raises :class:`AppLoadError`.
    """
    for package in handed["plugins"]:
        importlib.import_module(package)
    values = {name: _decoded(name, value, handed["place"]) for name, value in handed["values"].items()}
    source = _source(handed, values, script)
    for event, handler in handed.get("handlers") or ():
        source.on(event, _decoded(event, handler, handed["place"]))  # type: ignore[union-attr]
    return adapt(source)


def _source(handed: Mapping[str, Any], values: dict[str, Any], script: str) -> AgentServer | WorkerOptions:
    if handed["name"] is None:
        if handed["is_options"]:
            return WorkerOptions(**values)
        source: Any = AgentServer()
    else:
        source = getattr(_imported(script), handed["name"], None)
    if not isinstance(source, WorkerOptions if handed["is_options"] else AgentServer):
        raise AppLoadError(
            f"{script} has no {handed['name']} any more, but {handed['place']} serves it. Restart the worker to run "
            f"the main block again"
        )
    for name, value in values.items():
        setattr(source, name, value)
    return source


def _imported(script: str) -> Any:
    return import_script(script) if script.endswith(".py") else importlib.import_module(script)


def _decoded(name: str, value: Any, place: str) -> Any:
    if name in _LOAD and isinstance(value, Mapping) and value.get("kind") == _UNFOUND:
        return Unfound(value["why"])
    option = name.removeprefix("_")
    try:
        return made(value, f"{option}, served by {place}")
    except AppLoadError:
        raise
    except Exception as error:  # the user's classes may raise anything
        raise AppLoadError(
            f"{place}: {option} cannot be created again in another process: {type(error).__name__}: {error}"
        ) from error
