"""Ends of jobs by generation of code, so that the failures of new and of old code can be compared."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterator
from contextlib import suppress
from typing import get_args

from prometheus_client.core import CounterMetricFamily, Metric

from ...errors import PoolClosed
from ...exit_reasons import Outcome
from ...pool import ProcessPool
from ...pool.events import Event, JobEnded, JobStarted, Reloaded

__all__ = ["KEPT", "GenerationEnds"]

KEPT = 3
"""Latest generations that are kept. A worker that is reloaded often would have ever more series otherwise."""


class GenerationEnds:
    """Counts of the ends of jobs, by outcome, for the latest generations of a pool."""

    def __init__(self, pool: ProcessPool) -> None:
        self._pool = pool
        self._versions: dict[int, str] = {}
        """Version of the app in each kept generation."""
        self._ends: dict[int, Tally[Outcome]] = {}
        self._serving: int | None = None
        pool.subscribe(self._on_event)

    @property
    def serving_version(self) -> str:
        """Version of the app that is served, or was served last; empty if it is not known."""
        self._look()
        return self._versions.get(self._serving or 0, "")

    def collect(self) -> Iterator[Metric]:
        """Yield the counts, which begin at 0 with the first scrape of a generation."""
        self._look()
        family = CounterMetricFamily(
            "greenroom_generation_ends",
            f"Jobs that ended, by outcome, for the latest {KEPT} generations of code.",
            labels=["generation", "app_version", "outcome"],
        )
        for generation, ends in sorted(self._ends.items()):
            for outcome in get_args(Outcome):
                family.add_metric([str(generation), self._versions[generation], outcome], ends[outcome])
        yield family

    def _look(self) -> None:
        """Read which generation serves."""
        with suppress(PoolClosed):  # then the last one that is known served last
            generation, facts = self._pool.stats().generation, self._pool.app_facts
            if generation is not None:
                self._serving = generation
                self._note(generation, None if facts is None else facts.version)

    def _note(self, generation: int, version: str | None) -> None:
        """Keep a generation, and drop the oldest if there are too many."""
        self._ends.setdefault(generation, Tally())
        self._versions.setdefault(generation, "")
        if version is not None:
            self._versions[generation] = version
        while len(self._ends) > KEPT:
            oldest = min(self._ends)
            del self._ends[oldest], self._versions[oldest]

    def _on_event(self, event: Event) -> None:
        match event:
            case Reloaded():
                self._look()
            case JobStarted():
                self._note(event.generation, event.app_version)
            case JobEnded(report=report) if report.generation is not None:
                self._note(report.generation, None)
                if report.generation in self._ends:  # a job of an older generation is not kept
                    self._ends[report.generation][report.outcome] += 1
