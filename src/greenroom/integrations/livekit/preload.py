"""What all processes of a livekit-agents app share: done once, before any fork, and without a thread."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
from collections.abc import Iterable
from types import ModuleType

from livekit.agents import Plugin, telemetry
from livekit.agents.utils import http_context
from livekit.rtc._ffi_client import get_ffi_lib

from .blueprint import Blueprint
from .manifest import export_credentials

__all__ = ["preload", "share"]

_logger = logging.getLogger("greenroom.livekit")

_WARM_UPS = (
    "livekit.agents.ipc._preload",  # from 1.8: all that follows, and more
    "livekit.agents.inference._warmup",  # 1.6 and 1.7: the weights of the local models
    "av",
)

_VARIABLES = ("ORT_DISABLE_TELEMETRY", "OPENBLAS_NUM_THREADS")


def preload(blueprint: Blueprint) -> None:
    """As LiveKit's own worker does in its forkserver."""
    os.environ.update(export_credentials(blueprint.server))
    share([*blueprint.preload_modules, *(plugin.package for plugin in Plugin.registered_plugins)])


def share(modules: Iterable[str]) -> None:
    """Import these and LiveKit's own, and make what each job would make."""
    _check_environment()
    _set_certificates()
    for module in modules:
        importlib.import_module(module)
    for module in _WARM_UPS:
        if importlib.util.find_spec(module) is not None:
            importlib.import_module(module)
    _share_what_sessions_make()
    get_ffi_lib()  # mapped here, so that all share it; the runtime in it starts threads, and is each process's own


def _check_environment() -> None:
    """Greenroom sets these for its processes; an operator's own value stands, and must be known for what it does."""
    for name in _VARIABLES:
        if os.environ.get(name) != "1":
            _logger.warning(
                "%s is %r: libraries of this app may start threads at import then, and forked processes hang", name,
                os.environ.get(name),
            )  # fmt: skip


def _set_certificates() -> None:
    """Where there is no system trust store, the rtc library is to find certifi's (from 1.6)."""
    _call_if_there(http_context, "_set_default_cert_env")


def _share_what_sessions_make() -> None:
    """What LiveKit makes once in a process and then keeps, and what is the same in all (from 1.8).

    A ``Room`` and the console, which each job makes, too, are not among it: in earlier releases they
    start the native runtime.
    """
    # The store of certificates: some 30 ms of the first use of an http_session(), or of its end.
    _call_if_there(http_context, "_create_ssl_context")
    # Searches all installed packages for plugins. Each process asks again, and then finds the answers at hand.
    _call_if_there(telemetry.traces, "_resource", {})


def _call_if_there(module: ModuleType, name: str, *arguments: object) -> None:
    function = getattr(module, name, None)
    if function is not None:
        function(*arguments)
