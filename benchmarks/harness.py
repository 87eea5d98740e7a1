"""Rounds: each figure is measured for one peer after the other, again and again, and told by medians.

The machine is shared and small. What disturbs it for a second disturbs one round of one peer; interleaving
(A B A B) keeps a slow minute from falling on one peer alone, and ratios are taken within a round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from benchmarks.figures import Effort, Figure, Round
from benchmarks.peers import PEERS, Peer, Unavailable
from benchmarks.remote import Failed, Remote
from benchmarks.stats import median, percentile, spread

Progress = Callable[[str], None]
OURS = "greenroom"


@dataclass
class Record:
    """One peer's rounds of one figure; `cannot` tells why there are none."""

    rounds: list[Round] = field(default_factory=list)
    cannot: str | None = None


def measure(figure: Figure, effort: Effort, names: Iterable[str], progress: Progress) -> dict[str, Record]:
    records = {name: Record(cannot=PEERS[name].cannot.get(figure.key)) for name in names}
    for number in range(1 if figure.steady else effort.rounds):
        for name, record in records.items():
            if record.cannot is None and _is_due(PEERS[name], number):
                _one_round(figure, effort, PEERS[name], record)
                progress(f"{figure.key}, round {number + 1}, {PEERS[name].label}: {_last(record, figure)}")
    return records


def _is_due(peer: Peer, number: int) -> bool:
    return number == 0 or not peer.slow


def _one_round(figure: Figure, effort: Effort, peer: Peer, record: Record) -> None:
    try:
        with Remote(peer, figure.image) as driver:
            record.rounds.append(figure.measure(driver, effort))
    except (Failed, Unavailable) as error:
        record.cannot = str(error)


def _last(record: Record, figure: Figure) -> str:
    return record.cannot or f"{record.rounds[-1].value:.3g} {figure.unit}"


def summary(figure: Figure, records: dict[str, Record]) -> dict[str, dict[str, object]]:
    """What the report needs of each peer, in plain data."""
    ours = records.get(OURS, Record()).rounds
    return {name: _summary(figure, record, ours) for name, record in records.items()}


def _summary(figure: Figure, record: Record, ours: list[Round]) -> dict[str, object]:
    values = [one.value for one in record.rounds]
    if not values:
        return {"cannot": record.cannot or "not measured"}
    samples = [sample for one in record.rounds for sample in one.samples]
    found: dict[str, object] = {"value": median(values), "rounds": values, "range": spread(values)}
    if samples:
        found |= {"samples": len(samples), "p99": percentile(samples, 99)}
    if ours:
        found["ratio"] = median(one / own.value for one, own in zip(values, ours, strict=False))
    if record.cannot:
        found["failed_once"] = record.cannot
    return found
