"""The worker's token: its form, and the file that can hold it."""

from __future__ import annotations

import errno
import os
import stat
import string
from typing import NamedTuple

from ..errors import OptionError

__all__ = ["SHORTEST_TOKEN", "Stamp", "length_problem", "read_token", "stamp_of", "token_problem"]

SHORTEST_TOKEN = 16
"""Characters: a shorter one could be found by trying."""

_ALLOWED = frozenset(string.ascii_letters + string.digits + string.punctuation)
_LARGEST_FILE = 65536


class Stamp(NamedTuple):
    """The marks by which a file is known to be the same, unchanged."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def token_problem(token: str) -> str | None:
    """Return why this can be no token, to follow its name; the text does not hold the token."""
    if not token:
        return "is empty; set a token, or off for none: an empty one would let everybody in"
    if not _ALLOWED.issuperset(token):
        return "holds a blank, a control character or another one that is not printable ASCII; no header can carry it"
    return None


def length_problem(token: str) -> str | None:
    """Return why this token does not protect a worker, to follow its name."""
    if len(token) < SHORTEST_TOKEN:
        return f"has {len(token)} characters; it must have at least {SHORTEST_TOKEN}"
    return None


def read_token(path: str) -> tuple[str, Stamp]:
    """Return the token in a file, without blanks around it. It may block. ``OptionError`` says why there is none."""
    try:
        data, stamp = _read(path)
    except OSError as error:
        raise OptionError(f"the token file {path} cannot be read: {error.strerror}") from None
    if len(data) > _LARGEST_FILE:
        raise OptionError(f"the token file {path} is larger than {_LARGEST_FILE} bytes; it must hold a token alone")
    token = data.decode("ascii", "replace").strip(string.whitespace)
    problem = token_problem(token) or length_problem(token)
    if problem:
        raise OptionError(f"the token file {path} {problem}")
    return token, stamp


def stamp_of(path: str) -> Stamp | None:
    """Return the marks of the file that is there now; ``None`` if none can be reached. It may block."""
    try:
        return Stamp.of(os.stat(path))
    except (OSError, ValueError):
        return None


def _read(path: str) -> tuple[bytes, Stamp]:
    # A pipe would block for its writer even to be opened.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        return os.read(fd, _LARGEST_FILE + 1), Stamp.of(status)
    finally:
        os.close(fd)
