"""Settings from environment variables: ``GREENROOM_`` and the setting's name in capitals."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..errors import OptionError
from .fields import PREFIX, all_settings
from .origins import Given, Layer, Origin, did_you_mean
from .values import BLANKS, convert

__all__ = ["COMMAND_VARIABLE", "CONFIG_VARIABLE", "URL_VARIABLE", "from_environment"]

CONFIG_VARIABLE = "GREENROOM_CONFIG"
COMMAND_VARIABLE = "GREENROOM_COMMAND"
"""Variable with the command of a worker, ``start`` or ``dev``. The worker sets it for its processes."""
URL_VARIABLE = "GREENROOM_URL"
"""Variable with the address of a worker, for commands that connect to one."""

_NO_SETTINGS = frozenset(
    {
        COMMAND_VARIABLE,
        CONFIG_VARIABLE,
        URL_VARIABLE,
        "GREENROOM_POOL",  # mark of processes that a pool has started; a job may start a worker
        "GREENROOM_OWNER",  # mark of processes that one job has started
        "GREENROOM_PROCESS",  # id of the process in which a job runs
    }
)
_NOT_OURS = ("GREENROOM_APP_", "GREENROOM_BENCH_")
"""Prefixes of an app's own variables, and of variables that the benchmarks pass to their peers."""

# For a Service called `greenroom`, Kubernetes gives every container of the namespace GREENROOM_SERVICE_HOST,
# GREENROOM_PORT=tcp://10.0.0.7:8700 and so on; for `greenroom-voice`, the same with GREENROOM_VOICE_.
_SERVICE_LINK = re.compile(r"\w+_(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
_SERVICE_URL = re.compile(r"(tcp|udp|sctp)://")


def from_environment(environ: Mapping[str, str]) -> Layer:
    """Return the settings that environment variables set.

    An empty variable sets nothing, unless its setting must never be empty. Raises ``OptionError`` for an unknown
    variable, and for a value of the wrong type.
    """
    settings = {setting.variable: setting for setting in all_settings().values()}
    found = {}
    for variable, text in sorted(environ.items()):
        setting = settings.get(variable)
        is_empty = not text.strip(BLANKS) and not (setting and setting.is_never_empty)
        if not variable.startswith(PREFIX) or is_empty or _is_no_setting(variable, text):
            continue
        if setting is None:
            raise OptionError(_unknown(variable, list(settings)))
        value = convert(setting, text, is_text=True, subject=variable)
        found[setting.name] = Given(value, Origin("environment", variable))
    return found


def _is_no_setting(variable: str, text: str) -> bool:
    if variable in _NO_SETTINGS or variable.startswith(_NOT_OURS):
        return True
    if variable.endswith("_PORT") and _SERVICE_URL.match(text):
        return True
    return _SERVICE_LINK.fullmatch(variable) is not None


def _unknown(variable: str, known: list[str]) -> str:
    near = did_you_mean(variable.upper().removeprefix(PREFIX), [name.removeprefix(PREFIX) for name in known])
    hint = f"Did you mean {PREFIX}{near}?" if near else "Name it GREENROOM_APP_... if the app needs it, or unset it"
    return f"the environment variable {variable} is not a setting. {hint}"
