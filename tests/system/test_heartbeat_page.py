"""A heartbeat page: what the child counts is read, and nothing that the child does to the file harms the reader."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import resource
from collections.abc import Iterator

import pytest

from greenroom.system.crash_stacks import MAX_BYTES
from greenroom.system.heartbeat import CRASH_AT, Beats, HeartbeatPage, HeartbeatReader


@pytest.fixture
def reader() -> Iterator[HeartbeatReader]:
    reader = HeartbeatReader()
    try:
        yield reader
    finally:
        reader.close()
        os.close(reader.fd)


def test_the_counts_arrive(reader: HeartbeatReader) -> None:
    page = HeartbeatPage(reader.fd)
    assert reader.read() == Beats(0, 0, 0)
    page.beat_loop()
    page.beat_loop()
    page.beat_thread()
    page.count_dropped()
    assert reader.read() == Beats(2, 1, 1)


@pytest.mark.parametrize("size", [0, 1, mmap.PAGESIZE - 1, mmap.PAGESIZE + 1, 1 << 30])
def test_the_size_cannot_be_changed(reader: HeartbeatReader, size: int) -> None:
    """Not by its fd, and not by a new open of the file, as another process of the same user has it."""
    again = os.open(f"/proc/self/fd/{reader.fd}", os.O_RDWR | os.O_CLOEXEC)
    try:
        for fd in (reader.fd, again):
            with pytest.raises(PermissionError):
                os.ftruncate(fd, size)
        assert os.fstat(reader.fd).st_size == CRASH_AT + MAX_BYTES
    finally:
        os.close(again)
    assert reader.read() == Beats(0, 0, 0)


def test_no_seal_can_be_added_that_would_keep_the_child_from_beating(reader: HeartbeatReader) -> None:
    with pytest.raises(PermissionError):
        fcntl.fcntl(reader.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


def test_a_hole_in_the_page_reads_as_zero(reader: HeartbeatReader) -> None:
    HeartbeatPage(reader.fd).beat_loop()
    punch_hole_and_keep_size = 0x02 | 0x01
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.fallocate(reader.fd, punch_hole_and_keep_size, ctypes.c_long(0), ctypes.c_long(mmap.PAGESIZE)) == 0
    assert reader.read() == Beats(0, 0, 0)


def test_the_supervisor_writes_one_word_and_no_counts(reader: HeartbeatReader) -> None:
    page = HeartbeatPage(reader.fd)
    page.beat_loop()
    assert page.group_signal_at() == 0
    reader.note_signal(1234.5)
    assert page.group_signal_at() == 1234.5
    page.beat_loop()
    assert reader.read() == Beats(2, 0, 0)


def test_a_page_costs_one_fd_beside_the_one_for_the_child() -> None:
    before = set(os.listdir("/proc/self/fd"))
    reader = HeartbeatReader()
    os.close(reader.fd)
    assert len(set(os.listdir("/proc/self/fd")) - before) <= 1
    reader.close()
    assert set(os.listdir("/proc/self/fd")) == before


def test_nothing_is_kept_where_there_are_no_fds_left() -> None:
    before = set(os.listdir("/proc/self/fd"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    for limit in (free, free + 1):  # none; and one for the file, but none for its mapping
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                HeartbeatReader()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert set(os.listdir("/proc/self/fd")) == before


def test_the_room_for_the_stacks_of_a_crash_takes_no_memory_before_the_crash(reader: HeartbeatReader) -> None:
    page = HeartbeatPage(reader.fd)
    page.beat_loop()
    reader.read()
    assert os.fstat(reader.fd).st_blocks * 512 == mmap.PAGESIZE


def test_text_behind_the_page_is_read_and_ends_where_the_file_ends(reader: HeartbeatReader) -> None:
    assert reader.crash_text() == bytes(MAX_BYTES)
    assert os.pwrite(reader.fd, b"s" * MAX_BYTES, CRASH_AT) == MAX_BYTES
    with pytest.raises(PermissionError):
        os.pwrite(reader.fd, b"s", CRASH_AT + MAX_BYTES)
    assert reader.crash_text() == b"s" * MAX_BYTES
    assert reader.read() == Beats(0, 0, 0)
