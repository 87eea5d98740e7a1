"""Grace period of a worker: systemd, Kubernetes or Compose kills the worker when this time has passed."""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import suppress
from pathlib import Path

from ..errors import OptionError
from ..system.cgroup_levels import own_cgroups
from .facts import GraceFacts

__all__ = ["grace_in_text", "read_grace", "seconds_of"]

_SETTINGS = re.compile(
    r"^[\s-]*[\"']?(TimeoutStopSec|TimeoutSec|terminationGracePeriodSeconds|stop_grace_period)[\"']?\s*[=:]\s*"
    r"[\"']?([^#\n\"',]+)",
    re.M,
)
_UNITS = {
    "": 1.0,
    "s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0,
    "ms": 0.001, "msec": 0.001, "us": 0.000001, "usec": 0.000001,
    "m": 60.0, "min": 60.0, "minute": 60.0, "minutes": 60.0,
    "h": 3600.0, "hr": 3600.0, "hour": 3600.0, "hours": 3600.0,
    "d": 86400.0, "day": 86400.0, "days": 86400.0,
}  # fmt: skip
_DEFAULTS = (
    (r"^\[Service\]", "TimeoutStopSec", 90.0),
    (r"^kind:", "terminationGracePeriodSeconds", 30.0),
    (r"^services:", "stop_grace_period", 10.0),
)
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)")


def read_grace(deployment: Path | None) -> GraceFacts:
    """Read the grace period from a unit file or manifest, if one is given, or else from this process's systemd unit.

    Raises :class:`OptionError` for a file that cannot be read, and for a file of another kind.
    """
    is_kubernetes = "KUBERNETES_SERVICE_HOST" in os.environ
    if deployment is not None:
        return _of_file(deployment, is_kubernetes)
    unit = _own_unit()
    seconds = None if unit is None else _asked_of_systemd(unit)
    return GraceFacts(seconds, "" if seconds is None else f"TimeoutStopSec of {unit}", is_kubernetes)


def grace_in_text(text: str) -> tuple[str, float] | None:
    """Return the setting and its seconds, from the text of a systemd unit, Kubernetes manifest or Compose file.

    Among several settings, the shortest counts, since it kills first. If the text has none, the default of its kind
    counts. For a text of another kind, return ``None``.
    """
    found = [(name, seconds) for name, value in _SETTINGS.findall(text) if (seconds := _setting(name, value))]
    for mark, name, seconds in _DEFAULTS:
        if not found and re.search(mark, text, re.M):
            found.append((f"the default of {name}", seconds))
    return min(found, key=lambda one: one[1], default=None)


def _setting(name: str, value: str) -> float | None:
    seconds = seconds_of(value)
    # In systemd.service(5), 0 means no timeout.
    return float("inf") if seconds == 0 and name.startswith("Timeout") else seconds


def seconds_of(text: str) -> float | None:
    """Return the seconds of a time span in the form of systemd.time(7): ``90``, ``1min 30s``, ``infinity``.

    For any other text, return ``None``.
    """
    text = text.strip().lower()
    if text == "infinity":
        return float("inf")
    parts = _PART.findall(text)
    if not parts or _PART.sub("", text).strip() or any(unit not in _UNITS for _, unit in parts):
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _of_file(path: Path, is_kubernetes: bool) -> GraceFacts:
    try:
        found = grace_in_text(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"deployment file {path}: {error}") from error
    if found is None:
        raise OptionError(
            f"deployment file {path} is not a systemd unit, Kubernetes manifest or Compose file: it has none of "
            f"TimeoutStopSec, terminationGracePeriodSeconds and stop_grace_period"
        )
    return GraceFacts(found[1], f"{found[0]} in {path}", is_kubernetes)


def _own_unit() -> str | None:
    with suppress(OSError):
        parts = (part for place in own_cgroups().values() for part in place.parts)
        unit = next((part for part in parts if part.endswith(".service")), None)
        return None if unit is None or unit.startswith("user@") else unit
    return None


def _asked_of_systemd(unit: str) -> float | None:
    command = ["systemctl", "show", "--property=TimeoutStopUSec", "--value", unit]
    try:
        output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=5.0).stdout
    except (OSError, subprocess.SubprocessError):
        return None  # there is no systemd here
    return seconds_of(output)
