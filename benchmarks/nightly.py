"""The long checks: ``make nightly`` runs them one after the other, each as a process of its own.

Too long for each change, so they run at night. ``--list`` lists the steps with their lengths.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

RESULTS = Path("build/nightly")
HOSTILE_MINUTES = 60.0


@dataclass(frozen=True)
class Settings:
    """What the command line says."""

    minutes: float
    """For both hostile steps together, for the soak of everything, and half of them for the healthy load."""
    only: str | None
    seed: int | None = None


@dataclass(frozen=True)
class Step:
    name: str
    about: str
    minutes: Callable[[Settings], float]
    """How long it takes, about."""
    command: Callable[[Settings], list[str]]


def hostile(*options: str, share: float) -> Callable[[Settings], list[str]]:
    def command(settings: Settings) -> list[str]:
        only = ["--only", settings.only] if settings.only else []
        return ["benchmarks.hostile", "--minutes", f"{settings.minutes * share:g}", *options, *only]

    return command


def everything(settings: Settings) -> list[str]:
    seed = [] if settings.seed is None else ["--seed", str(settings.seed)]
    return ["benchmarks.everything", "--minutes", f"{settings.minutes:g}", *seed]


def healthy(settings: Settings) -> list[str]:
    seed = [] if settings.seed is None else ["--seed", str(settings.seed)]
    return ["benchmarks.healthy", "--minutes", f"{settings.minutes / 2:g}", *seed]


STEPS = (
    Step(
        "hostile-token",
        "sessions under attack, from clients without the worker's token and from sessions inside",
        lambda settings: settings.minutes / 2,
        hostile("--json", str(RESULTS / "hostile-token.json"), share=0.5),
    ),
    Step(
        "hostile-open",
        "the same on a worker without a token, which reads all requests",
        lambda settings: settings.minutes / 2,
        hostile("--without-token", "--json", str(RESULTS / "hostile-open.json"), share=0.5),
    ),
    Step(
        "soak",
        "10,000 jobs while processes are killed and stopped at random",
        lambda settings: 4,
        lambda settings: ["benchmarks.soak"],
    ),
    Step(
        "everything",
        "calls by HTTP and LiveKit while processes are killed, stopped, held and reloaded, and resources run short",
        lambda settings: settings.minutes + 1,
        everything,
    ),
    Step(
        "healthy",
        "calls, reloads, a full minute and a lost zygote under Prometheus: only the alerts fire that are meant",
        lambda settings: settings.minutes / 2 + 1,
        healthy,
    ),
    Step(
        "simulator-rows",
        "each row of the pool's tables is reached by a simulated history, and its deletion is noticed",
        lambda settings: 5,
        lambda settings: ["tests.simulation.hunt", "rows"],
    ),
    Step(
        "simulator-mutations",
        "each mutation of the pool's core is found by simulated histories",
        lambda settings: 5,
        lambda settings: ["tests.simulation.hunt", "mutations"],
    ),
    Step(
        "tests",
        "tests that take long, and are like shorter ones",
        lambda settings: 6,
        lambda settings: ["scripts.run_tests", "--night"],
    ),
    Step(
        "livekit-releases",
        "livekit-agents between the oldest and the newest release, and its pre-release",
        lambda settings: 2,
        lambda settings: ["pytest", "-q", "tests/entrypoints/livekit_releases.py"],
    ),
    Step(
        "models",
        "the libraries for models that are too large for each run of the tests: torch and others",
        lambda settings: 6,
        lambda settings: ["pytest", "-q", "tests/models/night.py"],
    ),
    Step(
        "newest-haproxy",
        "the files of `greenroom init haproxy`, checked by the newest HAProxy that Debian has",
        lambda settings: 1,
        lambda settings: ["pytest", "-q", "tests/machines/newest_haproxy.py"],
    ),
    Step(
        "livekit-restaurant",
        "an example under LiveKit's own worker",
        lambda settings: 1,
        lambda settings: ["pytest", "-q", "tests/examples/livekit_restaurant.py"],
    ),
)


def run(step: Step, settings: Settings) -> str | None:
    """Run one step; returns how it failed."""
    print(f"\n==> {step.name}: {step.about}; about {step.minutes(settings):.0f} min", flush=True)
    begin = time.monotonic()
    code = subprocess.run([sys.executable, "-m", *step.command(settings)], check=False).returncode
    outcome = "ok" if code == 0 else f"FAILED ({code})"
    print(f"==> {step.name}: {outcome}, {(time.monotonic() - begin) / 60:.1f} min", flush=True)
    return None if code == 0 else step.name


def main() -> int:
    parser = argparse.ArgumentParser(prog="make nightly", description=__doc__)
    text = "minutes of both hostile steps together, of the step everything, and twice those of the step healthy (60)"
    parser.add_argument("--minutes", type=float, default=HOSTILE_MINUTES, help=text)
    parser.add_argument("--only", metavar="NAME,...", help="only these attacks")
    text = "seed of the steps everything and healthy (default: one of their own, printed)"
    parser.add_argument("--seed", type=int, help=text)
    parser.add_argument("--steps", metavar="NAME,...", help="only these steps")
    parser.add_argument("--list", action="store_true", help="list the steps with their lengths")
    arguments = parser.parse_args()
    settings = Settings(arguments.minutes, arguments.only, arguments.seed)
    wanted = arguments.steps.split(",") if arguments.steps else [step.name for step in STEPS]
    if unknown := set(wanted) - {step.name for step in STEPS}:
        parser.error(f"unknown step: {', '.join(unknown)}. The steps are: {', '.join(step.name for step in STEPS)}")
    steps = [step for step in STEPS if step.name in wanted]
    if arguments.list:
        print("\n".join(f"{step.name:<20} {step.minutes(settings):>4.0f} min  {step.about}" for step in steps))
        return 0
    RESULTS.mkdir(parents=True, exist_ok=True)
    failed = [name for step in steps if (name := run(step, settings))]
    print(f"\nFAILED: {', '.join(failed)}" if failed else "\nAll steps passed.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
