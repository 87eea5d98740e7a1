"""``python -m benchmarks.everything``: exit code 0 if the account is exact and nothing is left, else 1."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "scripts")]

import livekit_server
from rooms.loopback import build_shim, has_ordinary_interface

from . import __doc__ as about
from .report import table
from .run import Options, Run

RESULTS = Path("build/nightly")


def main() -> int:
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="minutes of calls and chaos (60)")
    parser.add_argument("--seed", type=int, help="seed of the random choices (default: a random one, printed)")
    parser.add_argument("--lines", type=int, default=Options.lines, help="number of simultaneous calls by HTTP")
    parser.add_argument(
        "--rooms", type=int, default=Options.rooms, help="number of simultaneous LiveKit calls; 0: no server"
    )
    parser.add_argument("--pause", type=float, default=Options.pause, help="seconds between two injections, on average")
    parser.add_argument(
        "--unannounced", action="store_true", help="kill one session without a note: the account must find it"
    )
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if arguments.seed is None else arguments.seed
    folder = RESULTS / f"everything-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("worker.log", "livekit.log", "ledger.txt"):
        (folder / name).unlink(missing_ok=True)
    options = Options(
        arguments.minutes, seed, folder, arguments.lines, arguments.rooms, arguments.pause, not arguments.unannounced
    )
    print(f"seed {seed}, {arguments.minutes:g} min; files in {folder}", flush=True)
    try:
        binary = livekit_server.ensure() if arguments.rooms else None
    except livekit_server.NotBuilt as error:
        parser.error(f"no LiveKit server: {error}. To run without a server, set --rooms 0")
    with tempfile.TemporaryDirectory(prefix="soak-") as work:
        run = Run(options, Path(work), binary, _network(Path(work)) if binary else {})
        asyncio.run(run.go())
    print(table(run))
    return _verdict(run)


def _network(folder: Path) -> dict[str, str]:
    """Let WebRTC clients find an interface, where there is none but loopback."""
    if has_ordinary_interface():
        return {}
    os.environ["LD_PRELOAD"] = str(build_shim(folder))  # for the callers
    return {"LD_PRELOAD": os.environ["LD_PRELOAD"]}


def _verdict(run: Run) -> int:
    violation = run.result.violation
    if violation is None:
        print(f"\nEvery call is accounted for, and nothing is left. ({run.result.seconds / 60:.1f} min)")
        return 0
    at = time.strftime("%H:%M:%S", time.localtime(violation.at))
    print(f"\nVIOLATION at {at}, seed {run.options.seed}, after {run.result.seconds:.0f} s")
    print("\n".join(f"  {fault}" for fault in violation.faults))
    print("\nAround it (seconds, ledger):")
    print("\n".join(run.ledger.around(violation.at, 5.0)))
    print("\n".join(["", *run.result.recording]))
    print(f"To repeat: python -m benchmarks.everything --minutes {run.options.minutes:g} --seed {run.options.seed}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
