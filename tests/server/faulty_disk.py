"""A disk that is full, read-only or slow, for the files of one history: a library between SQLite and the kernel.

What it does is written in a file, and may change at any time. ``full``: no write finds room. ``readonly``: no file can
be written. ``slow``: no ``fsync`` returns before the file says something else.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

__all__ = ["FaultyDisk"]

LIBRARY = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int is_history(int fd)
{
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0)
        return 0;
    path[size] = 0;
    return strstr(path, "/history.db") != NULL && strstr(path, ".lock") == NULL;
}

/* 'f' for full, 'r' for readonly, 's' for slow, 0 for a healthy disk. */
static char fault(void)
{
    char found = 0;
    const char *path = getenv("DISK_FAULT");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        if (read(fd, &found, 1) != 1)
            found = 0;
        close(fd);
    }
    return found;
}

static int cannot_write(int fd)
{
    if (!is_history(fd))
        return 0;
    char found = fault();
    errno = found == 'f' ? ENOSPC : EROFS;
    return found == 'f' || found == 'r';
}

#define REAL(name) ((typeof(&name)) dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *data, size_t size)
{
    return cannot_write(fd) ? -1 : REAL(write)(fd, data, size);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at)
{
    return cannot_write(fd) ? -1 : REAL(pwrite)(fd, data, size, at);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at)
{
    return cannot_write(fd) ? -1 : REAL(pwrite64)(fd, data, size, at);
}

static void wait_for_the_disk(int fd)
{
    if (is_history(fd))
        while (fault() == 's')
            usleep(5000);
}

int fsync(int fd)
{
    wait_for_the_disk(fd);
    return REAL(fsync)(fd);
}

int fdatasync(int fd)
{
    wait_for_the_disk(fd);
    return REAL(fdatasync)(fd);
}
"""


class FaultyDisk:
    """A disk with a fault that can be set. ``environment`` is for the program that uses the disk."""

    def __init__(self, folder: Path) -> None:
        library, self._fault = folder / "faulty_disk.so", folder / "fault"
        self.set("")
        _build(library)
        self.environment = {**os.environ, "LD_PRELOAD": str(library), "DISK_FAULT": str(self._fault)}

    def set(self, fault: str) -> None:
        """Let the disk be ``full``, ``readonly`` or ``slow`` from now on, or healthy again (``""``)."""
        other = self._fault.with_suffix(".new")
        other.write_text(fault)
        other.replace(self._fault)


def _build(library: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        message = "there is no C compiler on this machine (Debian: apt-get install gcc)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(library), "-ldl"]
    subprocess.run(command, input=LIBRARY, text=True, check=True)
