"""Program of the zygote, executed by the supervisor: ``python -m greenroom.zygote CHANNEL_FD LIFELINE_FD LOG_FD``."""

from __future__ import annotations

import socket
import sys

from .zygote import Zygote


def main() -> None:
    channel_fd, lifeline_fd, log_fd = map(int, sys.argv[1:4])
    channel = socket.socket(fileno=channel_fd)
    # The app must not see the arguments of this program.
    del sys.argv[1:]
    Zygote(channel, lifeline_fd, log_fd).run()


main()
