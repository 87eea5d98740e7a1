"""``python -m greenroom.zygote CHANNEL_FD LIFELINE_FD LOG_FD``: exec'd by the supervisor."""

from __future__ import annotations

import socket
import sys

from .template import Zygote


def main() -> None:
    channel_fd, lifeline_fd, log_fd = map(int, sys.argv[1:4])
    channel = socket.socket(fileno=channel_fd)
    # Its own arguments are none of the app's business.
    del sys.argv[1:]
    Zygote(channel, lifeline_fd, log_fd).run()


main()
