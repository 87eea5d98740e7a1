"""The code that a reload loads: ``variant.py`` of the app, good or bad in one of several ways."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["BAD", "write_bad", "write_good"]

_GOOD = """\
NUMBER = {number}

def preload():
    pass

async def prewarm():
    pass
"""

BAD = {
    "syntax error": "NUMBER = {number}\ndef preload(:\n",
    "import raises": "NUMBER = {number}\nraise RuntimeError('bad by plan')\n",
    "import exits": "NUMBER = {number}\nimport os\nos._exit(5)\n",
    "preload raises": _GOOD.replace("    pass", "    raise RuntimeError('bad by plan')", 1),
    "prewarm raises": _GOOD.replace("prewarm():\n    pass", "prewarm():\n    raise RuntimeError('bad by plan')"),
    "prewarm exits": _GOOD.replace("prewarm():\n    pass", "prewarm():\n    import os; os._exit(6)"),
    "prewarm hangs": _GOOD.replace("prewarm():\n    pass", "prewarm():\n    import time; time.sleep(3600)"),
}
"""Each must make a reload fail, while the code before goes on serving."""


def write_good(folder: Path, number: int) -> None:
    _write(folder, _GOOD.format(number=number))


def write_bad(folder: Path, kind: str, number: int) -> None:
    _write(folder, BAD[kind].format(number=number))


def _write(folder: Path, text: str) -> None:
    """Replace the file in one step: a zygote that is replaced meanwhile must not find half of it."""
    beside = folder / "variant.py.new"
    beside.write_text(text)
    os.replace(beside, folder / "variant.py")
