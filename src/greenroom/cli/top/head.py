"""First lines of the view: the verdict on each worker, and its figures. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from rich.text import Text

from ..text import one_line
from .figures import summary
from .picture import Picture
from .watched import Watched

__all__ = ["LOST", "first_line", "head_lines"]

LOST = "no connection, trying again; the figures are old"
_WIDEST_NAME = 40
_Styled = tuple[str, str]
"""Text and its style."""


def head_lines(watched: Sequence[Watched], now: float, most: int | None) -> list[Text]:
    """Return three lines for one worker. For several, return two, and at most ``most`` with one worker each."""
    starts = _starts(summary(ms for worker in watched for ms in worker.picture.start_times))
    turned_down = sum((worker.picture.turned_down(now) for worker in watched), Counter[str]())
    recent = Text.assemble(starts, "   ", _turned_down(turned_down))
    if len(watched) > 1:
        return [_count(watched), *_worker_lines(watched, most), recent]
    picture = watched[0].picture
    verdict = _verdict(picture) if watched[0].loss is None else (LOST, "bold red")
    # The verdict comes before the app, since the app's path may be long.
    first = Text.assemble(("Greenroom  ", "bold green"), verdict, f"   {one_line(picture.app)}")
    return [first, Text("   ".join([*_code(picture), *_load(picture)])), recent]


def first_line(text: str) -> str:
    """Return the first line of a text."""
    return one_line(text.strip().partition("\n")[0])


# --- several workers -----------------------------------------------------------------------------


def _count(watched: Sequence[Watched]) -> Text:
    silent = sum(worker.loss is not None for worker in watched)
    apps = sorted({worker.picture.app for worker in watched} - {""})
    return Text.assemble(
        ("Greenroom  ", "bold green"),
        f"{len(watched)} workers",
        (f", {silent} without an answer" if silent else "", "bold red"),
        f"   {one_line(', '.join(apps))}",
    )


def _worker_lines(watched: Sequence[Watched], most: int | None) -> Iterator[Text]:
    """Yield a line for each worker. If there are too many, leave out those without a problem first."""
    numbers = list(range(len(watched)))
    if most is not None and len(watched) > most:
        urgent = sorted(numbers, key=lambda number: _urgency(watched[number]), reverse=True)
        numbers = sorted(urgent[: max(most - 1, 1)])
    width = min(max(len(worker.name) for worker in watched), _WIDEST_NAME)
    for number in numbers:
        yield _worker_line(watched[number], width)
    if len(numbers) < len(watched):
        yield Text(f"... and {len(watched) - len(numbers)} more", "bright_black")


def _urgency(worker: Watched) -> int:
    if worker.loss is not None:
        return 2
    return 0 if worker.picture.problem is None else 1


def _worker_line(worker: Watched, width: int) -> Text:
    name = f"{one_line(worker.name):<{width}.{width}}  "
    if worker.loss is not None:
        return Text.assemble(name, (worker.loss.text, "bold red"))
    # The load comes first, since the end of the line may be cut.
    figures = [*_load(worker.picture), *_code(worker.picture)]
    return Text.assemble(name, _verdict(worker.picture), "   ", "   ".join(figures))


# --- figures -------------------------------------------------------------------------------------


def _verdict(picture: Picture) -> _Styled:
    if picture.problem is None:
        return "ready", "green"
    cause = (picture.stats or {}).get("breaker_cause")
    return one_line(f"not ready: {picture.problem}{f' ({first_line(cause)})' if cause else ''}"), "bold red"


def _code(picture: Picture) -> Iterator[str]:
    if picture.stats is not None:
        yield f"generation {_known(picture.stats['generation'])}"
        yield f"zygote {_known(picture.stats['zygote_pid'])}"


def _load(picture: Picture) -> Iterator[str]:
    stats = picture.stats
    if stats is None:
        return
    yield f"jobs {stats['jobs']}/{picture.capacity}"
    yield f"idle {stats['idle']}/{stats['idle_target']}"
    yield f"warming {stats['warming']}"
    if stats["waiting"]:
        yield f"waiting {stats['waiting']}"


def _known(value: Any) -> str:
    return "-" if value is None else str(value)


def _starts(start: dict[str, Any]) -> str:
    if not start["count"]:
        return "no starts yet"
    return f"start p50 {start['p50']:.1f} ms, p99 {start['p99']:.1f} ms ({start['count']} starts)"


def _turned_down(counts: Counter[str]) -> _Styled:
    if not counts:
        return "no rejections in the last minute", ""
    reasons = ", ".join(f"{reason} {count}" for reason, count in counts.most_common())
    return one_line(f"rejected in the last minute: {reasons}"), "yellow"
