"""What the app under soak writes down: whole lines, by O_APPEND, whoever writes. Copied beside ``agent.py``."""

import os
import time

LEDGER = os.environ["GREENROOM_APP_LEDGER"]


def note(what: str, job_id: str, room: str = "-") -> None:
    fd = os.open(LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    os.write(fd, f"{what} {job_id} {os.getpid()} {time.time():.6f} {room}\n".encode())
    os.close(fd)
