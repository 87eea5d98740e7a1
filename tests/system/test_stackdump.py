"""A stack dump that is none: a process that is to be killed may have put anything in its place."""

from __future__ import annotations

import os

from greenroom.system import stackdump


def test_what_cannot_be_read_like_a_file_holds_no_stacks() -> None:
    near, far = os.pipe()
    try:
        os.write(far, b"stacks")
        assert stackdump.read(near) == ""
    finally:
        os.close(near)
        os.close(far)
