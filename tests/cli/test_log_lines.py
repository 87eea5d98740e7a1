"""The worker's log lines: nothing in a text forges one, reaches the terminal as a control, or breaks the JSON."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import unicodedata
from typing import Any

import pytest
from rich.console import Console
from support import eventually

from greenroom.cli.log_writer import LogWriter
from greenroom.cli.logs import HumanFormatter, JsonFormatter
from greenroom.cli.text import as_json, harmless, one_line
from greenroom.log_fields import log_fields

LINE = re.compile(r"\d\d:\d\d:\d\d\.\d\d\d (DEBUG|INFO|WARNING|ERROR|CRITICAL) ")
FORGED = "12:00:00.000 INFO    serving evil"
EVIL = [
    *map(chr, [*range(0x20), *range(0x7F, 0xA0), 0x61C, 0x200E, 0x200F, 0x2028, 0x2029]),
    *map(chr, [*range(0x202A, 0x202F), *range(0x2066, 0x2070), 0xFFF9, 0xFFFA, 0xFFFB, 0xD800, 0xDFFF]),
    "\r\n",
    "\x1b[2J",
    "\x1b]0;owned\x07",
    "\x1b]8;;http://evil\x1b\\",
    "\b" * 20,
]


def record(text: str, **extra: Any) -> logging.LogRecord:
    known = {"name": "greenroom.app", "levelno": 20, "levelname": "INFO", "msg": "%s", "args": (text,)}
    return logging.makeLogRecord(known | extra)


def strict(line: str) -> Any:
    """Parse as a strict reader does."""
    assert line.isascii()
    assert "\n" not in line
    assert not re.search("[\x00-\x1f\x7f]", line)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    value = json.loads(line, parse_constant=refuse)
    json.dumps(value, ensure_ascii=False).encode("utf-8")  # raises if half a surrogate pair is in it
    return value


def assert_is_harmless(text: str) -> None:
    bad = [sign for sign in text if sign not in "\n\t" and unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp")]
    bad += [sign for sign in text if unicodedata.bidirectional(sign) in ("LRE", "RLE", "LRO", "RLO", "PDF")]
    bad += [sign for sign in text if unicodedata.bidirectional(sign) in ("LRI", "RLI", "FSI", "PDI")]
    assert not bad, [hex(ord(sign)) for sign in bad]


@pytest.mark.parametrize("sign", EVIL, ids=ascii)
def test_no_text_forges_a_line_for_people(sign: str) -> None:
    evil = f"x{sign}{FORGED}"
    formatter = HumanFormatter(coloured=False)
    ids = {"process_id": "1-1", "job_id": evil, "generation": 1}
    for line in (formatter.format(record(evil)), formatter.format(record(evil, **ids))):
        assert_is_harmless(line)
        first, *others = line.splitlines()
        assert LINE.match(first)
        assert all(other.startswith("    ") for other in others)


@pytest.mark.parametrize("sign", EVIL, ids=ascii)
def test_json_is_one_object_for_each_line(sign: str) -> None:
    evil = f"x{sign}{FORGED}"
    line = JsonFormatter().format(record(evil, app_logger=evil, job_id=evil, fields={evil: evil, "deep": [{evil: 1}]}))
    found = strict(line)
    assert FORGED in found["message"]
    assert found["level"] == "info"


@pytest.mark.parametrize("sign", [*EVIL, "] ", '" '], ids=ascii)
def test_no_label_or_field_forges_a_line_for_people(sign: str) -> None:
    evil = f"x{sign}{FORGED}"
    ids = {"process_id": "1-1", "job_id": "AJ_1", "generation": 1, "labels": {"room": evil, "agent": "greeter"}}
    line = HumanFormatter(coloured=False).format(record("hello", **ids, fields={evil: evil}))
    assert_is_harmless(line)
    assert "\n" not in line
    assert re.search(r'\[1-1 g1 AJ_1 room="x.*"\] hello ', line), "the label is quoted"


def test_a_line_for_people_has_the_first_label_and_the_fields() -> None:
    ids = {"process_id": "1-1", "job_id": "AJ_1", "generation": 1, "labels": {"room": "hall", "agent": "greeter"}}
    fields = {"caller": "Ad\u00e1", "count": 1}
    line = HumanFormatter(coloured=False).format(record("hello\nTraceback", **ids, fields=fields))
    assert line.endswith('[1-1 g1 AJ_1 room=hall] hello {"caller": "Ad\u00e1", "count": 1}\n    Traceback')
    assert strict(JsonFormatter().format(record("hello", **ids)))["labels"] == ids["labels"]
    many = HumanFormatter(coloured=False).format(record("hello", fields={str(n): "x" * 500 for n in range(32)}))
    assert len(many) < 2200


def test_an_exception_and_its_name_are_harmless() -> None:
    try:
        raise type("Evil\x1b[2J\n", (Exception,), {})(f"\r{FORGED}")
    except Exception as error:
        failed = record("failed", exc_info=(type(error), error, error.__traceback__))
    assert_is_harmless(HumanFormatter(coloured=False).format(failed))
    strict(JsonFormatter().format(failed))


def test_numbers_that_json_does_not_hold() -> None:
    nan, infinity = float("nan"), float("inf")
    extra = log_fields("odd", ratio=nan, deep={"list": [infinity, (-infinity,)], nan: 1}, large=2**70)
    found = strict(JsonFormatter().format(record("odd", fields={"score": nan}, **extra)))
    assert found["fields"] == {"score": "NaN"}
    assert found["ratio"] == "NaN"
    assert found["deep"] == {"list": ["Infinity", ["-Infinity"]], "nan": 1}
    assert found["large"] == 2**70


def test_fields_that_are_nested_without_end() -> None:
    endless: list[Any] = []
    endless.append(endless)
    strict(JsonFormatter().format(record("odd", **log_fields("odd", endless=endless, thing=object()))))


def test_text_in_any_language_stays_as_it_is() -> None:
    text = "Gr\u00fc\u00dfe \u05e9\u05dc\u05d5\u05dd \u8a9e \U0001f469\u200d\U0001f680 a\tb\nc"
    assert harmless(text) == text
    assert one_line("a\r\nb\tc") == "a b c"


def test_json_for_programs_holds_no_control_character() -> None:
    assert strict(as_json({"a": "\x7f\x1b\ud800".encode("utf-8", "backslashreplace").decode()}).replace("\n", ""))


# --- the writer ----------------------------------------------------------------------------------


def test_lines_that_do_not_fit_into_the_queue_are_told_as_one_more_line_of_json() -> None:
    reading, writing = os.pipe()
    handler = LogWriter(writing)
    handler.setFormatter(JsonFormatter())
    for _ in range(1100):
        handler.handle(record("x" * 32_000))  # nobody reads: the pipe is full, and then the queue
    lines = [strict(line) for line in _read_lines(reading, handler)]
    os.close(reading)
    kept = [line for line in lines if line["message"].startswith("x")]
    (notice,) = [line for line in lines if line.get("event") == "log_lines_dropped"]
    assert len(kept) + notice["lines"] == 1100
    assert sum(len(line["message"]) for line in kept) < 20_000_000


def test_a_record_that_cannot_be_formatted_is_told_as_dropped() -> None:
    reading, writing = os.pipe()
    handler = LogWriter(writing)
    handler.setFormatter(JsonFormatter())
    handler.handle(logging.makeLogRecord({"msg": "%d", "args": ("no number",), "levelname": "INFO"}))
    handler.handle(record("good"))
    handler.close()
    os.close(writing)
    with open(reading, encoding="utf-8") as log:
        good, notice = (strict(line) for line in log.read().splitlines())
    assert good["message"] == "good"
    assert (notice["lines"], notice["event"]) == (1, "log_lines_dropped")
    assert "could not be formatted" in notice["message"]


def _read_lines(reading: int, handler: LogWriter) -> list[str]:
    """Read all that the handler writes, and close it when no more comes after its notice."""
    data = b""
    while b"log_lines_dropped" not in data or handler._lines.qsize():
        data += os.read(reading, 1 << 20)
    handler.close()
    os.close(handler._fd)
    while chunk := os.read(reading, 1 << 20):
        data += chunk
    return data.decode().splitlines()


async def test_a_line_after_one_that_was_written_in_part_is_a_line_of_its_own() -> None:
    reading, writing = os.pipe()
    handler = LogWriter(writing)
    handler.setFormatter(JsonFormatter())
    handler._is_within_line = True  # as after a disk that was full in the midst of a line
    handler.handle(record("whole"))
    handler.close()
    os.close(writing)
    with os.fdopen(reading) as pipe:
        assert [strict(line)["message"] for line in pipe.read().splitlines() if line] == ["whole"]


async def test_a_pipe_that_does_not_block_loses_nothing() -> None:
    reading, writing = os.pipe2(os.O_NONBLOCK)
    os.set_blocking(reading, True)
    handler = LogWriter(writing)
    handler.setFormatter(JsonFormatter())
    for number in range(100):
        handler.handle(record(f"{number} {'x' * 5000}"))
    data = b""

    def has_come() -> bool:
        nonlocal data
        data += os.read(reading, 1 << 20)
        return data.count(b"\n") == 100

    await eventually(has_come, "100 lines")
    handler.close()
    os.close(writing)
    os.close(reading)
    assert [strict(line)["message"].split()[0] for line in data.decode().splitlines()] == list(map(str, range(100)))


# --- what is shown by rich -----------------------------------------------------------------------


def test_brackets_in_the_name_of_an_app_are_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    from greenroom.cli import printing

    shown = io.StringIO()
    monkeypatch.setattr("sys.stderr", shown)
    monkeypatch.setattr(shown, "isatty", lambda: True)
    monkeypatch.setattr("rich.console.Console", lambda **_: Console(file=shown, force_terminal=True, width=100))
    with printing.working("examining [bold]agent[/].py:[link=http://evil]app\x1b[2J"):
        pass
    assert "[bold]agent[/].py:[link=http://evil]app\\x1b[2J" in shown.getvalue()
