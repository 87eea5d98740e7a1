"""The demo without a terminal: a line for each thing that happens."""

from __future__ import annotations

import time
from typing import TextIO

from .scene import Call, Scene
from .words import STARTING, beginning, ending, suggestion


class Plain:
    """Prints each thing once, with no control codes."""

    def __init__(self, output: TextIO) -> None:
        self._output = output
        self._began = time.monotonic()
        self._has_suggested = False

    def __enter__(self) -> Plain:
        self.note(STARTING)
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def show(self, scene: Scene) -> None:
        """Once all calls have started: tell what there is to try."""
        if not self._has_suggested and scene.running() and scene.all_started:
            self._has_suggested = True
            self.note(suggestion(scene))

    def note(self, remark: str) -> None:
        print(f"{time.monotonic() - self._began:5.1f} s  {remark}", file=self._output, flush=True)

    def call_changed(self, call: Call) -> None:
        self.note(ending(call) if call.is_over else beginning(call))
