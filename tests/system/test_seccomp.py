"""The filter, run by an interpreter of its instructions: it refuses two things, on each architecture that it knows."""

from __future__ import annotations

import errno
import os
import resource
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.system import seccomp

ALLOW = 0x7FFF0000
OWN = 4711
NUMBERS = st.integers(0, 2**32 - 1)
LIMITS = st.one_of(st.just(resource.RLIMIT_RTTIME), st.integers(0, 15), NUMBERS)
WORDS = st.one_of(st.sampled_from([0, 1, OWN, 2**31, 2**32 - 1]), NUMBERS)


def outcome(code: bytes, data: bytes) -> int:
    """Run the instructions, as classic BPF is defined in bpf(2)'s ancestor; returns the value that they return."""
    lines, accumulator, at = list(struct.iter_unpack("<HBBI", code)), 0, 0
    while True:
        kind, if_true, if_false, value = lines[at]
        at += 1
        if kind == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif kind == 0x15:
            at += if_true if accumulator == value else if_false
        elif kind == 0x35:
            at += if_true if accumulator >= value else if_false
        else:
            assert kind == 0x06
            return int(value)


def call(number: int, audit: int, arguments: list[int]) -> bytes:
    padded = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    return struct.pack("<IIQ6Q", number, audit, 0, *padded)


@pytest.mark.parametrize("name", seccomp._ARCHITECTURES)
@given(number=NUMBERS, audit=NUMBERS, pid=WORDS, limit=LIMITS, high=WORDS, new_low=WORDS, new_high=WORDS)
def test_it_refuses_limits_of_others_and_the_mark_and_nothing_else(
    name: str, number: int, audit: int, pid: int, limit: int, high: int, new_low: int, new_high: int
) -> None:
    arch = seccomp._ARCHITECTURES[name]
    code = bytearray(seccomp._code(arch))
    seccomp.put_pid(code, OWN)
    # The kernel takes the lower halves of a pid and of a limit's number.
    arguments = [high << 32 | pid, high << 32 | limit, new_high << 32 | new_low, 0]

    def verdict(number: int, audit: int) -> int:
        return outcome(bytes(code), call(number, audit, arguments))

    refused = 0x50000 | errno.EPERM
    is_mark, is_of_other, sets_a_limit = limit == resource.RLIMIT_RTTIME, pid not in (0, OWN), new_low or new_high
    assert verdict(arch.prlimit64, arch.audit) == (refused if sets_a_limit and (is_of_other or is_mark) else ALLOW)
    arguments = [high << 32 | limit, new_high << 32 | new_low]
    assert verdict(arch.setrlimit, arch.audit) == (refused if is_mark else ALLOW)
    if number not in (arch.prlimit64, arch.setrlimit) and number < arch.foreign_from:
        assert verdict(number, arch.audit) == ALLOW
    if number >= arch.foreign_from:
        assert verdict(number, arch.audit) == 0x50000 | errno.ENOSYS
    if audit != arch.audit:
        assert verdict(number, audit) == 0x50000 | errno.ENOSYS


def test_the_filter_is_for_the_process_that_enters_it() -> None:
    assert seccomp.architecture() is not None, "the tests run on an architecture that the filter knows"
    pid = os.fork()
    if pid == 0:
        os._exit(_tried())
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _tried() -> int:
    from greenroom.system import prctl

    limits = resource.getrlimit(resource.RLIMIT_CORE)
    prctl.set_no_new_privileges()
    seccomp.Filter().enter()
    resource.setrlimit(resource.RLIMIT_CORE, limits)
    resource.prlimit(os.getpid(), resource.RLIMIT_CORE, limits)
    resource.prlimit(os.getppid(), resource.RLIMIT_CORE)
    mark = resource.prlimit(0, resource.RLIMIT_RTTIME)
    refused = 0
    for pid, limit, value in ((os.getppid(), resource.RLIMIT_CORE, limits), (0, resource.RLIMIT_RTTIME, mark)):
        try:
            resource.prlimit(pid, limit, value)
        except PermissionError:
            refused += 1
    return 0 if refused == 2 else 1
