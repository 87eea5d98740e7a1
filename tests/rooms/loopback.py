"""Makes WebRTC clients work on a machine that has no network but loopback.

libwebrtc sends media from the interfaces that ``getifaddrs(3)`` lists, except those that are flagged as loopback or
called "lo". Where no other has an IPv4 address it opens no socket, and every ``connect`` fails after a minute. A small
library in ``LD_PRELOAD`` lists "lo" as an ordinary interface called "e0". It is needed by each process that joins a
room, agents' processes too, so it goes into the environment of the whole test run, and only where it is needed.
"""

from __future__ import annotations

import fcntl
import shutil
import socket
import struct
import subprocess
from pathlib import Path

__all__ = ["build_shim", "has_ordinary_interface"]

SIOCGIFFLAGS, SIOCGIFADDR = 0x8913, 0x8915
IFF_LOOPBACK, IFF_RUNNING = 0x8, 0x40

SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <string.h>

int getifaddrs(struct ifaddrs **list)
{
    int (*real)(struct ifaddrs **) = dlsym(RTLD_NEXT, "getifaddrs");
    int result = real(list);
    for (struct ifaddrs *one = result ? NULL : *list; one; one = one->ifa_next) {
        one->ifa_flags &= ~IFF_LOOPBACK;
        if (strcmp(one->ifa_name, "lo") == 0)
            memcpy(one->ifa_name, "e0", sizeof "e0");
    }
    return result;
}
"""


def has_ordinary_interface() -> bool:
    """Whether some interface other than loopback is up and has an IPv4 address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        return any([_is_ordinary(probe, name) for _, name in socket.if_nameindex()])


def _is_ordinary(probe: socket.socket, name: str) -> bool:
    request = struct.pack("256s", name.encode())
    flags = struct.unpack_from("H", fcntl.ioctl(probe, SIOCGIFFLAGS, request), 16)[0]
    if flags & IFF_LOOPBACK or not flags & IFF_RUNNING:
        return False
    try:
        fcntl.ioctl(probe, SIOCGIFADDR, request)
    except OSError:
        return False  # it has no IPv4 address
    return True


def build_shim(directory: Path) -> Path:
    """Compile the library; raises ``RuntimeError`` where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise RuntimeError("only loopback has an IPv4 address here, and there is no `cc` to build the remedy with")
    library = directory / "loopback.so"
    command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(library), "-ldl"]
    subprocess.run(command, input=SHIM, text=True, check=True)
    return library
