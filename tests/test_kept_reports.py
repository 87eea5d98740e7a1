"""The latest reports of a pool: bounded in number, and in the text that they quote."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from greenroom.errors import ErrorInfo
from greenroom.exit_report import ExitReport, Timings
from greenroom.pool.recent_reports import SHORT, KeptReports, shortened, text_size

LONGEST_SHORT = 4 * (SHORT + 100)


def report_of(number: int, text: int) -> ExitReport:
    error = ErrorInfo("ValueError", "m" * text, "t" * text) if text else None
    timings = Timings(requested=float(number))
    return ExitReport("failed", "raised", "d", timings, error=error, stack_dump="s" * text, result_payload=b"jnull")


@given(st.lists(st.integers(0, 10_000), max_size=60))
def test_the_newest_are_whole_and_all_have_a_bound(sizes: list[int]) -> None:
    kept = KeptReports(most=20, most_text=60_000)
    made = [report_of(number, size) for number, size in enumerate(sizes)]
    for report in made:
        kept.add(report)
    there = list(kept)
    assert [report.timings.requested for report in there] == [float(number) for number in range(len(made))][-20:]
    assert all(report.result_payload is None for report in there)
    assert sum(map(text_size, there)) <= 60_000 + 20 * LONGEST_SHORT
    newest, total = 0, 0
    for report in reversed(made):
        total += text_size(report)
        if total > 60_000:
            break
        newest += 1
    for report, original in zip(reversed(there), list(reversed(made))[:newest], strict=False):
        assert text_size(report) == text_size(original), "no newer one is cut as long as all of them fit"


def test_a_short_report_is_left_as_it_is_and_a_long_one_says_what_is_missing() -> None:
    assert shortened(report_of(1, SHORT)) == report_of(1, SHORT)
    cut = shortened(report_of(1, 5 * SHORT))
    assert cut.error is not None
    assert cut.error.message.endswith("(4000 characters more)")
    assert cut.error.traceback.startswith("(4000 characters before)")
    assert (cut.stack_dump or "").endswith("(4000 characters more)")
    assert text_size(cut) < LONGEST_SHORT
