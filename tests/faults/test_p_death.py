"""P4, P5: a process dies, or stops, just before it has its job, while it gets it, and after that."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
from stage import HELD_WHEN_CLAIMED, PLAIN, Stage, assert_recovered, starting, steady
from support import eventually, idle_pids, kill

from greenroom import ExitReport, LaunchError, ProcessPool

MakeApp = Callable[[str], str]


def reports_of(pool: ProcessPool, pid: int) -> list[ExitReport]:
    return [report for report in pool.recent_reports if report.pid == pid]


@pytest.mark.parametrize("victims", [1, 3])
@pytest.mark.parametrize(("signum", "reason"), [(signal.SIGKILL, "signaled"), (signal.SIGSTOP, "stalled")])
async def test_P4_idle_processes_hit_in_the_same_turn_as_a_launch(
    make_app: MakeApp, victims: int, signum: int, reason: str
) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(), **steady(3)) as pool:
        hit = idle_pids(pool)[:victims]  # the first in the queue: the launch would take it
        for pid in hit:
            kill(pid, signum)
        handle = await pool.launch()
        report = await handle.wait()
        assert handle.pid not in hit
        assert (report.outcome, report.reason, report.result) == ("succeeded", "completed", handle.pid)
        assert stage.starts() == {handle.id: 1}
        await assert_recovered(pool, 3)
        for pid in hit:
            (end,) = reports_of(pool, pid)
            assert (end.outcome, end.reason, end.signal) == ("killed", reason, signal.SIGKILL)
        others = [report for report in pool.recent_reports if report.reason != "idle_expired"]
        assert len(others) == victims + 1


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSTOP])
async def test_P4_every_launch_of_a_burst_meets_a_dying_process(make_app: MakeApp, signum: int) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(), **steady(4)) as pool:
        hit = idle_pids(pool)
        for pid in hit:
            kill(pid, signum)
        handles = [pool.submit(timeout=30) for _ in range(8)]
        reports = [await handle.wait() for handle in handles]
        assert {report.reason for report in reports} == {"completed"}
        assert stage.starts() == {handle.id: 1 for handle in handles}
        await assert_recovered(pool, 4)


async def test_P4_an_idle_process_that_dies_unasked_is_replaced_without_a_launch(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(), **steady(2)) as pool:
        victims = idle_pids(pool)
        kill(victims[0], signal.SIGSEGV)
        kill(victims[1], signal.SIGSTOP)
        await eventually(lambda: len(list(pool.recent_reports)) == 2)
        await assert_recovered(pool, 2)
        assert set(idle_pids(pool)).isdisjoint(victims)
        assert [report.signal for report in reports_of(pool, victims[0])] == [signal.SIGSEGV]
        assert [report.reason for report in reports_of(pool, victims[1])] == ["stalled"]


@pytest.mark.parametrize(("signum", "reason"), [(signal.SIGKILL, "signaled"), (signal.SIGSTOP, "stalled")])
async def test_P5_hit_between_start_and_acknowledgement_is_relaunched_once(
    make_app: MakeApp, signum: int, reason: str
) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(HELD_WHEN_CLAIMED), **steady(1)) as pool:
        handle = pool.submit()
        victim = await stage.next("claimed")
        assert (handle.pid, handle.state) == (victim.pid, "starting")
        kill(victim.pid, signum)
        successor = await stage.next("claimed")
        await victim.left()  # dead before the job was given to another: stopped, it might have gone on
        successor.order("go on")
        report = await handle.wait()
        assert handle.pid == successor.pid != victim.pid
        assert (report.outcome, report.reason, report.result) == ("succeeded", "completed", successor.pid)
        assert stage.starts() == {handle.id: 1}
        await assert_recovered(pool, 1)
        (end,) = reports_of(pool, victim.pid)
        assert (end.outcome, end.reason, end.signal) == ("killed", reason, signal.SIGKILL)
        assert end.job_id == handle.id


async def test_P5_relaunched_jobs_keep_their_order(make_app: MakeApp) -> None:
    held = "@app.prewarm\nasync def prewarm(proc):\n    await on_stage('warming')\n"
    async with Stage(make_app) as stage:
        pool = ProcessPool(stage.app(HELD_WHEN_CLAIMED + held), **steady(3))
        async with starting(pool) as start:
            for _ in range(3):
                (await stage.next("warming")).order("go on")
            await start
            handles = [pool.submit(timeout=30) for _ in range(6)]
            victims = [await stage.next("claimed") for _ in range(3)]
            for victim in sorted(victims, key=lambda visit: visit.name == handles[0].id):  # the first job's last
                kill(victim.pid, signal.SIGKILL)
            # All are back in the queue before there is another process: else the first would come too late.
            await eventually(lambda: {handle.state for handle in handles} == {"waiting"})
            for _ in handles:
                (await stage.next("warming")).order("go on")
                (await stage.next("claimed")).order("go on")
            claimed = [(await handle.wait()).timings.claimed for handle in handles]
            assert claimed == sorted(claimed)
            assert stage.starts() == {handle.id: 1 for handle in handles}


# The child's own main is broken here, in the first process only or in all of them: it exits in the
# step named, with a code that nothing else exits with.
BROKEN_MAIN = """
from greenroom.zygote.child_main import ChildMain

def exit_with_7(self, *arguments):
    note("exit", os.getpid())
    os._exit(7)

@app.prewarm
def prewarm(proc):
    if not (FIRST_ONLY and os.path.exists(STAGE + ".broken")):
        open(STAGE + ".broken", "w").close()
        setattr(ChildMain, STEP, exit_with_7)
"""
BEFORE, AFTER = "_perform", "_beat_in_loop"  # the acknowledgement is sent between the two


def broken(step: str, *, first_only: bool) -> str:
    return f"STEP, FIRST_ONLY = {step!r}, {first_only}\n{BROKEN_MAIN}\n{PLAIN}"


async def test_P5_exits_between_start_and_acknowledgement_and_is_relaunched_once(make_app: MakeApp) -> None:
    source = broken(BEFORE, first_only=True)
    async with Stage(make_app) as stage, ProcessPool(stage.app(source), **steady(1)) as pool:
        (victim,) = idle_pids(pool)
        handle = await pool.launch()
        report = await handle.wait()
        assert (report.outcome, report.reason) == ("succeeded", "completed")
        assert stage.starts() == {handle.id: 1}
        assert stage.noted("exit") == [[str(victim)]]
        await assert_recovered(pool, 1)
        (end,) = reports_of(pool, victim)
        assert (end.reason, end.exit_code) == ("exited", 7)


async def test_P5_a_job_that_no_process_acknowledges_is_given_up_and_reported(make_app: MakeApp) -> None:
    source = broken(BEFORE, first_only=False)
    async with Stage(make_app) as stage, ProcessPool(stage.app(source), **steady(2)) as pool:
        handle = pool.submit(timeout=30)
        with pytest.raises(LaunchError, match="did not start: it exited with code 7"):
            await handle.started()
        report = await handle.wait()
        assert (report.outcome, report.reason, report.exit_code) == ("failed", "exited", 7)
        assert report.timings.started is None
        assert stage.starts() == {}
        tried = [pid for (pid,) in stage.noted("exit")]
        assert len(tried) == len(set(tried)) == 3
        await assert_recovered(pool, 2)


async def test_P5_death_after_the_acknowledgement_is_reported_and_never_relaunched(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(), **steady(2)) as pool:
        handle = await pool.launch("stay")
        visit = await stage.next("job")
        kill(visit.pid, signal.SIGKILL)
        report = await handle.wait()
        assert (report.outcome, report.reason, report.signal) == ("killed", "signaled", signal.SIGKILL)
        assert report.pid == visit.pid == handle.pid
        await assert_recovered(pool, 2)
        assert stage.starts() == {handle.id: 1}
        assert stage.is_empty("job")


async def test_P5_death_right_after_the_acknowledgement_every_time(make_app: MakeApp) -> None:
    """The acknowledgement and the death reach the supervisor together, in whichever order."""
    source = broken(AFTER, first_only=False)
    async with Stage(make_app) as stage, ProcessPool(stage.app(source), **steady(4)) as pool:
        handles = [await pool.launch(timeout=30) for _ in range(20)]
        reports = [await handle.wait() for handle in handles]
        assert {(report.outcome, report.reason, report.exit_code) for report in reports} == {("failed", "exited", 7)}
        assert all(report.timings.started for report in reports)
        await assert_recovered(pool, 4)
        assert len(stage.noted("exit")) == len(handles)  # each was tried on one process
        assert [report.pid for report in reports] == [handle.pid for handle in handles]


async def test_P4_stopped_while_idle_with_no_zygote_to_tell(make_app: MakeApp) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(), **steady(2), start_method="spawn") as pool:
        victims = idle_pids(pool)
        for pid in victims:
            kill(pid, signal.SIGSTOP)
        await eventually(lambda: len(list(pool.recent_reports)) >= 2)
        await assert_recovered(pool, 2)
        assert set(idle_pids(pool)).isdisjoint(victims)
        assert {report.reason for pid in victims for report in reports_of(pool, pid)} == {"stalled"}
        handle = await pool.launch()
        assert (handle.launch_type, (await handle.wait()).reason) == ("warm", "completed")
