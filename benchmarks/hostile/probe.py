"""A process of its own that asks /livez all the time: how long the worker's event loop lets others wait.

It reads its settings as one line of JSON, runs until its standard input ends, and prints what it saw as JSON. Its own
lateness is measured beside: where that is large, the machine was short of CPU.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time

SLOW = 0.5
"""Seconds: an answer that takes longer is listed with its time."""
GIVE_UP = 60.0
KEPT = 200


def ask(address: tuple[str, int]) -> bool:
    request = f"GET /livez HTTP/1.1\r\nHost: {address[0]}\r\nConnection: close\r\n\r\n".encode()
    with socket.create_connection(address, timeout=GIVE_UP) as sock:
        sock.sendall(request)
        answer = b""
        while piece := sock.recv(4096):
            answer += piece
    return answer.startswith(b"HTTP/1.1 200")


def measure(address: tuple[str, int], every: float) -> dict[str, object]:
    times: list[float] = []
    slow: list[tuple[float, float]] = []
    failed, late = 0, 0.0
    while True:
        begin = time.monotonic()
        if select.select([sys.stdin], [], [], every)[0]:
            break
        late = max(late, time.monotonic() - begin - every)
        begin = time.monotonic()
        try:
            failed += not ask(address)
        except OSError:
            failed += 1
        times.append(time.monotonic() - begin)
        if times[-1] > SLOW:
            slow = sorted([*slow, (time.time(), round(times[-1], 3))], key=lambda each: -each[1])[:KEPT]
    ordered = sorted(times) or [0.0]
    at = {"p50": 0.5, "p99": 0.99, "p999": 0.999}
    found = {name: round(ordered[int(len(ordered) * share)], 4) for name, share in at.items()}
    return {
        "asked": len(times),
        "failed": failed,
        **found,
        "max": round(ordered[-1], 3),
        "slow": slow,
        "own_late": round(late, 3),
    }


if __name__ == "__main__":
    options = json.loads(sys.stdin.readline())
    print(json.dumps(measure((options["host"], options["port"]), options["every"])), flush=True)
