"""What the demo can be asked to do."""

from __future__ import annotations

import argparse
import math
import wave
from dataclasses import dataclass
from pathlib import Path

CALL_MONITOR = Path(__file__).resolve().parents[1]
AGENT = CALL_MONITOR / "agent.py"
RECORDING = CALL_MONITOR / "call.wav"
SPREAD = 0.4
"""The shortest call is shorter than the longest by this part."""


@dataclass(frozen=True)
class DemoOptions:
    """What was asked for, checked."""

    calls: int = 20
    idle: int = 4
    speed: float = 1.0
    seconds: float | None = None
    kill: bool = False

    @property
    def longest_seconds(self) -> float:
        """How much of the recording the longest call hears."""
        with wave.open(str(RECORDING), "rb") as file:
            whole = file.getnframes() / file.getframerate()
        return whole if self.seconds is None else min(self.seconds, whole)

    def lengths(self) -> list[float]:
        """How much of the recording each call hears: they hang up one after the other, in no order."""
        longest, mixed = self.longest_seconds, [number * 7 % self.calls for number in range(self.calls)]
        return [round(longest * (1 - SPREAD * place / self.calls), 2) for place in mixed]


def parse(arguments: list[str] | None = None) -> DemoOptions:
    """Read the command line; a mistake ends the program with a message."""
    default = DemoOptions()
    parser = argparse.ArgumentParser(
        prog="python -m examples.call_monitor",
        description="Start a worker, place concurrent calls with it, show every process, and account for each call.",
    )
    parser.add_argument("--calls", type=_count, default=default.calls, help="calls to place at once (default: 20)")
    parser.add_argument("--idle", type=_count, default=default.idle, help="warm processes to hold (default: 4)")
    parser.add_argument(
        "--speed", type=_positive, default=default.speed, help="pace of the calls; 2 is twice real time (default: 1)"
    )
    parser.add_argument(
        "--seconds", type=_positive, help="seconds of the recording that the longest call hears (default: all)"
    )
    parser.add_argument(
        "--kill", action="store_true", help="kill a call, an idle process and the zygote while the calls run"
    )
    return DemoOptions(**vars(parser.parse_args(arguments)))


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 1000:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 1000")
    return number


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return number
