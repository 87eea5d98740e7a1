"""One job in `greenroom top`: its pages, how they scroll, and how they are drawn in every size of terminal."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from pictures import NOW, exit_report, job_view

from greenroom.cli.job_requests import LogLine
from greenroom.cli.top.draw import Scene
from greenroom.cli.top.draw_job import draw_job
from greenroom.cli.top.opened_job import OpenedJob
from greenroom.cli.top.pages import KEPT_LINES, Page
from greenroom.errors import ErrorInfo

WIDE, HIGH = 80, 24


def log_line(number: int, text: str, left_out: int = 0) -> LogLine:
    return LogLine(left_out, {"number": number, "at": NOW, "level": "info", "origin": "stdout", "text": text})


def shown(job: OpenedJob, width: int = WIDE, height: int = HIGH, *, is_lost: bool = False) -> str:
    return "\n".join(line.plain for line in draw_job(job, Scene(NOW, width, height, last_line="keys"), is_lost=is_lost))


def text_of(page: Page, width: int = WIDE, height: int = HIGH) -> str:
    return "\n".join(page.window(width, height).rows)


# --- pages ---------------------------------------------------------------------------------------


def test_a_page_scrolls_between_its_ends() -> None:
    page = Page("\n".join(f"line {n}" for n in range(10)))
    assert page.window(20, 4) == (["line 0", "line 1", "line 2", "line 3"], 0, 10)
    for by, first in ((3, 3), (100, 6), (-1, 5), (-100, 0)):
        page.scroll(by)
        assert page.window(20, 4).first == first
    assert page.window(20, 100) == ([f"line {n}" for n in range(10)], 0, 10)


def test_a_log_is_followed_until_the_reader_moves_up() -> None:
    page = Page(is_following=True)
    for number in range(10):
        page.append(f"line {number}")
    assert page.window(20, 3).rows == ["line 7", "line 8", "line 9"]
    page.scroll(-2)
    page.append("line 10")
    assert page.window(20, 3).rows == ["line 5", "line 6", "line 7"]
    assert not page.is_following
    page.scroll(100)
    page.append("line 11")
    assert page.is_following
    assert page.window(20, 3).rows == ["line 9", "line 10", "line 11"]


def test_a_reader_stays_at_the_same_line_whatever_happens_around_it() -> None:
    page = Page(is_following=True)
    for number in range(KEPT_LINES):
        page.append(f"{number:04d} " + "x" * 30)
    page.window(20, 4)
    page.scroll(-100)
    first = page.window(20, 4).rows[0]
    page.append("more\nand more")  # the first two lines are dropped
    assert page.window(20, 4).rows[0] == first
    assert page.window(100, 4).rows[0].startswith(first.strip())  # the terminal is wider now
    page.scroll(-1_000_000)
    assert page.window(20, 4).rows[0] == "0002 " + "x" * 15


def test_what_an_app_writes_does_not_steer_the_terminal() -> None:
    page = Page("a\tb \x1b[2J\u202e\x9b1m\r\nnext")
    assert page.window(40, 5).rows == ["a       b \\x1b[2J\\u202e\\x9b1m", "next"]


@given(
    text=st.text(max_size=300),
    steps=st.lists(st.integers(-50, 50), max_size=5),
    sizes=st.lists(st.tuples(st.integers(1, 120), st.integers(1, 40)), min_size=1, max_size=3),
    is_following=st.booleans(),
)
def test_a_page_fits_every_terminal(
    text: str, steps: list[int], sizes: list[tuple[int, int]], is_following: bool
) -> None:
    page = Page(text, is_following=is_following)
    for width, height in sizes:
        for step in steps:
            page.scroll(step)
        window = page.window(width, height)
        assert len(window.rows) == min(height, window.total)
        assert window.first + len(window.rows) <= window.total


# --- the pages of a job --------------------------------------------------------------------------


def test_the_report_has_the_cause_who_decided_and_the_traceback() -> None:
    job = OpenedJob("call")
    job.update(job_view())
    assert "state  running" in text_of(job.page)
    error = ErrorInfo("KeyError", "'menu'", 'Traceback:\n  File "agent.py", line 12\nKeyError: \x1b[31mmenu')
    ended = exit_report(outcome="failed", reason="raised", detail="the entrypoint raised KeyError", error=error)
    job.update(job_view(report=ended, cause="failed, raised: KeyError at agent.py:12"))
    text = text_of(job.page)
    for part in (
        "outcome    failed",
        "detail     the entrypoint raised KeyError",
        "cause      failed, raised: KeyError at agent.py:12",
        "KeyError: \\x1b[31mmenu",
    ):
        assert part in text
    assert job.has_ended


def test_the_log_says_which_lines_are_missing() -> None:
    job = OpenedJob("call")
    job.turn(1)
    job.add_line(log_line(1, "hello\nthere"))
    job.add_line(log_line(5, "bye", left_out=3))
    rows = job.page.window(WIDE, HIGH).rows
    assert rows[0].endswith("stdout: hello")
    assert rows[1:3] == ["    there", "... 3 lines are not kept"]
    assert rows[3].endswith("stdout: bye")
    assert job.last_line == 5


def test_the_stacks_are_those_of_the_report_if_it_has_some() -> None:
    job = OpenedJob("call")
    job.update(job_view())
    job.turn(-1)
    assert "Press s" in text_of(job.page)
    job.set_stacks("Thread 1\n  in listen")
    assert text_of(job.page) == "Thread 1\n  in listen"
    job.update(job_view(report=exit_report(reason="job_timeout")))
    assert text_of(job.page) == "Thread 1\n  in listen"
    job.update(job_view(report=exit_report(stack_dump="Thread 2\n  in hang")))
    assert "just before the kill" in text_of(job.page)
    assert "in hang" in text_of(job.page)
    other = OpenedJob("other")
    other.update(job_view("other", exit_report("other")))
    other.turn(-1)
    assert "The report has no stacks" in text_of(other.page)


def test_a_job_that_was_lost_with_its_worker_has_no_report() -> None:
    job = OpenedJob("call")
    job.update(job_view(state="ended", outcome="killed", cause="lost with the worker"))
    assert "lost with the worker" in shown(job)
    job.turn(-1)
    assert "The report has no stacks" in shown(job)


# --- the drawing ---------------------------------------------------------------------------------


def test_the_title_names_the_job_its_state_and_its_pages() -> None:
    job = OpenedJob("call")
    job.update(job_view(labels={"room": "blue\x1b[31m"}))
    lines = shown(job).splitlines()
    assert lines[0].startswith("\u2500\u2500 job call  running  room=blue\\x1b[31m ")
    assert lines[1].split() == ["report", "log", "stack", "all", "rows"]
    job.turn(1)
    for number in range(100):
        job.add_line(log_line(number + 1, "x"))
    assert "rows 80 to 100 of 100, following" in shown(job)
    job.page.scroll(-1)
    assert "rows 79 to 99 of 100" in shown(job)
    assert "following" not in shown(job)
    assert lines[-1] == "keys"


def test_a_worker_that_does_not_answer_is_named() -> None:
    job = OpenedJob("call")
    job.problem = "there is no job 'call'"
    assert "there is no job 'call'" in shown(job).splitlines()[0]
    assert "no connection, trying again" in shown(job, is_lost=True).splitlines()[0]
    job.update(job_view())
    assert "there is no job" not in shown(job)


@given(
    page=st.sampled_from(["report", "log", "stack"]),
    width=st.integers(1, 200),
    height=st.integers(1, 60),
    text=st.text(max_size=200),
)
def test_it_fits_every_terminal(page: str, width: int, height: int, text: str) -> None:
    job = OpenedJob("call")
    job.update(job_view(report=exit_report(detail=text, stack_dump=text), labels={"room": text}))
    job.add_line(log_line(1, text))
    job.shown = page
    lines = draw_job(job, Scene(NOW, width, height, last_line="keys"))
    assert len(lines) == height
    assert all(line.cell_len <= width for line in lines)
    assert lines[-1].plain == "keys"[:width] or width < 4
