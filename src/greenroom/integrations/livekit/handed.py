"""What a script hands to LiveKit's worker, as plain data: taken apart in its process, put together in the zygote."""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Mapping
from typing import Any

from livekit.agents import AgentServer, Plugin, WorkerOptions

from ...app import App
from ...errors import AppLoadError
from ...zygote.program.desk import the_desk
from ...zygote.scripts import import_script
from .adapter import adapt, warn_of_events
from .blueprint import Blueprint, server_of
from .by_reference import NotImportable, made, plain
from .log_levels import Level, set_levels
from .manifest import describe as manifest_of

__all__ = ["describe", "level_of", "put_together"]

_OF_ITS_PROCESS = ("_lock", "_mp_ctx", "_loop", "_events", "_closed", "_draining", "_connecting", "_connection_failed")
"""What an ``AgentServer`` keeps for itself, beside what was set."""
_NOT_CALLED = ("load_fnc", "_load_fnc")


# --- in the script's process ----------------------------------------------------------------------


def describe(source: Any, place: str, before: Mapping[str, Any] | None) -> dict[str, Any]:
    """Take apart what the script serves. ``place`` is where it does, for errors; ``before`` are the attributes that
    it had when the main block began, if it was there.

    Raises :class:`AppLoadError` for what no other process could find.
    """
    if not isinstance(source, (AgentServer, WorkerOptions)):
        raise AppLoadError(
            f"{place}: a {type(source).__name__} cannot be served; it takes an AgentServer or WorkerOptions"
        )
    name = _name_in_script(source)
    warn_of_events(server_of(source))
    if name is None or before is None:
        before = _defaults_of(source)
    found = {key: value for key, value in _attributes(source).items() if not _is_same(value, before, key)}
    packages = dict.fromkeys(plugin.package for plugin in Plugin.registered_plugins)
    return {
        "is_options": isinstance(source, WorkerOptions),
        "name": name,
        "place": place,
        "values": {key: _described(key, value, place) for key, value in found.items()},
        "plugins": [package for package in packages if package != "__main__"],
    }


def level_of(source: Any) -> int:
    """Return the level of the log, as in the app's other processes; LiveKit's loggers have it from now on."""
    server = server_of(source)
    level = Level(manifest_of(Blueprint.of(server), source)["options"].get("log_level"), os.environ).number
    set_levels(level)
    return level


def _name_in_script(source: Any) -> str | None:
    """Return its name in the script, if it had it before the main block began: then other processes find it there."""
    names = the_desk().before_block.items()
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
    if name in _NOT_CALLED:
        return None
    try:
        return plain(value, _is_shared)
    except NotImportable as error:
        raise AppLoadError(
            f"{place}: {name.removeprefix('_')} cannot be found by the processes of the jobs: {error}. Define it at "
            f"the top level of a file, outside of any function and of 'if __name__ == \"__main__\"'; what it needs to "
            f"know is in sys.argv, the environment and proc.userdata"
        ) from None


def _is_shared(reference: list[str]) -> bool:
    """Whether other processes find it, too: what the main block itself has made, they do not."""
    place, path = reference
    script = the_desk().script
    return place not in (script.path, script.name) or path.partition(".")[0] in the_desk().before_block


# --- in the zygote --------------------------------------------------------------------------------


def put_together(handed: Mapping[str, Any], script: str) -> App:
    """Make the app of what the script at this place, which has been imported, has handed over.

    Raises :class:`AppLoadError`.
    """
    for package in handed["plugins"]:
        importlib.import_module(package)
    values = {name: _decoded(name, value, handed["place"]) for name, value in handed["values"].items()}
    return adapt(_source(handed, values, script), is_handed=True)


def _source(handed: Mapping[str, Any], values: dict[str, Any], script: str) -> AgentServer | WorkerOptions:
    if handed["name"] is None:
        if handed["is_options"]:
            return WorkerOptions(**values)
        source: Any = AgentServer()
    else:
        source = getattr(_imported(script), handed["name"], None)
    if not isinstance(source, WorkerOptions if handed["is_options"] else AgentServer):
        raise AppLoadError(
            f"{script} has no {handed['name']} any more, which {handed['place']} serves; restart the worker to run its "
            f"main block anew"
        )
    for name, value in values.items():
        setattr(source, name, value)
    return source


def _imported(script: str) -> Any:
    return import_script(script) if script.endswith(".py") else importlib.import_module(script)


def _decoded(name: str, value: Any, place: str) -> Any:
    if name in _NOT_CALLED:
        return _unused
    option = name.removeprefix("_")
    try:
        return made(value, f"{option}, served by {place}")
    except AppLoadError:
        raise
    except Exception as error:  # whatever the user's classes raise
        raise AppLoadError(
            f"{place}: {option} cannot be made anew in another process: {type(error).__name__}: {error}"
        ) from error


def _unused(*arguments: object) -> float:
    """Stand for ``load_fnc``, which is not called."""
    return 0.0
