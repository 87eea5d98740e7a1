"""Properties of the pure parts: what must hold for every input, not for some examples."""

from __future__ import annotations

import math
import signal
from itertools import product
from typing import get_args

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from greenroom.errors import ErrorInfo
from greenroom.exit_reasons import Outcome, Reason
from greenroom.pool.core.breaker import Breaker
from greenroom.pool.core.exit_verdict import Decision, Evidence, ExitStatus, judge
from greenroom.pool.core.memory import FOR_WARNINGS, LONGEST, SHORTEST, MemoryPolicy, MemoryVerdict
from greenroom.pool.core.sizing import Demand, expected_wait, forks_needed
from greenroom.pool.core.stalls import FULL_DUMP, SHORT_DUMP, DumpPatience, DumpTime, Patience, Sample, Stall, classify
from greenroom.pool.core.states import ProcessState as State
from greenroom.pool.shell.clock import LONGEST_SLEEP, TOLERANCE, AwakeClock

counts = st.integers(0, 1000)
seconds = st.floats(0, 1e6)

# --- sizing --------------------------------------------------------------------------------------


@given(counts, counts, counts, counts, counts, st.integers(1, 1000))
def test_forks_are_never_more_than_needed_nor_than_allowed(
    target: int, idle: int, waiting: int, warming: int, outgoing: int, concurrent: int
) -> None:
    forks = forks_needed(
        idle_target=target, idle=idle, waiting=waiting, warming=warming, outgoing=outgoing, concurrent=concurrent
    )
    assert forks >= 0
    if forks:
        assert warming + outgoing + forks <= concurrent
        assert idle + warming + forks <= target + waiting
    missing = waiting + target - idle - warming
    if missing > 0 and warming + outgoing < concurrent:
        assert forks > 0  # nobody waits while a fork could be made for him


@given(st.lists(st.floats(0, 100)), st.floats(0.001, 10), st.integers(0, 50), st.integers(0, 50))
def test_the_idle_target_stays_between_floor_and_ceiling(
    pauses: list[float], refill: float, floor: int, extra: int
) -> None:
    demand, now = Demand(), 0.0
    demand.refilled(refill)
    for pause in pauses:
        now += pause
        demand.claimed(now)
        assert floor <= demand.idle_target(now, floor, floor + extra) <= floor + extra
    assert demand.idle_target(now + 3600, floor, floor + extra) == floor  # a burst is not remembered for ever


@given(st.integers(1, 200))
def test_more_claims_never_mean_a_smaller_target(claims: int) -> None:
    quiet, busy = Demand(), Demand()
    for demand, number in ((quiet, claims), (busy, claims + 1)):
        demand.refilled(1.0)
        for _ in range(number):
            demand.claimed(0.0)
    assert busy.idle_target(0.0, 1, 1000) >= quiet.idle_target(0.0, 1, 1000)


@given(counts, counts, st.floats(0.001, 100), st.integers(1, 100))
def test_the_expected_wait_is_of_whole_refills_and_grows_with_the_queue(
    idle: int, waiting: int, refill: float, concurrent: int
) -> None:
    def wait(behind: int) -> float:
        return expected_wait(idle=idle, waiting=behind, refill_seconds=refill, concurrent=concurrent)

    assert (wait(waiting) == 0) == (idle > waiting)  # whoever is idle beyond those who wait takes it at once
    assert wait(waiting) <= wait(waiting + 1) <= wait(waiting) + refill * 1.001
    if idle <= waiting < idle + concurrent:
        assert wait(waiting) == refill


# --- breaker -------------------------------------------------------------------------------------


def tries_in(period: float, bound: int, spend: float) -> int:
    """How often a pool would fork in this time if each try fails after ``spend`` seconds."""
    breaker, now, tries = Breaker(), 0.0, 0
    while now < period:
        allowed = breaker.tries_allowed(now, 0, bound)
        tries += allowed
        now += spend
        for _ in range(allowed):
            breaker.failed(now, "broken")
        now += breaker.wait(now)
    return tries


@given(st.integers(1, 32), st.floats(0.001, 5))
def test_tries_a_minute_are_bounded_however_soon_they_fail(bound: int, spend: float) -> None:
    assert tries_in(60.0, bound, spend) <= 3 + bound + 9
    assert tries_in(3600.0, bound, spend) <= 3 + bound + 9 + 120


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 8), st.integers(0, 8))
def test_the_breaker_counts_failures_in_a_row_and_forgets_at_a_success(
    successes: list[bool], bound: int, in_progress: int
) -> None:
    breaker, now, in_a_row = Breaker(), 100.0, 0
    for number, success in enumerate(successes):
        now += 0.01
        if success:
            breaker.succeeded()
            in_a_row = 0
            assert (breaker.is_open, breaker.cause, breaker.wait(now)) == (False, None, 0.0)
        else:
            breaker.failed(now, f"cause {number}")
            in_a_row += 1
            assert breaker.cause == f"cause {number}"
        assert breaker.failures == in_a_row
        assert 0 <= breaker.wait(now) <= 30
        assert not breaker.is_open or breaker.is_cautious
        allowed = breaker.tries_allowed(now, in_progress, bound)
        assert allowed == bound if not breaker.is_cautious else allowed <= max(in_progress, 1)
        # What is in progress already is not called back, and when the time has come there is a try.
        later = now + breaker.wait(now)
        assert breaker.tries_allowed(later + 1e-6, 0, bound) >= 1


# --- stalls --------------------------------------------------------------------------------------

samples = st.builds(
    Sample,
    at=st.floats(0, 1000),
    loop_beat=st.integers(0, 5),
    thread_beat=st.integers(0, 5),
    state=st.sampled_from("RSDTtZ?"),
    cpu=st.floats(0, 1000),
    waited=st.floats(0, 1000),
)


@given(samples, samples, samples, st.floats(0.01, 100))
def test_a_stall_is_only_what_fits_the_samples(last: Sample, before: Sample, now: Sample, timeout: float) -> None:
    stall = classify(last, before, now, timeout)
    elapsed = now.at - last.at
    assert (stall is None) == (now.loop_beat != last.loop_beat or elapsed < timeout)
    if stall is Stall.STOPPED:
        assert now.state in "Tt"
    elif stall is Stall.STARVED:
        assert now.state == "R" or now.waited - last.waited > elapsed / 2
        assert now.cpu - last.cpu < timeout / 2
    elif stall is Stall.GIL_HELD:
        assert now.thread_beat == before.thread_beat
    elif stall is Stall.LOOP_BLOCKED:
        assert now.thread_beat != before.thread_beat


@given(samples, st.floats(0.01, 100), st.floats(1.01, 10))
def test_a_process_that_got_no_cpu_is_never_called_stuck(last: Sample, timeout: float, factor: float) -> None:
    assume(last.state not in "Tt")
    elapsed = timeout * factor
    now = last._replace(at=last.at + elapsed, waited=last.waited + elapsed * 0.9)
    assume(now.at - last.at >= timeout)
    assert classify(last, last, now, timeout) is Stall.STARVED


def looks(rounds: int, *, beats: int = 0, state: str = "S", cpu: float = 0.0, waited: float = 0.0) -> list[Sample]:
    """How a zygote looks every 2.5 s: what it does in each of them is given."""
    return [Sample(2.5 * n, beats * n, beats * n, state, cpu * n, waited * n) for n in range(1, rounds + 1)]


@pytest.mark.parametrize(
    ("seen", "ended_at"),
    [
        (looks(20), 5.0),  # it waits for a lock
        (looks(20, state="R", cpu=2.5), 5.0),  # it spins
        (looks(20, state="T"), 5.0),
        (looks(20, state="R"), 30.0),
        (looks(20, waited=2.0, cpu=0.5), 30.0),
        (looks(20, beats=1), 30.0),  # it answers, but not this request
        ([*looks(4, beats=1), Sample(12.5, 4, 4, "S", 0.0, 0.0)], 12.5),
    ],
)
def test_S2_a_zygote_is_given_up_when_it_hangs_or_after_the_longest_time(seen: list[Sample], ended_at: float) -> None:
    patience = Patience(2.5, 30.0)
    assert next(sample.at for sample in seen if patience.ends_with(sample)) == ended_at


# --- stacks before a kill ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "cpu", "waited", "ended_at"),
    [
        ("S", 0.0, 0.0, 1.0),  # it cannot: the signal is blocked, or the kernel keeps it
        ("R", 1.0, 0.0, 1.0),  # it runs, and does not write
        ("?", 0.0, 0.0, 1.0),  # a kernel that does not tell
        ("R", 0.0, 0.0, 10.0),  # no CPU at all
        ("S", 0.1, 0.9, 10.0),  # now and then a little
        ("R", 0.25, 0.75, 4.0),
    ],
)
def test_the_time_for_stacks_is_time_with_a_cpu(state: str, cpu: float, waited: float, ended_at: float) -> None:
    """``cpu`` and ``waited`` are what the process ran and waited for, per second."""
    patience = DumpPatience(DumpTime(1.0, 10.0))
    looks = [Sample(tenths / 10, 0, 0, state, cpu * tenths / 10, waited * tenths / 10) for tenths in range(200)]
    assert next(look.at for look in looks if patience.ends_with(look)) == pytest.approx(ended_at, abs=0.11)


@pytest.mark.parametrize(("time", "ended_at"), [(SHORT_DUMP, 0.03), (FULL_DUMP, 1.0), (DumpTime(5.0, 2.0), 2.0)])
def test_the_last_look_at_stacks_is_when_their_time_is_over(time: DumpTime, ended_at: float) -> None:
    patience, at, looks = DumpPatience(time), 0.0, 1
    while not patience.ends_with(Sample(at, 0, 0, "S", 0.0, 0.0)):
        at += patience.pause()
        looks += 1
    assert at == pytest.approx(ended_at, abs=0.002)
    assert looks < 10 + ended_at / 0.05, "each look reads four files"


# --- memory --------------------------------------------------------------------------------------

limits = st.none() | st.floats(1, 1e5)
readings = st.lists(st.tuples(st.floats(0, 1e5), st.floats(0, 1), st.floats(0.01, 2)), max_size=30)


@given(limits, limits, readings)
def test_memory_is_judged_by_its_proportional_size_and_warned_of_once(
    warn: float | None, limit: float | None, readings: list[tuple[float, float, float]]
) -> None:
    policy, faulted, warnings = MemoryPolicy(warn, limit), 0.0, 0
    for rss, private_share, faults in readings:
        faulted += faults
        pss = rss * private_share
        verdict = MemoryVerdict.FINE if policy.is_far(rss) else policy.judge_cheap(rss, faulted)
        assert verdict in (MemoryVerdict.FINE, MemoryVerdict.CONFIRM, MemoryVerdict.RECHECK)
        if verdict is not MemoryVerdict.FINE:
            assert (warn, limit) != (None, None)
            verdict = policy.judge_pss(rss, pss, faulted)
            if limit is not None and pss > limit:
                assert verdict is MemoryVerdict.KILL
            else:
                assert verdict is not MemoryVerdict.KILL
            warnings += verdict is MemoryVerdict.WARN
        assert SHORTEST <= policy.next_look(rss) <= (LONGEST if limit is not None else FOR_WARNINGS)
    assert warnings <= (warn is not None)


@given(st.floats(1, 1e5), st.floats(1.0, 10))
def test_private_memory_over_the_limit_is_always_found(limit: float, factor: float) -> None:
    policy = MemoryPolicy(None, limit)
    rss = limit * factor + 1
    assert not policy.is_far(rss)
    assert policy.judge_cheap(rss, 0.0) is MemoryVerdict.CONFIRM
    assert policy.judge_pss(rss, rss, 0.0) is MemoryVerdict.KILL


@given(image=st.floats(0, 1e4), steps=st.lists(st.tuples(st.floats(0, 500), st.floats(0, 500)), max_size=20))
def test_a_process_that_comes_near_its_limit_by_itself_is_confirmed(
    image: float, steps: list[tuple[float, float]]
) -> None:
    """By memory of its own, or by writes to the image. Each cheap reading that misses it would be a breach."""
    limit = 1000.0
    policy = MemoryPolicy(None, limit, inherited_mb=image)
    own = written = 0.0
    for fresh, rewritten in steps:
        own, written = own + fresh, min(written + rewritten, image)
        rss, faulted = image + own, own + written
        is_near = own + written >= 0.9 * limit
        verdict = MemoryVerdict.FINE if policy.is_far(rss) else policy.judge_cheap(rss, faulted)
        assert verdict is MemoryVerdict.CONFIRM or not is_near
        if verdict is MemoryVerdict.CONFIRM:
            killed = policy.judge_pss(rss, own + written, faulted) is MemoryVerdict.KILL
            assert killed == (own + written > limit)
            if killed:
                return


@given(image=st.floats(1, 1e5), touched=st.floats(0, 400))
def test_a_session_that_only_reads_a_large_image_costs_no_look_at_its_page_tables(image: float, touched: float) -> None:
    policy = MemoryPolicy(1000.0, None, inherited_mb=image)
    rss = image + touched
    assert policy.is_far(rss) or policy.judge_cheap(rss, touched) is MemoryVerdict.FINE


def test_a_session_on_an_image_above_its_limit_is_looked_at_rarely() -> None:
    policy = MemoryPolicy(None, 1500.0, inherited_mb=3000.0)
    assert policy.judge_cheap(3010.0, 10.0) is MemoryVerdict.FINE
    assert policy.next_look(3010.0) > LONGEST / 4


@given(image=st.floats(0, 1e4), own=st.floats(0, 1e4), written=st.floats(0, 1), others=st.integers(0, 20))
def test_memory_that_is_inherited_and_untouched_is_never_a_processs_own(
    image: float, own: float, written: float, others: int
) -> None:
    """Whoever else still has it. What the process has taken or written to is found, to the last page."""
    limit = 1000.0
    policy = MemoryPolicy(None, limit, inherited_mb=image)
    rss, taken = image + own, own + written * image
    pss = taken + (1 - written) * image / (1 + others)
    verdict = policy.judge_pss(rss, pss, taken)
    if taken > limit:
        assert verdict is MemoryVerdict.KILL
    assert policy.used_mb <= pss + 1e-6  # never stricter than the proportional size
    if own == written == 0:
        assert verdict is MemoryVerdict.FINE


def test_a_child_of_the_job_that_ends_leaves_the_job_its_memory() -> None:
    policy = MemoryPolicy(None, 300.0, inherited_mb=10.0)
    assert policy.judge_pss(410.0, 205.0, 400.0) is MemoryVerdict.FINE  # half of it is its child's
    assert policy.judge_cheap(410.0, 400.0) is MemoryVerdict.RECHECK
    assert policy.judge_pss(410.0, 410.0, 400.0) is MemoryVerdict.KILL


# --- exits ---------------------------------------------------------------------------------------

REASONS: tuple[Reason, ...] = get_args(Reason)
STATUSES = [
    ExitStatus(None, None),
    *(ExitStatus(code, None) for code in (0, 1, 4)),
    *(ExitStatus(None, number) for number in (signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, 63)),
]
ENDED = [None, "completed", "raised", "exited", "cancelled"]
ERROR = ErrorInfo("ValueError", "bad", "")


def all_evidence() -> list[Evidence]:
    decisions = [None, *(Decision(reason, f"decided: {reason}") for reason in REASONS)]
    booleans = (False, True)
    found = product(STATUSES, State, decisions, booleans, ENDED, booleans, booleans)
    return [
        Evidence(status, state.public, decision, sent, ended, told, ERROR if ended == "raised" else None, oom)
        for status, state, decision, sent, ended, told, oom in found
    ]


@pytest.mark.parametrize("was_asked", [False, True])
def test_a_crash_while_the_stacks_are_written_does_not_hide_why_they_were(was_asked: bool) -> None:
    decision = Decision("stalled", "its event loop stood still")
    status = ExitStatus(None, signal.SIGSEGV)
    evidence = Evidence(status, "running", decision, signal_sent=was_asked, dump_was_asked=was_asked)
    outcome, reason, detail = judge(evidence)
    if was_asked:
        expected = "its event loop stood still; it ended by SIGSEGV while its stacks were written"
        assert (outcome, reason, detail) == ("killed", "stalled", expected)
    else:
        assert (outcome, reason) == ("killed", "signaled")  # it crashed before


def test_every_combination_of_evidence_yields_a_verdict_that_fits_it() -> None:
    for evidence in all_evidence():
        verdict = judge(evidence)
        assert verdict.outcome in get_args(Outcome), evidence
        assert verdict.reason in REASONS, evidence
        assert verdict.detail, evidence
        assert_consistent(evidence, verdict.outcome, verdict.reason)


def assert_consistent(evidence: Evidence, outcome: str, reason: str) -> None:
    status, decision = evidence.status, evidence.decision
    about = f"{evidence} -> {outcome}, {reason}"
    decided = decision is not None and reason == decision.reason
    if decision is None:
        assert not decided
    if reason not in ("completed", "raised", "exited", "signaled", "oom_killed"):
        assert decided, about  # nobody else can have come to this
    if outcome == "succeeded":
        assert evidence.ended == "completed" or (evidence.ended == "exited" and status.exit_code == 0), about
    if outcome == "cancelled":
        assert decided, about
        assert reason in ("cancelled", "drained", "idle_expired"), about
    if decided:
        return
    if reason == "signaled":
        assert status.signal is not None, about
    if reason == "exited":
        assert status.signal is None, about
    if reason == "oom_killed":
        assert evidence.oom_killed, about
        assert outcome in ("killed", "succeeded", "failed"), about
    if reason in ("completed", "raised"):
        assert evidence.ended == reason, about
        assert status.signal is None, about


def test_a_kill_that_nobody_here_has_sent_is_never_put_down_to_a_decision() -> None:
    """It was asked to end, politely; and before it had, somebody else's SIGKILL ended it."""
    for reason, state in product(("cancelled", "drained", "idle_expired", "job_timeout"), ("idle", "running")):
        evidence = Evidence(ExitStatus(None, signal.SIGKILL), state, Decision(reason, "asked"))  # type: ignore[arg-type]
        assert judge(evidence).reason == "signaled"
        oom = Evidence(ExitStatus(None, signal.SIGKILL), state, Decision(reason, "asked"), oom_killed=True)  # type: ignore[arg-type]
        assert judge(oom)[:2] == ("killed", "oom_killed")


@pytest.mark.parametrize("status", [ExitStatus(3, None), ExitStatus(None, signal.SIGSEGV)])
def test_a_process_that_dies_of_something_else_before_its_fork_is_answered(status: ExitStatus) -> None:
    evidence = Evidence(status, "requested", Decision("drained", "asked"), signal_sent=True)
    assert judge(evidence).reason in ("exited", "signaled")


def test_who_was_asked_and_went_has_done_as_it_was_told_even_as_the_kill_was_on_its_way() -> None:
    for signal_sent in (False, True):
        decision = Decision("drained", "asked")
        verdict = judge(Evidence(ExitStatus(0, None), "idle", decision, signal_sent, was_asked=True))
        assert verdict[:2] == ("cancelled", "drained")


@pytest.mark.parametrize(("ended", "outcome"), [("completed", "succeeded"), ("raised", "failed")])
def test_a_job_that_ended_before_it_was_told_to_has_ended_by_itself(ended: str, outcome: str) -> None:
    evidence = Evidence(ExitStatus(0, None), "running", Decision("cancelled", "late"), ended=ended, error=ERROR)
    assert judge(evidence)[:2] == (outcome, ended)


# --- clock ---------------------------------------------------------------------------------------

LONGEST_COUNTED = LONGEST_SLEEP + TOLERANCE


class Real:
    """The clock underneath: it goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(st.lists(st.floats(0, 0.2) | st.floats(0.51, 1e5), max_size=40))
def test_pauses_never_count_and_everything_else_does(steps: list[float]) -> None:
    real = Real()
    clock = AwakeClock(real)
    begin, counted = clock.now(), 0.0
    for step in steps:
        real.now += step
        clock.advance()
        counted += step if step <= LONGEST_COUNTED else 0.0
        assert math.isclose(clock.now() - begin, counted, abs_tol=1e-6)
        assert math.isclose(clock.now() - begin + clock.paused, real.now - 1000.0, abs_tol=1e-4)


@given(st.lists(st.tuples(st.floats(0, 3), st.floats(0, 2)), max_size=40))
def test_no_timer_is_early_and_none_is_forgotten(steps: list[tuple[float, float]]) -> None:
    real = Real()
    clock = AwakeClock(real)
    fired: list[tuple[float, float]] = []
    for delay, step in steps:
        clock.call_later(delay, lambda due: fired.append((due, clock.now())), clock.now() + delay)
        real.now += step
        clock.advance()
    for _ in range(10):
        real.now += 0.4
        clock.advance()
    assert len(fired) == len(steps)
    assert all(at >= due for due, at in fired)


@given(st.floats(0, 1e5), st.floats(0.01, 100))
def test_a_rough_timer_is_never_early_and_late_by_an_eighth_at_most(now: float, delay: float) -> None:
    real = Real()
    clock = AwakeClock(real)
    real.now += now % LONGEST_SLEEP
    clock.advance()
    timer = clock.call_roughly(delay, print)
    assert -1e-9 <= timer.when - (clock.now() + delay) <= delay / 8 + 1e-9


@given(st.floats(0.08, 10), st.lists(st.floats(0, 0.2), min_size=20, max_size=40))
def test_rough_timers_of_one_delay_come_together(delay: float, steps: list[float]) -> None:
    """However many there are: the times lie on a grid, at least a sixteenth of the delay (or 0.125 s) apart."""
    real = Real()
    clock = AwakeClock(real)
    times, begin = set(), clock.now()
    for step in steps:
        real.now += step
        clock.advance()
        times.add(clock.call_roughly(delay, print).when)
    grid = min(2.0 ** math.floor(math.log2(delay / 8)), 0.125)
    assert len(times) <= (clock.now() - begin) / grid + 2


def test_a_cancelled_timer_does_not_fire_and_one_that_fails_stops_no_other() -> None:
    real = Real()
    clock = AwakeClock(real)
    fired: list[str] = []
    clock.call_later(0.1, fired.append, "cancelled").cancel()
    clock.call_later(0.1, lambda: 1 / 0)
    clock.call_later(0.2, fired.append, "kept")
    real.now += 0.3
    clock.advance()
    assert fired == ["kept"]
