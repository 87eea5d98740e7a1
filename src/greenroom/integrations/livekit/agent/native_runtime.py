"""Stand-in for LiveKit's native runtime while the app is imported. The runtime's threads would not survive a fork.

At its import, a plugin may request that the runtime load the plugin's library. The stand-in keeps the request, and
each process repeats it when its runtime starts. Any other use of the runtime is an error that names the place.

This module imports nothing of LiveKit, since the loader calls it in the middle of LiveKit's own import.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple, NoReturn

from ....errors import AppLoadError
from ....zygote.app_modules import callers, line_of, module_name_of
from ....zygote.script.script_file import module_of

__all__ = ["imported", "loaded"]

_LOAD_PLUGIN = "load_audio_filter_plugin"
_PASSED_OVER = ("livekit.rtc", "importlib", "greenroom", "ctypes")
"""Packages that pass a request on, and do not originate it."""


class _Waiting(NamedTuple):
    request: Any
    place: str


class _StandIn:
    """Object in the place of the runtime's client."""

    def __init__(self, messages: Any) -> None:
        self.waiting: list[_Waiting] = []
        self._messages = messages

    def request(self, request: Any) -> Any:
        if request.WhichOneof("message") != _LOAD_PLUGIN:
            _refuse(f"a request {request.WhichOneof('message')!r}")
        self.waiting.append(_Waiting(request, _place()))
        return self._messages.FfiResponse()

    def __getattr__(self, name: str) -> NoReturn:
        _refuse(f"its {name}")


_stand_in: _StandIn | None = None
_client: Any = None


def imported(module: ModuleType) -> None:
    """Put the stand-in in place, after the import of ``module`` (``livekit.rtc._ffi_client``)."""
    global _client, _stand_in
    _client = getattr(module, "FfiClient", None)
    if _client is None or not hasattr(_client, "_instance"):
        return
    stand_in = _stand_in = _StandIn(module.proto_ffi)
    start = _client.__init__

    def start_and_replay(client: Any) -> None:
        if _client._instance is stand_in:
            _refuse("a client of its own")
        start(client)
        for waiting in stand_in.waiting:
            _replay(client, waiting)

    _client.__init__ = start_and_replay
    _client._instance = stand_in


def loaded() -> None:
    """Remove the stand-in. From now on, each process starts its own runtime when it needs one."""
    if _stand_in is not None and _client._instance is _stand_in:
        _client._instance = None


def _replay(client: Any, waiting: _Waiting) -> None:
    error = client.request(waiting.request).load_audio_filter_plugin.error
    if error:
        path = waiting.request.load_audio_filter_plugin.plugin_path
        raise AppLoadError(f"LiveKit's native runtime did not load {path} for {waiting.place}: {error}")


def _refuse(what: str) -> NoReturn:
    raise AppLoadError(
        f"{_place()} used LiveKit's native runtime while the app was imported ({what}): its threads do not survive a "
        f"fork. Make such objects (an AudioSource, an AudioStream, an AudioResampler, a Room) in the entrypoint or in "
        f"setup_fnc, or set start_method to 'spawn'"
    )


def _place() -> str:
    """Return the module, file and line of the request, and the plugin, if a plugin is in the stack."""
    frames = [frame for frame in callers() if not _is_passed_over(module_name_of(frame))]
    names = [module_name_of(frame) for frame in frames]
    if not frames:
        return "an unknown module"
    own = next((frame for frame in frames if module_of(frame.f_code.co_filename) is not None), frames[0])
    imported_at = "" if own is frames[0] else f"; imported at {line_of(own)}"
    plugin = next((name for name in names if name.startswith("livekit.plugins.")), "")
    of_plugin = f" of the plugin {'.'.join(plugin.split('.')[:3])}" if plugin else ""
    return f"module {names[0]}{of_plugin} ({line_of(frames[0])}{imported_at})"


def _is_passed_over(module: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in _PASSED_OVER)
