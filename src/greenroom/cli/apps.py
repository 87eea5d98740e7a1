"""Naming an app on the command line."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

__all__ = ["EXIT_NOT_LOADED", "AppArgument", "find_modules_from_here"]

EXIT_NOT_LOADED = 3

AppArgument = Annotated[str, typer.Argument(metavar="APP", help="agent.py, agent.py:app or package.module:app")]


def find_modules_from_here(app: str) -> None:
    """Have modules found from the current folder, as with ``python -m``; a file brings its own folder along."""
    if not app.partition(":")[0].endswith(".py"):
        sys.path.insert(0, os.getcwd())
