"""Preparation that all processes of a livekit-agents app share: done once, before any fork, without a thread."""

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
    "livekit.agents.ipc._preload",  # from 1.8: the two below, and more
    "livekit.agents.inference._warmup",  # 1.6 and 1.7: the weights of the local models
    "av",
)

_VARIABLES = ("ORT_DISABLE_TELEMETRY", "OPENBLAS_NUM_THREADS")


def preload(blueprint: Blueprint) -> None:
    """Prepare the zygote as LiveKit's own worker prepares its forkserver."""
    os.environ.update(export_credentials(blueprint.server))
    share([*blueprint.preload_modules, *(plugin.package for plugin in Plugin.registered_plugins)])


def share(modules: Iterable[str]) -> None:
    """Import these modules and LiveKit's own, and make the objects that each job would make."""
    _check_environment()
    _set_certificates()
    for module in modules:
        importlib.import_module(module)
    for module in _WARM_UPS:
        if importlib.util.find_spec(module) is not None:
            importlib.import_module(module)
    _share_what_sessions_make()
    get_ffi_lib()  # all processes share this mapping; its runtime starts threads, so each process starts one


def _check_environment() -> None:
    """Log a warning for a variable with an operator's own value. Greenroom sets the variable only if it is unset."""
    for name in _VARIABLES:
        if os.environ.get(name) != "1":
            _logger.warning(
                "%s is %r, so libraries of this app may start threads at import, and forked processes may hang. Set it "
                "to 1", name, os.environ.get(name),
            )  # fmt: skip


def _set_certificates() -> None:
    """Have the rtc library use certifi's certificates where the system has no trust store (from 1.6)."""
    _call_if_there(http_context, "_set_default_cert_env")


def _share_what_sessions_make() -> None:
    """Make the objects that LiveKit makes once in a process, and that are the same in all processes (from 1.8).

    A ``Room`` and the console are not among these objects: in earlier releases they start the native runtime.
    """
    # Loading the certificates takes some 30 ms, at the first use of an http_session() or at its end.
    _call_if_there(http_context, "_create_ssl_context")
    # This searches all installed packages for plugins. Each process searches again, and then finds cached results.
    _call_if_there(telemetry.traces, "_resource", {})


def _call_if_there(module: ModuleType, name: str, *arguments: object) -> None:
    function = getattr(module, name, None)
    if function is not None:
        function(*arguments)
