"""The app of the tests of local clients: sessions that use the API without a token, in many ways.

Copied into the folder of a worker. The result of a session is the status that it got, or nothing.
"""

import asyncio
import ctypes
import os
import socket
import subprocess
import sys
import time
from urllib.parse import urlsplit

from greenroom import App

app = App()
PR_SET_DUMPABLE = 4
ASK = """
import sys, urllib.error, urllib.request
try:
    print(urllib.request.urlopen(urllib.request.Request(sys.argv[1], method=sys.argv[2]), timeout=60).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""


def connect(url):
    parts = urlsplit(url)
    sock = socket.create_connection((parts.hostname, parts.port), timeout=60)
    return sock, f"DELETE {parts.path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()


def blocking(fd):
    """Return the socket of an fd, which has the mode of the one that it was made from."""
    sock = socket.socket(fileno=fd)
    sock.settimeout(60)
    return sock


def status(sock):
    answer = sock.recv(65536)
    return int(answer.split()[1]) if answer else None


def itself(url):
    sock, request = connect(url)
    sock.send(request)
    return status(sock)


def program(url):
    command = [sys.executable, "-c", ASK, url, "DELETE"]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def daemon(url):
    """A process whose parent and grandparent have ended, in a session of its own."""
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            while os.getppid() == os.getsid(0):  # until the parent has ended
                time.sleep(0.01)
            os.dup2(write, 1)
            os.execv(sys.executable, [sys.executable, "-c", ASK, url, "DELETE"])
        os._exit(0)
    os.close(write)
    os.wait()
    with open(read) as file:
        return int(file.read())


def dying(url):
    """The process that has connected and sent the request has ended."""
    sock, request = connect(url)
    pid = os.fork()
    if pid == 0:
        sock.send(request)
        os._exit(0)
    os.waitpid(pid, 0)
    return status(sock)


def handed_over(url):
    """One process connects, and another one of this session sends the request."""
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        sock, _ = connect(url)
        socket.send_fds(theirs, [b"."], [sock.fileno()])
        sock.close()
        theirs.recv(1)
        os._exit(0)
    _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    sock = blocking(fds[0])
    sock.send(f"DELETE {urlsplit(url).path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    got = status(sock)
    ours.send(b".")
    os.wait()
    return got


def in_flight(url):
    """When the worker looks, no process has the connection: it is on its way within a pair of sockets."""
    ours, theirs = socket.socketpair()
    sock, request = connect(url)
    sock.send(request)
    socket.send_fds(ours, [b"."], [sock.fileno()])
    sock.close()
    time.sleep(1.0)  # the worker has judged meanwhile
    _, fds, _, _ = socket.recv_fds(theirs, 1, 1)
    return status(blocking(fds[0]))


def hidden(url):
    """A process that the worker cannot look into."""
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    return itself(url)


def in_namespaces(url):
    """As root of a user and a pid namespace of its own."""
    command = ["unshare", "--user", "--map-root-user", "--pid", "--fork", sys.executable, "-c", ASK, url, "DELETE"]
    done = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return int(done) if done else None


def waiting(url):
    """A daemon that begins when the test says so."""
    while not os.path.exists("go"):
        time.sleep(0.01)
    return daemon(url)


WAYS = (itself, program, daemon, dying, handed_over, in_flight, hidden, in_namespaces, waiting)


@app.entrypoint
async def entrypoint(ctx):
    asked = ctx.job.metadata
    if "sleep" in asked:
        await asyncio.sleep(3600)
    way = next(each for each in WAYS if each.__name__ == asked["way"])
    return await asyncio.to_thread(way, asked["url"])
