"""The app of the tests of the control socket: sessions that ask for the token in many ways.

Copied into the folder of a worker. The result of a session is the token that it got, or nothing.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time

from greenroom import App
from greenroom.cli.control_token import token_of_worker
from greenroom.system.control_address import HELLO, control_address

app = App()
ASK = "import sys; from greenroom.cli.control_token import token_of_worker; print(token_of_worker(sys.argv[1]) or '')"


def connect(url):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(5)
    sock.connect(control_address(int(url.rpartition(":")[2])))
    return sock


def answer(sock):
    try:
        return json.loads(sock.recv(65536)).get("token")
    except (OSError, ValueError):
        return None


def itself(url):
    return token_of_worker(url)


def program(url):
    return subprocess.run([sys.executable, "-c", ASK, url], capture_output=True, text=True, check=False).stdout.strip()


def daemon(url):
    """A process whose parent and grandparent have ended, in a session of its own."""
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            while os.getppid() == os.getsid(0):  # until the parent has ended
                time.sleep(0.01)
            os.dup2(write, 1)
            os.execv(sys.executable, [sys.executable, "-c", ASK, url])
        os._exit(0)
    os.close(write)
    os.wait()
    with open(read) as file:
        return file.read().strip()


def dying(url):
    """The process that has said hello ends; another one, with its connection, answers."""
    sock = connect(url)
    pid = os.fork()
    if pid == 0:
        sock.send(HELLO)
        os._exit(0)
    os.waitpid(pid, 0)
    sock.send(sock.recv(256))
    return answer(sock)


def handed_over(url):
    """One process says hello, another one answers, and both live."""
    sock = connect(url)
    pid = os.fork()
    if pid == 0:
        sock.send(HELLO)
        time.sleep(30)
        os._exit(0)
    nonce = sock.recv(256)
    sock.send(nonce)
    got = answer(sock)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return got


def forged(url):
    """Claim to be another process, such as the parent of the supervisor."""
    sock = connect(url)
    pid = 1
    credentials = __import__("struct").pack("3i", pid, os.geteuid(), os.getegid())
    try:
        sock.sendmsg([HELLO], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, credentials)])
    except PermissionError:
        return None
    sock.sendmsg([sock.recv(256)], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, credentials)])
    return answer(sock)


def in_namespaces(url):
    """As root of a user and a pid namespace of its own."""
    command = ["unshare", "--user", "--map-root-user", "--pid", "--fork", sys.executable, "-c", ASK, url]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


WAYS = {each.__name__: each for each in (itself, program, daemon, dying, handed_over, forged, in_namespaces)}


@app.entrypoint
async def entrypoint(ctx):
    asked = ctx.job.metadata
    if "sleep" in asked:
        await asyncio.sleep(3600)
    if "leave" in asked:
        # A process that outlives this session, and asks when the test says so.
        script = f"import time, os\nwhile not os.path.exists('go'): time.sleep(0.01)\n{ASK}"
        with open("left", "w") as output:
            subprocess.Popen([sys.executable, "-c", script, asked["url"]], start_new_session=True, stdout=output)
        await asyncio.sleep(3600)
    try:
        return await asyncio.to_thread(WAYS[asked["way"]], asked["url"])
    except PermissionError:  # the socket is behind the wall for sockets
        return None
