"""Properties of the wire: what must hold for every message, however it is cut, and for every kind of garbage."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any, get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from greenroom.errors import ERROR_CHARACTERS, ErrorInfo, PayloadError
from greenroom.wire import messages as m
from greenroom.wire import payload
from greenroom.wire.frames import MAX_HEADER, Frame, FrameDecoder, FrameError, Prefix, decode_packet, encode_frame

# --- frames --------------------------------------------------------------------------------------

frames = st.builds(Frame, st.integers(0, 255), st.binary(max_size=200), st.binary(max_size=500))


def fed(decoder: FrameDecoder, data: bytes, cuts: list[int]) -> list[Frame]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    pieces = [data[begin:end] for begin, end in pairwise(places)]
    return [frame for piece in pieces for frame in decoder.feed(piece)]


@given(st.lists(frames, max_size=8), st.lists(st.integers(0, 10_000), max_size=30))
def test_frames_survive_any_splitting_of_the_stream(sent: list[Frame], cuts: list[int]) -> None:
    assert fed(FrameDecoder(), b"".join(encode_frame(*frame) for frame in sent), cuts) == sent


@given(frames, st.data())
def test_a_truncated_stream_yields_nothing_and_a_truncated_packet_is_an_error(
    frame: Frame, data: st.DataObject
) -> None:
    packet = encode_frame(*frame)
    assert decode_packet(packet) == frame
    part = packet[: data.draw(st.integers(0, len(packet) - 1))]
    assert list(FrameDecoder().feed(part)) == []
    for broken in (part, packet + b"\0"):
        with pytest.raises(FrameError):
            decode_packet(broken)


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=10))
@example(b"\x01\x01\0\0\xff\xff\xff\xff\0\0\0\0", [])
@example(b"\x01\x01\0\0\0\0\0\0\xff\xff\xff\xff", [])
@example(b"\x02" + bytes(11), [])
def test_garbage_raises_nothing_but_frame_error(data: bytes, cuts: list[int]) -> None:
    for read in (lambda: fed(FrameDecoder(), data, cuts), lambda: decode_packet(data)):
        try:
            read()
        except FrameError:
            continue


@pytest.mark.parametrize(("header", "body"), [(MAX_HEADER + 1, 0), (0, payload.MAX_BYTES + 1), (2**32 - 1, 2**32 - 1)])
def test_an_oversized_frame_is_refused_at_its_prefix(header: int, body: int) -> None:
    prefix = b"\x01\x01\0\0" + header.to_bytes(4, "big") + body.to_bytes(4, "big")
    with pytest.raises(FrameError, match="over the limit"):
        list(FrameDecoder().feed(prefix))


# --- messages ------------------------------------------------------------------------------------

plain_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=15,
)
# Before the others, which look their fields' types up at once.
st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))
# What a manifest holds: the types alone would say that anything can be in it.
st.register_type_strategy(
    m.AppFacts, st.builds(m.AppFacts, st.booleans(), st.dictionaries(st.text(), plain_json, max_size=4))
)
handed = st.dictionaries(st.text(), plain_json, max_size=4)
st.register_type_strategy(m.HandedOver, st.builds(m.HandedOver, handed))
walls = st.none() | st.dictionaries(st.text(), st.text(), max_size=3)
st.register_type_strategy(m.Loading, st.builds(m.Loading, st.integers(), walls))
st.register_type_strategy(m.Hello, st.builds(m.Hello, st.integers(), st.integers(), missing_walls=walls))
st.register_type_strategy(m.Configure, st.builds(m.Configure, handed=st.none() | handed))
MESSAGES: tuple[type[Any], ...] = get_args(m.Message)
messages = st.one_of(*(st.from_type(kind) for kind in MESSAGES))

WITH_BODY = (m.Ask, m.News, m.Start, m.Answer, m.Ended)


@given(messages, st.binary(max_size=100))
def test_every_message_comes_back_as_it_was(message: m.Message, body: bytes) -> None:
    body = body if isinstance(message, WITH_BODY) else b""
    frame = decode_packet(m.encode(message, body))
    assert (m.decode(frame, type(message)), frame.body) == (message, body)


@pytest.mark.parametrize("kind", [kind for kind in MESSAGES if kind not in WITH_BODY], ids=lambda kind: kind.__name__)
def test_a_body_on_a_message_without_one_is_refused_before_it_is_read(kind: type[Any]) -> None:
    number = MESSAGES.index(kind) + 1
    with pytest.raises(FrameError, match="0 are allowed"):
        m.check(Prefix(number, 2, 1), m.Message)
    with pytest.raises(FrameError, match="0 are allowed"):
        m.decode(Frame(number, b"{}", b"x"), m.Message)


def test_an_answer_has_a_bound_of_its_own() -> None:
    number = MESSAGES.index(m.Answer) + 1
    m.check(Prefix(number, 2, m.MAX_ANSWER), m.Message)
    with pytest.raises(FrameError, match="Answer with a body"):
        m.check(Prefix(number, 2, m.MAX_ANSWER + 1), m.Message)


def test_an_error_of_any_length_is_cut_to_what_an_error_can_have() -> None:
    sent = m.PrewarmFailed(ErrorInfo("E" * 1000, "m" * 100_000, "t" * 100_000 + "end"))
    got = m.decode(decode_packet(m.encode(sent)), m.PrewarmFailed).error
    assert len(got.type) < 300
    assert ERROR_CHARACTERS < len(got.message) < ERROR_CHARACTERS + 64
    assert ERROR_CHARACTERS < len(got.traceback) < ERROR_CHARACTERS + 64
    assert m.decode(decode_packet(m.encode(m.PrewarmFailed(got))), m.PrewarmFailed).error == got, "cut once"
    assert got.traceback.endswith("end")


@given(st.integers(0, 255), plain_json.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60))
def test_a_strange_header_raises_nothing_but_frame_error(kind: int, header: bytes) -> None:
    try:
        m.decode(Frame(kind, header, b""), m.Message)
    except FrameError:
        return


@given(st.sampled_from(MESSAGES), st.data())
@example(m.Warm, None)
def test_a_header_with_the_right_names_and_strange_values_raises_nothing_but_frame_error(
    kind: type[Any], data: st.DataObject | None
) -> None:
    names = kind.__dataclass_fields__
    values = st.one_of(plain_json, st.sampled_from([10**400, -(10**400), 2**63, "\ud800", [], {}]))
    header = {name: 10**400 if data is None else data.draw(values) for name in names}
    frame = Frame(MESSAGES.index(kind) + 1, json.dumps(header).encode(), b"")
    try:
        message = m.decode(frame, kind)
    except FrameError:
        return
    assert isinstance(message, kind)


# --- payloads ------------------------------------------------------------------------------------


@given(plain_json | st.text(st.sampled_from("\ud800a")))  # a lone surrogate has no UTF-8 form
def test_plain_data_comes_back_as_it_was(value: Any) -> None:
    encoded = payload.encode(value)
    assert payload.decode(encoded) == value
    text = payload.as_json(encoded)
    assert text is not None
    assert json.loads(text) == value
    assert payload.from_json(text) == encoded


@given(st.binary())
def test_bytes_come_back_as_they_were(value: bytes) -> None:
    for kind in (bytes, bytearray, memoryview):
        encoded = payload.encode(kind(value))
        assert payload.decode(encoded) == value
        assert payload.as_json(encoded) is None


@given(st.binary(max_size=200))
@example(b"")
@example(b"j" + b"[" * 100_000)
@example(b"j\xff\xfe")
def test_a_strange_payload_raises_nothing_but_payload_error(data: bytes) -> None:
    try:
        payload.decode(data)
    except PayloadError:
        return


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [object(), {1, 2}, {"key": b"bytes"}, {(1, 2): 3}, 1j, nested(100_000), 10**5000, lambda: None],
    ids=["object", "set", "bytes inside", "tuple as key", "complex", "deep", "huge number", "function"],
)
def test_what_is_not_plain_data_is_refused(value: object) -> None:
    with pytest.raises(PayloadError):
        payload.encode(value)
