"""How much the judge of local clients looks at: sessions can have any number of processes and files."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys

import pytest
from support import DEADLINE

from greenroom.server.local_clients import MOST_FILES, MOST_INSIDE
from greenroom.server.outsiders import Descent
from greenroom.system import proc

JUDGE = """
import asyncio, json, os, resource, signal, sys
from greenroom.server.local_clients import LocalClients

PROCESSES, FILES = int(sys.argv[1]), int(sys.argv[2])
looked, readlink = {}, os.readlink

def counted(path, **given):
    pid = str(path).split("/")[2]
    if pid.isdigit():
        pid = int(pid)
        looked[pid] = looked.get(pid, 0) + 1
    return readlink(path, **given)

def session():
    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        for _ in range(FILES):
            os.dup(read)
        os.write(write, b"x")
        signal.pause()
    os.read(read, 1)
    os.close(read)
    os.close(write)
    return pid

async def main():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sessions = [session() for _ in range(PROCESSES)]
    connected = asyncio.get_running_loop().create_future()

    class Server(asyncio.Protocol):
        def connection_made(self, transport):
            connected.set_result(transport)

    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    connection, clients = await connected, LocalClients()
    os.readlink = counted
    is_outsider = await clients.is_outsider(connection)
    os.readlink = readlink
    clients.close()
    for pid in sessions:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    of_sessions = [looked[pid] for pid in sessions if pid in looked]
    print(json.dumps({"is_outsider": is_outsider, "looks": of_sessions}))

asyncio.run(main())
"""


@pytest.mark.parametrize(("processes", "files"), [(5, 3000), (MOST_INSIDE + 20, 10)])
async def test_few_files_of_sessions_are_looked_at(processes: int, files: int) -> None:
    command = [sys.executable, "-c", JUDGE, str(processes), str(files)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as judge:
        assert judge.stdout is not None
        port = int(await asyncio.to_thread(judge.stdout.readline))
        with socket.create_connection(("127.0.0.1", port)):
            output, _ = await asyncio.to_thread(judge.communicate, timeout=DEADLINE)
    found = json.loads(output)
    assert found["is_outsider"], "this process is found behind them"
    assert len(found["looks"]) <= MOST_INSIDE
    assert all(count <= MOST_FILES for count in found["looks"])


def test_descent_is_known_from_parents() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        inside, outside = Descent([os.getpid()]), Descent([child.pid])
        assert inside.is_inside(child.pid)
        assert inside.is_inside(os.getpid())
        assert not inside.is_inside(os.getppid())
        assert outside.is_inside(child.pid)
        assert not outside.is_inside(os.getpid())
    with pytest.raises(FileNotFoundError):
        Descent([]).is_inside(child.pid)


def test_sockets_of_the_first_files() -> None:
    with socket.socket() as one, socket.socket() as other:
        inodes = {os.fstat(each.fileno()).st_ino for each in (one, other)}
        assert inodes <= proc.sockets(os.getpid()).keys()
        assert proc.sockets(os.getpid(), 0) == {}
