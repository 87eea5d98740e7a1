"""Look for what the simulator does not notice: mutations of the core, and rows that are deleted."""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from .coverage import TABLES, Reached, all_rows
from .lives import live
from .mutations import EQUIVALENT, MUTATIONS, mutated
from .plans import draw_plan

__all__ = ["DATA", "Found", "find", "without_row"]

DATA = Path(__file__).with_name("seeds.json")
"""For each row and each mutation, the seed of a history that shows it."""


class Found(NamedTuple):
    """The history that shows a mutation."""

    seed: int | None
    """``None`` if there was none."""
    histories: int
    seconds: float
    oracle: str


def find(seed: int, limit: float) -> Found:
    """Live histories until one shows a violation, for so many seconds of CPU at the most."""
    begin = time.process_time()
    histories = 0
    while time.process_time() - begin < limit:
        histories += 1
        result = live(draw_plan(seed, promises=False))
        if result.oracle:
            return Found(seed, histories, time.process_time() - begin, result.oracle)
        seed += 1
    return Found(None, histories, time.process_time() - begin, "")


@contextmanager
def without_row(name: str) -> Iterator[None]:
    """Run without a row of a table."""
    table, state_name, event_name = name.split(".")
    rows = TABLES[table]
    state = next(one for one in rows if one.name == state_name)
    event = next(one for one in rows[state] if one.name == event_name)
    row = rows[state].pop(event)
    try:
        yield
    finally:
        rows[state][event] = row


def _find_mutation(name: str, seed: int, limit: float) -> Found:
    """Look for a history that shows a mutation, and nothing without it."""
    histories, seconds = 0, 0.0
    while True:
        with mutated(name):
            found = find(seed, limit - seconds)
        histories, seconds = histories + found.histories, seconds + found.seconds
        if found.seed is None or not fails_by_itself(found.seed):
            return Found(found.seed, histories, seconds, found.oracle)
        seed = found.seed + 1


def fails_by_itself(seed: int, *, promises: bool = False) -> bool:
    """Tell whether a history shows a violation of the core as it is: that says nothing of a mutation."""
    result = live(draw_plan(seed, promises=promises))
    if result.oracle:
        print(f"history {seed} fails by itself: {result.text}", flush=True)
    return bool(result.oracle)


def hunt_mutations(seed: int, limit: float, only: str) -> dict[str, int]:
    """Look for each mutation."""
    seeds: dict[str, int] = {}
    for name in MUTATIONS:
        if only not in name:
            continue
        found = _find_mutation(name, seed, limit)
        note = "equivalent" if name in EQUIVALENT else "NOT FOUND"
        outcome = note if found.seed is None else f"{found.histories} histories: {found.oracle}"
        print(f"{found.seconds:6.1f} s  {name}: {outcome}", flush=True)
        if found.seed is not None:
            seeds[name] = found.seed
    return seeds


def hunt_rows(seed: int, count: int) -> dict[str, int]:
    """Look for a history that shows the deletion of each row, among those that reach it."""
    names = all_rows()
    seeds: dict[str, int] = {}
    for promises in (False, True):
        _hunt_rows({row: name for row, name in names.items() if ("PROMISE" in name) is promises}, seed, count, seeds)
    print(f"{len(seeds)} of {len(names)} deletions noticed")
    for name in sorted(set(names.values()) - set(seeds)):
        print(f"  not noticed: {name}")
    return seeds


def _hunt_rows(names: dict[Any, str], seed: int, count: int, seeds: dict[str, int]) -> None:
    """Look for these rows. Only histories with promises reach the rows of a promise."""
    left, promises = dict(names), any("PROMISE" in name for name in names.values())
    with Reached() as reached:
        for number in range(seed, seed + count):
            reached.rows.clear()
            if fails_by_itself(number, promises=promises):
                continue
            for row in [row for row in left if row in reached.rows]:
                with without_row(names[row]):
                    is_noticed = bool(live(draw_plan(number, promises=promises)).oracle)
                if is_noticed:
                    seeds[left.pop(row)] = number
            if not left:
                break


def main(arguments: list[str] | None = None) -> int:
    """Look for what is not noticed: 1 if there is any. ``--write`` keeps the seeds that show the rest."""
    parser = argparse.ArgumentParser(prog="hunt")
    parser.add_argument("what", choices=("mutations", "rows"))
    parser.add_argument("--seed", type=int, default=900_000_000)
    parser.add_argument("--seconds", type=float, default=60.0, help="of CPU, for each mutation")
    parser.add_argument("--count", type=int, default=10_000, help="histories in which rows are looked for")
    parser.add_argument("--only", default="")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args(arguments)
    gc.set_threshold(50_000)
    if options.what == "mutations":
        seeds = hunt_mutations(options.seed, options.seconds, options.only)
        wanted = {name for name in MUTATIONS if options.only in name} - set(EQUIVALENT)
    else:
        seeds = hunt_rows(options.seed, options.count)
        wanted = set(all_rows().values())
    if options.write:
        data = json.loads(DATA.read_text()) if DATA.exists() else {}
        data[options.what] = {**data.get(options.what, {}), **seeds} if options.only else seeds
        DATA.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")
    return int(bool(wanted - set(seeds)))


if __name__ == "__main__":
    sys.exit(main())
