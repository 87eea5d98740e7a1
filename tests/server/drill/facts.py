"""What an operator wants to know of an incident, and what of it some texts leave open."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["DAY", "Facts"]

DAY = 86_400.0
MARGIN = 1.5
"""Seconds by which a time that is shown in whole seconds may be outside of an incident."""


@dataclass(frozen=True)
class Facts:
    """The truth about one incident. ``None`` for what does not apply."""

    began: float
    cause: str | None = None
    call: str | None = None
    caller: str | None = None
    place: tuple[str, int] | None = None
    """File and line."""
    absent: str | None = None
    """Text that must not be shown."""
    words: dict[str, str] = field(default_factory=dict)
    """Further words for the clicks and the commands."""
    over: float = field(default_factory=time.time)

    def fill(self, template: str) -> str:
        """Put the call, its caller and further words into a click or a command."""
        return template.format(call=self.call, caller=self.caller, **self.words)

    def is_when(self, at: float) -> bool:
        """Tell whether the incident was at this time. A time of day counts for any day."""
        if at < DAY:
            return any(self._has(at + day * DAY) for day in (self.began // DAY, self.over // DAY))
        return self._has(at)

    def _has(self, at: float) -> bool:
        return self.began - MARGIN <= at <= self.over + MARGIN

    def missing(
        self, texts: Sequence[str], latest: Sequence[str], times: Callable[[str], Iterable[float]]
    ) -> list[str]:
        """Return what the texts leave open. The time must be in a text that names the cause or the call.

        ``latest`` are those of the last step.
        """
        wanted = {"cause": self.cause, "call": self.call, "caller": self.caller}
        found = [name for name, text in wanted.items() if text is not None and not any(text in one for one in texts)]
        about = [text for text in texts if any(one is not None and one in text for one in (self.cause, self.call))]
        if not any(self.is_when(at) for text in about for at in times(text)):
            found.append("since when")
        if self.place is not None and not any(self._names_place(text) for text in texts):
            found.append("file and line")
        if self.absent is not None and any(self.absent in text for text in latest):
            found.append(f"no {self.absent}")
        return found

    def _names_place(self, text: str) -> bool:
        assert self.place is not None
        return any(re.search(rf"{re.escape(form)}\b", text) for form in self._places(*self.place))

    @staticmethod
    def _places(file: str, line: int) -> Iterator[str]:
        yield f'{file}", line {line}'
        yield f"{Path(file).name}:{line}"
        yield f"{Path(file).name}, line {line}"
