"""``python -m benchmarks.hostile``: one worker under attack, and the account of its sessions.

Exit code 0 if no session was lost, each honest start was accepted, memory kept its bounds and nothing is left over.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

from .attacks import ATTACKS, DEFAULT
from .report import result_of, table
from .run import Options, Run


def main() -> int:
    parser = _parser()
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(f"{name:<20} {attack.about}" for name, attack in ATTACKS.items()))
        return 0
    attacks = _named(parser, arguments.only.split(",")) if arguments.only else DEFAULT
    options = Options(
        arguments.minutes,
        attacks,
        not arguments.without_token,
        arguments.live,
        arguments.starts,
        arguments.at_once,
        arguments.rate,
        arguments.seed,
        arguments.rounds,
    )
    if options.minutes <= 0 or options.rate <= 0 or options.starts_per_second <= 0 or options.at_once < 1:
        parser.error("--minutes, --rate, --starts and --at-once must be positive")
    return asyncio.run(_run(options, arguments.json, arguments.keep_log))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile", description=__doc__)
    default = Options()
    parser.add_argument("--minutes", type=float, default=default.minutes, help="minutes of the run (60)")
    parser.add_argument("--only", metavar="NAME,...", help="only these attacks, as --list names them")
    parser.add_argument("--list", action="store_true", help="list the attacks with their descriptions")
    parser.add_argument("--without-token", action="store_true", help="start the worker without a token")
    parser.add_argument("--live", type=int, default=default.live, help="sessions that last the whole time (20)")
    parser.add_argument("--starts", type=float, default=default.starts_per_second, help="short sessions per second (1)")
    parser.add_argument("--at-once", type=int, default=default.at_once, help="number of simultaneous attacks (3)")
    parser.add_argument("--rate", type=float, default=default.rate, help="factor for the frequency of the attacks (1)")
    parser.add_argument("--rounds", type=int, default=default.rounds, help="least number of turns of each attack (0)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="seed of the order of the attacks")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result to a file")
    parser.add_argument("--keep-log", type=Path, metavar="FILE", help="keep the worker's log")
    return parser


def _named(parser: argparse.ArgumentParser, names: list[str]) -> tuple[str, ...]:
    if unknown := [name for name in names if name not in ATTACKS]:
        parser.error(f"unknown attack: {', '.join(unknown)}. The attacks are: {', '.join(ATTACKS)}")
    return tuple(names)


async def _run(options: Options, result_path: Path | None, log_path: Path | None) -> int:
    kind = "with a token" if options.with_token else "without a token"
    print(f"{options.minutes:g} min, worker {kind}, {len(options.attacks)} attacks, seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="greenroom-hostile-") as folder:
        run = Run(options, Path(folder), log_path)
        await run.go()
        result = result_of(run)
    if result_path is not None:
        result_path.write_text(json.dumps(result, indent=2) + "\n")
    print(table(result))
    return 1 if result["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
