"""Live histories for some minutes: ``python -m tests.simulation.run --minutes 10 --seed 7``."""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections import Counter
from typing import Any

from .coverage import Reached
from .lives import Result, live
from .plans import draw_plan
from .shorten import as_text, shorten
from .times import Times
from .trace import trace

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="simulate")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--history", type=int, help="live this one history alone")
    parser.add_argument("--times", action="store_true", help="measure PoolCore.handle() by kind of event")
    parser.add_argument("--keep-going", action="store_true", help="count violations, by oracle")
    options = parser.parse_args(arguments)
    if options.history is not None:
        result = live(draw_plan(options.history))
        print(result.text or f"holds, {result.events} events")
        if result.oracle:
            print_shortest(result)
        return bool(result.oracle)
    return run(options)


def run(options: Any) -> int:
    gc.set_threshold(50_000)  # a history is a cycle of some thousand objects
    begin, histories, events = time.process_time(), 0, 0
    failures: Counter[str] = Counter()
    first: dict[str, Result] = {}
    times = Times() if options.times else None
    reached = Reached()
    with times or reached:  # the one would count in the times of the other
        reasons: set[str] = set()
        seed = options.seed * 10_000_000
        while time.process_time() - begin < options.minutes * 60:
            result = live(draw_plan(seed))
            seed += 1
            histories += 1
            events += result.events
            reasons |= result.reasons
            if result.oracle:
                failures[result.oracle] += 1
                first.setdefault(result.oracle, result)
                if not options.keep_going:
                    break
    seconds = time.process_time() - begin
    print(f"{histories} histories, {events} events, {seconds:.1f} s of CPU: {histories / seconds * 60:.0f} a minute")
    print(times.summary() if times is not None else reached.summary())
    print(f"exit reasons: {', '.join(sorted(reasons))}")
    for oracle, count in failures.most_common():
        print(f"{count} x {oracle}: history {first[oracle].plan.seed}: {first[oracle].text}")
    if failures:
        print_shortest(first[failures.most_common()[-1][0]])
    return bool(failures)


def print_shortest(result: Result) -> None:
    """Print the shortest history that shows the same."""
    short = shorten(result)
    print(f"\nThe shortest history, of {short.events} events:\n{as_text(short.plan)}\n")
    print("\n".join(trace(short.plan)))
    print(f"\nAgain: make simulate ARGS='--history {result.plan.seed}'")


if __name__ == "__main__":
    sys.exit(main())
