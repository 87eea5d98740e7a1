"""Integrations: frameworks whose entrypoints Greenroom runs without changes. An entry point declares each integration.

The entry point belongs to the group ``greenroom.integrations``, and names an :class:`Integration`. The name of its
distribution is ``greenroom``, or begins with ``greenroom``.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

__all__ = ["Integration", "Watchers", "installed"]

_GROUP = "[greenroom.integrations]"

Watchers = dict[str, str]
"""Modules to watch, each with the name of its watcher. A watcher is a module. The loader calls the watcher's
``imported(module)`` after the import of the watched module, and its ``loaded()`` at the end."""


class Integration(NamedTuple):
    """Names of an integration's modules. Each module is imported when an app needs it."""

    framework: str
    """Module of the framework. An app that imports this module uses the framework."""
    needs: str
    """Distribution of the framework and its oldest release, for an error."""
    discovery: str
    """Module that finds an app among the framework's objects."""
    loading: Watchers
    """Watchers in each process that loads an app."""
    before_fork: Watchers
    """Further watchers in a zygote."""
    handing_over: Watchers
    """Watchers in the process of a script."""


@cache
def installed() -> tuple[Integration, ...]:
    """Return the integrations of all distributions on ``sys.path``."""
    declared: dict[str, str] = {}
    for text in _declarations():
        for name, place in _in_group(text):
            declared.setdefault(name, place)
    return tuple(map(_resolve, declared.values()))


def _declarations() -> Iterator[str]:
    # The import of importlib.metadata would take some 60 ms of CPU in each zygote.
    for folder in sys.path:
        try:
            names = [name for name in os.listdir(folder or ".") if name.startswith("greenroom")]
        except OSError:  # no folder, or a zip file
            continue
        for name in names:
            if name.endswith((".dist-info", ".egg-info")):
                try:
                    with open(os.path.join(folder, name, "entry_points.txt"), encoding="utf-8") as file:
                        yield file.read()
                except OSError:  # this distribution declares no entry points
                    continue


def _in_group(text: str) -> Iterator[tuple[str, str]]:
    group = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            group = line
        elif group == _GROUP and "=" in line:
            name, _, place = line.partition("=")
            yield name.strip(), place.strip()


def _resolve(place: str) -> Integration:
    module, _, name = place.partition(":")
    integration: Integration = getattr(importlib.import_module(module), name)
    return integration
