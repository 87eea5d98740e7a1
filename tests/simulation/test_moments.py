"""Moments that histories hardly come by."""

from __future__ import annotations

from typing import Any

from greenroom.app_facts import AppFacts
from greenroom.errors import ErrorInfo
from greenroom.exit_report import ExitReport
from greenroom.options import PoolOptions
from greenroom.pool.core import vocabulary as v
from greenroom.pool.core.core import PoolCore
from greenroom.pool.core.effective_options import EffectiveOptions
from greenroom.pool.core.exit_verdict import ExitStatus
from greenroom.pool.events import ProcessEnded


class Driver:
    """A core whose processes all become warm, with a clock that is moved by hand.

    With ``facts`` its processes are spawned, and each says that of the app which they are when it starts.
    """

    def __init__(self, facts: AppFacts | None = None, **options: Any) -> None:
        self.facts = facts
        self.core = PoolCore(EffectiveOptions(PoolOptions(**options), frozenset()))
        self.now = 0.0
        self.effects: list[Any] = []
        self.feed(v.Open())
        self.feed(v.Tick())
        self.feed(v.LauncherSpawned(1, 100))
        self.feed(v.LauncherLoaded(1, AppFacts(True, {}) if facts is None else None, "code"))

    def feed(self, event: v.Happening, later: float = 0.0) -> list[Any]:
        """Return the effects of an event, so many seconds after the last one; each fork succeeds at once."""
        self.now += later
        effects = list(self.core.handle(event, self.now))
        self.effects += effects
        for effect in effects:
            if isinstance(effect, v.Fork):
                hello = v.Hello(effect.process, self.facts)
                for answer in (v.Forked(effect.process, 1), hello, v.Warm(effect.process, 0.0)):
                    self.feed(answer)
        return effects

    @property
    def killed(self) -> list[str]:
        """The processes whose end was decided."""
        return [effect.process for effect in self.effects if isinstance(effect, v.Kill | v.Dump)]

    def last(self, kind: type) -> Any:
        """Return the latest effect of a kind."""
        return next(effect for effect in reversed(self.effects) if isinstance(effect, kind))


def test_a_drain_leaves_the_hook_to_a_reservation_that_has_not_asked() -> None:
    driver = Driver(num_idle_processes=1)
    driver.feed(v.Reserve(1, "a", b"", 1.0))
    driver.feed(v.Drain(60.0))
    driver.feed(v.AskApp(1, "a"))
    driver.feed(v.Answered(driver.last(v.Ask).process, 1, True))
    assert driver.last(v.AppAnswered) == v.AppAnswered(1, True)


def test_a_drain_ends_the_hook_with_its_last_answer() -> None:
    driver = Driver(num_idle_processes=1)
    driver.feed(v.Reserve(1, "a", b"", 1.0))
    driver.feed(v.AskApp(1, "a"))
    resident = driver.last(v.Ask).process
    assert v.Retire(resident) not in driver.feed(v.Drain(60.0))
    assert v.Retire(resident) in driver.feed(v.Answered(resident, 1, True))


def test_a_process_that_exits_while_it_was_to_be_killed_was_forked_by_then() -> None:
    """It is not wanted any more when its zygote reports the fork, and exits before SIGKILL arrives."""
    end = (v.Close(), v.Forked(ONE, 200), v.Died(ONE), v.Reaped(ONE, ExitStatus(6, None)))
    report = report_of_one(*end)
    assert (report.pid, report.exit_code, report.reason) == (200, 6, "exited")
    assert report.detail == "it exited with code 6 while it was forked"


def test_a_prewarm_that_raised_before_the_kill_is_the_cause() -> None:
    """It is not wanted any more while its prewarm raises, and exits before SIGKILL arrives."""
    failed = v.PrewarmFailed(ONE, ErrorInfo("RuntimeError", "no model", ""))
    warming = (v.Forked(ONE, 200), v.Hello(ONE))
    report = report_of_one(*warming, v.Close(), failed, v.Died(ONE), v.Reaped(ONE, ExitStatus(1, None)))
    assert (report.outcome, report.reason, report.exit_code) == ("failed", "prewarm_failed", 1)
    assert report.detail == "prewarm raised RuntimeError: no model"


def test_what_another_process_says_of_the_app_does_not_concern_the_resident_one() -> None:
    """Spawned processes load the code each for themselves: it can change between two of them."""
    driver = Driver(spawned(topics=["job"]), start_method="spawn", num_idle_processes=1)
    driver.feed(v.SetNews("job", "a", b"1"))
    resident = driver.last(v.Inform).process
    driver.facts = spawned(topics=[])
    for number in range(3):
        driver.feed(v.Launch(number, f"job-{number}", b"", 1.0))
    driver.feed(v.SetNews("job", "a", None))
    assert driver.last(v.Inform) == v.Inform(resident, (v.News("job", "a", None),))


def test_what_another_process_says_of_the_app_does_not_bound_the_end_of_a_job() -> None:
    driver = Driver(spawned(end_timeout=30.0), start_method="spawn", num_idle_processes=1)
    driver.feed(v.Launch(1, "a", b"", 1.0))
    process = driver.last(v.Start).process
    driver.facts = spawned(end_timeout=0.0)
    driver.feed(v.Started(process, "a"))
    for number in (2, 3):
        driver.feed(v.Launch(number, f"job-{number}", b"", 600.0))
    driver.feed(v.Ending(process))
    shortest = PoolOptions().shutdown_timeout
    driver.feed(v.Tick(), shortest + 29.0)
    assert process not in driver.killed
    driver.feed(v.Tick(), 2.0)
    assert process in driver.killed


def spawned(*, topics: list[str] | None = None, end_timeout: float = 0.0) -> AppFacts:
    return AppFacts(False, {}, end_timeout, {}, topics or [])


ONE = "1-1"


def report_of_one(*events: v.Happening) -> ExitReport:
    """Feed these to a core that has requested one process, and return the report of its end."""
    core = PoolCore(EffectiveOptions(PoolOptions(num_idle_processes=1), frozenset()))
    beginning = (v.Open(), v.Tick(), v.LauncherSpawned(1, 100), v.LauncherLoaded(1, None, "code"))
    effects = [effect for event in (*beginning, *events) for effect in core.handle(event, 0.0)]
    assert v.Fork in map(type, effects)
    (report,) = [effect.report for effect in effects if isinstance(effect, ProcessEnded)]
    return report


def test_a_process_whose_start_is_read_after_its_death_died_while_it_was_running() -> None:
    """On a busy machine its pidfd is read before the channel, which has the acknowledgement."""
    driver = Driver(num_idle_processes=1)
    driver.feed(v.Launch(1, "a", b"", 5.0))
    process = driver.last(v.Start).process
    driver.feed(v.Died(process, (v.Started(process, "a"),)))
    driver.feed(v.Reaped(process, ExitStatus(None, 9)))
    report = driver.last(ProcessEnded).report
    assert (report.reason, report.job_id) == ("signaled", "a")
    assert report.detail.endswith("while it was running")
