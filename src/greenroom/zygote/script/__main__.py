"""Program of a script's process, executed by the supervisor.

Usage: ``python -m greenroom.zygote.script CHANNEL_FD LIFELINE_FD LOG_FD``.
"""

from __future__ import annotations

import socket
import sys

from .run import run


def main() -> None:
    channel_fd, lifeline_fd, log_fd = map(int, sys.argv[1:4])
    run(socket.socket(fileno=channel_fd), lifeline_fd, log_fd)


main()
