"""Token of a worker: its form, and the file that can hold it."""

from __future__ import annotations

import errno
import os
import stat
import string
from typing import NamedTuple

from ..errors import OptionError

__all__ = ["SHORTEST_TOKEN", "Stamp", "length_problem", "read_token", "stamp_of", "token_problem"]

SHORTEST_TOKEN = 16
"""Fewest characters of a token. An attacker could find a shorter one by trial."""

_ALLOWED = frozenset(string.ascii_letters + string.digits + string.punctuation)
_LARGEST_FILE = 65536


class Stamp(NamedTuple):
    """Marks of a file. If two stamps are equal, the file is the same and has not changed."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def token_problem(token: str) -> str | None:
    """Return the reason why a text cannot be a token, or ``None``.

    The reason is worded to follow the name of the token, and does not contain the token.
    """
    if not token:
        return "is empty, so every client would have access. Set a token, or set off to need none"
    if not _ALLOWED.issuperset(token):
        return "contains a blank, a control character or a non-ASCII character, which no header can carry"
    return None


def length_problem(token: str) -> str | None:
    """Return the reason why a token does not protect a worker, or ``None``. See :func:`token_problem`."""
    if len(token) < SHORTEST_TOKEN:
        return f"has {len(token)} characters; it must have at least {SHORTEST_TOKEN}"
    return None


def read_token(path: str) -> tuple[str, Stamp]:
    """Return the token in a file, without blanks around it, and the stamp of the file. The call may block.

    Raises ``OptionError`` if the file cannot be read, or if it holds no valid token.
    """
    try:
        data, stamp = _read(path)
    except OSError as error:
        raise OptionError(f"the token file {path} cannot be read: {error.strerror}") from None
    if len(data) > _LARGEST_FILE:
        raise OptionError(f"the token file {path} is larger than {_LARGEST_FILE} bytes; it must hold only a token")
    token = data.decode("ascii", "replace").strip(string.whitespace)
    problem = token_problem(token) or length_problem(token)
    if problem:
        raise OptionError(f"the token file {path} {problem}")
    return token, stamp


def stamp_of(path: str) -> Stamp | None:
    """Return the stamp of a file, or ``None`` if the file cannot be reached. The call may block."""
    try:
        return Stamp.of(os.stat(path))
    except (OSError, ValueError):
        return None


def _read(path: str) -> tuple[bytes, Stamp]:
    # Without O_NONBLOCK, the open of a named pipe blocks until the pipe has a writer (fifo(7)).
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        return os.read(fd, _LARGEST_FILE + 1), Stamp.of(status)
    finally:
        os.close(fd)
