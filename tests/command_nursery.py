"""The process that forks Greenroom's commands for the tests; see commands.py."""

from __future__ import annotations

import gc
import importlib
import io
import json
import os
import signal
import socket
import sys

from greenroom.cli.main import COMMANDS, main

IMPORTED = (*(f"greenroom.cli.{module}" for module in COMMANDS), "greenroom.server", "greenroom.cli.client")


def serve(orders: socket.socket) -> None:
    """Fork a process for each order; returns in that process, and nowhere else."""
    while True:
        size, fds, _, _ = socket.recv_fds(orders, 4, 3)
        if not size:
            sys.exit()  # pytest has ended
        order = orders.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL)
        told, telling = os.pipe()
        gate, held = os.pipe()
        middle = os.fork()
        if middle == 0:
            pid = os.fork()
            if pid:
                # With the end of this one, that process becomes a child of the nearest subreaper, which is pytest.
                os.write(telling, pid.to_bytes(4, "big"))
                os._exit(0)
            os.close(held)
            os.read(gate, 1)
            for fd in (orders.detach(), told, telling, gate):
                os.close(fd)
            become(*json.loads(order), fds)
            return
        for fd in (telling, gate, held, *fds):
            os.close(fd)
        os.waitpid(middle, 0)
        orders.send(os.read(told, 4))
        os.close(told)


def become(arguments: list[str], environ: dict[str, str], folder: str, fds: list[int]) -> None:
    """Have what the command would have found if it had been started."""
    for standard, fd in enumerate(fds):
        os.dup2(fd, standard)
        os.close(fd)
    binary = io.BufferedReader(io.FileIO(0)), io.BufferedWriter(io.FileIO(1, "w")), io.BufferedWriter(io.FileIO(2, "w"))
    sys.stdin = io.TextIOWrapper(binary[0], sys.stdin.encoding)
    sys.stdout = io.TextIOWrapper(binary[1], sys.stdout.encoding, line_buffering=os.isatty(1))
    sys.stderr = io.TextIOWrapper(binary[2], sys.stderr.encoding, sys.stderr.errors, line_buffering=True)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    sys.argv[:] = arguments
    signal.signal(signal.SIGINT, signal.default_int_handler)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # pytest's to tell of
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()
    serve(socket.socket(fileno=int(sys.argv[1])))
    sys.exit(main())
