"""The app of these tests: sessions that attack the supervisor, the zygote and each other.

Copied into the folder of a worker. A job names an attack and its target; the result says whether it was refused. An
attack that succeeds changes nothing that a later one needs.
"""

import asyncio
import ctypes
import errno
import mmap
import os
import platform
import resource
import signal
import socket
import struct
import subprocess
import sys

from greenroom import App
from greenroom.wire import messages as m

app = App()
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
PIDFD_GETFD, PTRACE_SEIZE, PTRACE_DETACH = 438, 0x4206, 17


def targets() -> dict[str, int]:
    parent = os.getppid()
    siblings = [pid for pid in children(parent) if pid != os.getpid() and name_of(pid) == "gr:child"]
    supervisor = parent_of(parent) if name_of(parent) == "gr:zygote" else parent  # a spawned session has no zygote
    return {"zygote": parent, "supervisor": supervisor, "sibling": min(siblings)}


def name_of(pid: int) -> str:
    return open(f"/proc/{pid}/comm").read().strip()


def children(pid: int) -> list[int]:
    threads = os.listdir(f"/proc/{pid}/task")  # a thread of the supervisor starts its processes
    return [int(each) for thread in threads for each in open(f"/proc/{pid}/task/{thread}/children").read().split()]


def parent_of(pid: int) -> int:
    return int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])


# --- attacks -------------------------------------------------------------------------------------


def send_signal(target: int) -> None:
    os.kill(target, signal.SIGWINCH)  # ignored by default


def stop(target: int) -> None:
    os.kill(target, signal.SIGSTOP)
    os.kill(target, signal.SIGCONT)


def read_environment(target: int) -> None:
    with open(f"/proc/{target}/environ", "rb") as file:
        file.read()


def read_memory(target: int) -> None:
    open(f"/proc/{target}/mem", "rb").close()


def open_file(target: int) -> None:
    os.close(os.open(f"/proc/{target}/fd/0", os.O_RDONLY))


def take_file(target: int) -> None:
    pidfd = os.pidfd_open(target)
    number = checked(libc.syscall(PIDFD_GETFD, pidfd, 0, 0))
    os.close(number)


def trace(target: int) -> None:
    checked(libc.ptrace(PTRACE_SEIZE, target, 0, 0))
    # Detached when the thread that has seized it ends; a test ends this process soon.


def limit_files(target: int) -> None:
    resource.prlimit(target, resource.RLIMIT_NOFILE, resource.prlimit(target, resource.RLIMIT_NOFILE))


def limit_cpu(target: int) -> None:
    resource.prlimit(target, resource.RLIMIT_CPU, resource.prlimit(target, resource.RLIMIT_CPU))


def limit_by_other_interface(target: int) -> None:
    """Call prlimit64 of i386 (number 340) by ``int 0x80``, which 64-bit programs may use, too."""
    assert platform.machine() == "x86_64"
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40  # MAP_32BIT: i386 pointers have 32 bits
    page = libc_mmap(4096, mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC, flags)
    limits = resource.prlimit(target, resource.RLIMIT_CORE)
    limit = struct.pack("<QQ", *(value % 2**64 for value in limits))  # infinity is -1 in Python
    ctypes.memmove(page, limit, 16)
    code = b"\x53"  # push rbx
    code += b"\xb8" + struct.pack("<I", 340)  # mov eax, prlimit64
    code += b"\xbb" + struct.pack("<I", target)  # mov ebx, pid
    code += b"\xb9" + struct.pack("<I", resource.RLIMIT_CORE)  # mov ecx, resource
    code += b"\xba" + struct.pack("<I", page)  # mov edx, new limit
    code += b"\xbe" + struct.pack("<I", 0)  # mov esi, no old limit
    code += b"\xcd\x80\x5b\xc3"  # int 0x80; pop rbx; ret
    ctypes.memmove(page + 64, code, len(code))
    result = ctypes.CFUNCTYPE(ctypes.c_int)(page + 64)()
    if result < 0:
        raise OSError(-result, os.strerror(-result))


def libc_mmap(size: int, protection: int, flags: int) -> int:
    libc.mmap.restype = ctypes.c_void_p
    address = libc.mmap(None, ctypes.c_size_t(size), protection, flags, -1, ctypes.c_long(0))
    assert address not in (None, ctypes.c_void_p(-1).value), "no memory below 4 GB"
    return int(address)


def be_killed_first(target: int) -> None:
    with open(f"/proc/{target}/oom_score_adj", "r+") as file:
        score = file.read()
        file.seek(0)
        file.write(score)


def write_heartbeat(target: int) -> None:
    """Write into a neighbour's heartbeat page; it stays as it is."""
    folder = f"/proc/{target}/fd"
    number = next(each for each in os.listdir(folder) if "greenroom-heartbeat" in os.readlink(f"{folder}/{each}"))
    page = os.open(f"{folder}/{number}", os.O_RDWR)
    try:
        os.pwrite(page, os.pread(page, 8, 64), 64)  # no count is there
    finally:
        os.close(page)


# --- attacks on abstract sockets, by their names -------------------------------------------------


def connect(name: str) -> None:
    with socket.socket(socket.AF_UNIX, kind_of(name)) as sock:
        sock.connect(f"\0{name}")


def send(name: str) -> None:
    """Send a datagram without a connection."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"hello", f"\0{name}")


def connect_by_program(name: str) -> None:
    """Connect by a program that this process executes, in a session of its own."""
    code = f"import socket\nsock = socket.socket(socket.AF_UNIX, {int(kind_of(name))})\n"
    code += f"try: sock.connect({chr(0) + name!r})\nexcept OSError as error: print(error.errno)"
    command = [sys.executable, "-c", code]
    failed = subprocess.run(command, stdout=subprocess.PIPE, text=True, start_new_session=True, check=True).stdout
    if failed:
        raise OSError(int(failed), "in the program")


def kind_of(name: str) -> int:
    return {"STREAM": socket.SOCK_STREAM, "SEQPACKET": socket.SOCK_SEQPACKET, "DGRAM": socket.SOCK_DGRAM}[
        name.rpartition("/")[2]
    ]


# --- the session ---------------------------------------------------------------------------------


def forge_ends(target: int, process_id: str) -> None:
    """Report the end of another session in the zygote's name, by a copy of the zygote's channel."""
    with open(f"/proc/{target}/cmdline") as file:
        arguments = file.read().split("\0")
    channel = int(arguments[arguments.index("greenroom.zygote") + 1])
    fd = checked(libc.syscall(PIDFD_GETFD, os.pidfd_open(target), channel, 0))
    with socket.socket(fileno=fd) as copy:
        copy.setblocking(True)
        copy.send(m.encode(m.Exited(process_id, 0, None)))
        copy.send(m.encode(m.Reaped(process_id, 0.0, 0.0, 0)))


def checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


ATTACKS = {
    function.__name__: function
    for function in (
        send_signal,
        stop,
        read_environment,
        read_memory,
        open_file,
        take_file,
        trace,
        limit_files,
        limit_cpu,
        limit_by_other_interface,
        be_killed_first,
        write_heartbeat,
    )
}
SOCKET_ATTACKS = {function.__name__: function for function in (connect, send, connect_by_program)}


@app.entrypoint
async def entrypoint(ctx):
    attack = ctx.job.metadata
    if "sleep" in attack:
        await asyncio.sleep(3600)
    try:
        if attack["attack"] == "forge_ends":
            forge_ends(targets()["zygote"], attack["target"])
        elif attack["attack"] in SOCKET_ATTACKS:
            SOCKET_ATTACKS[attack["attack"]](attack["target"])
        else:
            ATTACKS[attack["attack"]](targets()[attack["target"]])
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"
