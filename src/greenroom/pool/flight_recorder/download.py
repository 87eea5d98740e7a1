"""Readers of recordings: of a recorder that runs, or of files that a crash has left behind."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import BinaryIO

from .recorder import Recorder

__all__ = ["pieces_of_file", "pieces_of_path", "pieces_of_recorder"]

PIECE = 64 * 1024
"""Most bytes of one read."""


async def pieces_of_recorder(recorder: Recorder, executor: Executor) -> AsyncGenerator[bytes, None]:
    """Yield all bytes that are recorded when the first piece is requested. Raises ``OSError`` if no fds are left."""
    loop, parts = asyncio.get_running_loop(), recorder.parts()
    try:
        for fd, size in parts:
            offset = 0
            while piece := await loop.run_in_executor(executor, os.pread, fd, min(PIECE, size - offset), offset):
                yield piece
                offset += len(piece)
    finally:
        for part in parts:
            os.close(part.fd)


def pieces_of_path(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a file, or of the segments in a folder. Raises ``OSError``."""
    for file in sorted(path.glob("*.rows")) if path.is_dir() else [path]:
        with file.open("rb") as opened:
            yield from pieces_of_file(opened)


def pieces_of_file(file: BinaryIO) -> Iterator[bytes]:
    """Yield the bytes of an open file."""
    while piece := file.read(PIECE):
        yield piece
