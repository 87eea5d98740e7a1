"""Finding an app that is named on the command line."""

from __future__ import annotations

import sys

from ..system.working_folder import way_here

__all__ = ["find_modules_from_here"]


def find_modules_from_here(app: str) -> None:
    """Have modules found from the current folder, as with ``python -m``; a file brings its own folder along."""
    if not app.partition(":")[0].endswith(".py"):
        sys.path.insert(0, way_here())
