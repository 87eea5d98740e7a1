"""All that the view shows as plain data, for programs. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .listing import Listing
from .watched import Watched

__all__ = ["as_plain"]

_Data = dict[str, Any]


def as_plain(watched: Sequence[Watched], replies: Sequence[Mapping[str, Any]], now: float) -> _Data:
    """Return the picture of the only worker, or those of several as one. Each row then has the name of its ``worker``.

    ``replies`` has the name, address and failure of each worker. One with a failure has no figures.
    """
    if len(watched) == 1:
        return watched[0].picture.as_plain(now)
    listing = Listing.of(watched, None)

    def named(rows: Sequence[_Data]) -> list[_Data]:
        return [{**row, "worker": watched[row["worker"]].name} for row in rows]

    processes = [{**row, "worker": one.name} for one in watched for row in one.picture.processes.values()]
    return {
        "workers": [{**reply, **_figures(one, now)} for reply, one in zip(replies, watched, strict=True)],
        "sessions": named(listing.live),
        "processes": processes,
        "troubles": named(listing.troubles),
    }


def _figures(worker: Watched, now: float) -> _Data:
    figures = worker.picture.figures(now)
    return figures if worker.loss is None else dict.fromkeys(figures)
