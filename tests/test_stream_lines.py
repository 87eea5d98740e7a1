"""The bytes of a stream become lines, wherever the reads divide them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.pool.shell.stream_lines import LONGEST_LINE, Line, StreamLines


def read(*chunks: bytes) -> tuple[list[str], list[str]]:
    """Return the lines, the rest of the stream included, and the states that were overwritten."""
    lines, found = StreamLines(), list[Line]()
    for chunk in chunks:
        lines.feed(chunk)
        while lines.has_backlog:
            found += lines.take(3)
        state = lines.take_state()
        found += [state] if state is not None else []
    last = lines.take_last()
    found += [last] if last is not None else []
    return [line.text for line in found if not line.is_state], [line.text for line in found if line.is_state]


@given(st.lists(st.text("ab\u8a9e \t", max_size=5), max_size=8), st.sampled_from(["\n", "\r\n"]), st.randoms())
def test_lines_are_the_same_however_they_are_read(texts: list[str], end: str, chance: random.Random) -> None:
    data = "".join(text + end for text in texts).encode()
    cuts = sorted(chance.randrange(len(data) + 1) for _ in range(4))
    chunks = [data[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    assert read(*chunks) == (texts, [])


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r\r\n"])
def test_a_line_end_may_be_divided_between_reads(end: bytes) -> None:
    chunks = [bytes([byte]) for byte in b"one" + end + b"two" + end]
    assert read(*chunks) == (["one", "two"], [])


def test_a_state_is_overwritten_by_the_next_one() -> None:
    assert read(b"\r 1%", b"\r 2%", b"\r 3%\n") == ([" 3%"], [" 1%", " 2%"])
    assert read(b" 1%\r", b" 2%\r", b" 3%\r", b"\n") == ([" 3%"], [" 1%", " 2%"])


def test_the_last_state_remains_where_no_newline_follows() -> None:
    assert read(b"\rprogress 1\rprogress 2") == (["progress 2"], ["progress 1"])
    lines = StreamLines()
    lines.feed(b"progress 1\rprogress 2\r \r ")
    lines.take(1)
    assert lines.take_last() == Line("progress 2")
    lines.feed(b"progress 1\rprogress 2")
    lines.take(1)
    assert [lines.take_last(), lines.take_last()] == [Line("progress 2"), None]


def test_a_bar_that_is_wiped_off_leaves_its_last_state() -> None:
    lines = StreamLines()
    lines.feed(b"\r 99%\r100%\r    \r\n")
    assert [line.text for line in lines.take(1)] == ["100%"]


def test_two_texts_in_one_line_both_arrive() -> None:
    lines = StreamLines()
    lines.feed(b"first\rsecond\n")
    assert lines.take(1) == [Line("first", 0, True), Line("second")]


@pytest.mark.parametrize("size", [LONGEST_LINE + 1, 100_000, 1_000_000])
def test_a_line_that_is_too_long_says_how_much_is_missing(size: int) -> None:
    (line,), _ = read(b"x" * size + b"\n")
    assert line == "x" * LONGEST_LINE + f"… ({size - LONGEST_LINE} bytes more)"
    lines = StreamLines()
    lines.feed(b"x" * size + b"\nshort\n")
    assert [(one.missing, len(one.text) < 20) for one in lines.take(2)] == [(size - LONGEST_LINE, False), (0, True)]


@pytest.mark.parametrize("sign", ["\u00e4", "\u8a9e", "\U0001f3ad"])
def test_no_character_is_cut_in_two(sign: str) -> None:
    for before in range(4):
        text = "x" * before + sign * LONGEST_LINE
        (line,), _ = read(text.encode() + b"\n")
        kept, _, mark = line.partition("… (")
        assert text.startswith(kept)
        assert len(kept.encode()) + int(mark.split()[0]) == len(text.encode())


def test_a_longest_line_is_whole() -> None:
    assert read(b"x" * LONGEST_LINE + b"\n") == (["x" * LONGEST_LINE], [])


def test_skipped_lines_are_counted_with_their_bytes() -> None:
    lines = StreamLines()
    lines.feed(b"begun ")
    assert lines.take(1) == []
    lines.feed(b"line\n\n\nlast\nnext")
    assert lines.skip() == (4, len(b"begun line\n\n\nlast\n"))
    lines.feed(b" line\n")
    assert lines.take(1) == [Line("next line")]


def test_an_endless_line_takes_no_memory() -> None:
    lines = StreamLines()
    for _ in range(1000):
        lines.feed(bytes(65_536))
        assert lines.take(100) == []
        assert not lines.has_backlog
    last = lines.take_last()
    assert last is not None
    assert last.missing == 1000 * 65_536 - LONGEST_LINE


def test_bytes_that_are_no_text() -> None:
    assert read(b"\xff\x00\xfe bytes\n\xed\xa0\x80\n") == (["\ufffd\x00\ufffd bytes", "\ufffd" * 3], [])
