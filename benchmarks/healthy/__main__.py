"""``python -m benchmarks.healthy``: exit code 0 if only the alerts fired that are meant, and each panel has data."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "tests")]

from benchmarks.stats import percentile

from . import __doc__ as about
from .judge import Seen, faults
from .run import Options, Run

SHOWN = 40


def main() -> int:
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="minutes of calls (30)")
    parser.add_argument("--interval", type=int, default=5, help="seconds between two scrapes (5)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="seed of the lengths of the calls")
    parser.add_argument("--busy-machine", action="store_true", help="allow for what a busy machine causes")
    arguments = parser.parse_args()
    if arguments.minutes <= 0 or arguments.interval < 1:
        parser.error("--minutes must be positive, and --interval at least 1")
    if shutil.which("prometheus") is None:
        parser.error("there is no prometheus on this machine (Debian: apt-get install prometheus)")
    options = Options(arguments.minutes, arguments.interval, arguments.seed, arguments.busy_machine)
    print(f"{options.minutes:g} min, a scrape each {options.interval} s, seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="greenroom-healthy-") as folder:
        run = Run(options, Path(folder))
        asyncio.run(run.go())
    print(account(run.seen))
    wrong = faults(run.seen, is_busy=arguments.busy_machine)
    log = ["", "The last warnings of the worker:", *run.seen.warnings[-SHOWN:]]
    print("\n".join(["", "WRONG:", *wrong, *log]) if wrong else "\nOnly the alerts fired that are meant.")
    return 1 if wrong else 0


def account(seen: Seen) -> str:
    """Return what was seen, for people."""
    begin = min(call.at for call in seen.calls)
    answers = Counter(call.answer for call in seen.calls)
    ends = Counter(call.end for call in seen.calls if call.end is not None)
    starts = [call.start_ms for call in seen.calls if call.start_ms is not None]
    expressions = sum(len(panel) for panel in seen.panels.values())
    lines = [
        f"calls: {len(seen.calls)}; {', '.join(f'{count} {answer}' for answer, count in answers.most_common())}",
        f"ends: {', '.join(f'{count} {end}' for end, count in ends.most_common())}",
        f"starts: p50 {percentile(starts, 50):.1f} ms, p99 {percentile(starts, 99):.1f} ms",
        f"full from {seen.full[0] - begin:.0f} s to {seen.full[1] - begin:.0f} s; "
        f"zygote killed at {seen.zygote_lost - begin:.0f} s",
        *(
            f"{name} fired from {times[0] - begin:.0f} s to {times[-1] - begin:.0f} s"
            for name, times in sorted(seen.firing.items())
        ),
        f"{len(seen.panels)} panels with {expressions} expressions; at most {seen.series:g} series",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
