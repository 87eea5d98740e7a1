"""The process that attacks: in some lanes at once, each attack has its turn, in an order drawn by a seed.

It reads its settings as one line of JSON, and ends soon after its standard input. It reports its acts line by line.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
import traceback
from collections import deque
from typing import Any

from .attacks import ATTACKS
from .attacks.base import Attack, Turn
from .target import Target, report, settings


class Schedule:
    """Hands out turns. No attack has two at a time, and none a second before all others had theirs."""

    def __init__(self, attacks: list[Attack], turn_seconds: float) -> None:
        self._waiting = deque(attacks)
        self._turn_seconds = turn_seconds
        self.stop = threading.Event()

    def lane(self) -> None:
        """Give turns until the end. Runs in a thread of its own."""
        while not self.stop.is_set():
            attack = self._waiting.popleft()
            attack.count["turns"] += 1
            report(turn=attack.name, begin=time.time())
            turn = Turn(self._turn_seconds, self.stop)
            try:
                attack.strike(turn)
            except OSError as error:  # the worker does not answer: that is for the account to judge
                attack.count[f"failed ({type(error).__name__})"] += 1
                turn.rest()
            except Exception:
                report(broken=attack.name, error=traceback.format_exc())
                turn.rest()
            report(turn=attack.name, end=time.time())
            self._waiting.append(attack)


def run(options: dict[str, Any]) -> None:
    target = Target(options["host"], options["port"], options["pid"], options["token"], options["rate"])
    target.random = random.Random(options["seed"])
    attacks = [ATTACKS[name](target) for name in options["attacks"]]
    target.random.shuffle(attacks)
    schedule = Schedule(attacks, options["turn_seconds"])
    lanes = [threading.Thread(target=schedule.lane) for _ in range(min(options["at_once"], len(attacks)))]
    for lane in lanes:
        lane.start()
    sys.stdin.read()  # until the main process ends the attack, or itself
    schedule.stop.set()
    for lane in lanes:
        lane.join()
    report(done={attack.name: dict(attack.count) for attack in attacks})


if __name__ == "__main__":
    os.nice(5)  # the hour is to show the worker's faults, not those of a machine without CPU
    run(settings())
