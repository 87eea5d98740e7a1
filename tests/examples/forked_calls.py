"""A script: load the model once, fork many processes that monitor a call each, print what they found.

Stands for the zygote in its bareness, to show that the model itself bears being shared by fork.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

from monitor import CallMonitor, CallWishes


def count_threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def fork_call(shared: CallMonitor, number: int) -> tuple[int, int]:
    """Fork one process; return its pid and the pipe on which it sends its result."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            result = asyncio.run(shared.monitor(CallWishes(str(number), speed=20.0)))
            os.write(writer, json.dumps(result).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    return pid, reader


def collect(pid: int, reader: int) -> object:
    with os.fdopen(reader, "rb") as pipe:
        result = pipe.read()
    _, status = os.waitpid(pid, 0)
    return json.loads(result) if status == 0 else f"exit status {status}"


def main(processes: int) -> None:
    shared = CallMonitor.load()
    shared.warm_up()
    threads = count_threads()
    # All are forked before the first is waited for: they run at once.
    calls = [fork_call(shared, number) for number in range(processes)]
    print(json.dumps({"threads": threads, "results": [collect(*call) for call in calls]}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
