"""A process that is kept between the offer of a session and its order; and the app's word on the offer."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from faults.stage import PLAIN, Stage, assert_recovered, starting, steady
from support import DEADLINE, Kept, eventually, idle_pids, kill, listening, wait_for_file, zygote_pid

from greenroom import Accept, GreenroomError, Job, LaunchError, NoCapacity, OptionError, ProcessPool, Reject
from greenroom.pool.events import ProcessChanged

MakeApp = Callable[[str], str]

ECHO = """
@app.entrypoint
async def entrypoint(ctx):
    return [os.getpid(), ctx.job.metadata]
"""
ASKED = (
    ECHO
    + """
async def answer(request):
    wanted = request.job.metadata
    if wanted == "raise":
        raise RuntimeError("not today")
    if wanted == "hang":
        await asyncio.Event().wait()
    if wanted == "block":
        time.sleep(3600)
    if wanted == "exit":
        sys.exit(3)
    if wanted == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if wanted == "final":
        return greenroom.Reject("closed for good", final=True)
    if wanted == "unsendable":
        return greenroom.Accept({"value": object()})
    if wanted == "no mapping":
        accept = greenroom.Accept()
        accept.answer = ["Ada"]
        return accept
    if wanted == "cancelled":
        raise asyncio.CancelledError
    if wanted == "cancels itself":
        asyncio.current_task().cancel()
        await asyncio.sleep(0)
    if wanted == "answer":
        return greenroom.Accept({"name": "Ada", "source": request.source})
    return wanted

@app.request
async def request(request):
    return await answer(request)
"""
)


async def test_a_reserved_process_serves_the_job_that_it_was_kept_for(make_app: MakeApp) -> None:
    async with ProcessPool(make_app(ECHO), **steady(2)) as pool:
        reservation = await pool.reserve(Job("a", "offered"))
        kept = reservation.pid
        assert reservation.state == "reserved"
        assert kept not in idle_pids(pool)
        assert [p.job_id for p in pool.processes if p.state == "reserved"] == ["a"]
        handle = reservation.launch()
        report = await handle.wait()
        assert (report.result, report.launch_type, report.pid) == ([kept, "offered"], "warm", kept)
        await assert_recovered(pool, 2)


async def test_the_order_may_bring_other_metadata_than_the_offer(make_app: MakeApp) -> None:
    async with ProcessPool(make_app(ECHO), num_idle_processes=1) as pool:
        handle = (await pool.reserve("offered")).launch("ordered")
        assert (await handle.wait()).result[1] == "ordered"


async def test_a_released_process_is_idle_again(make_app: MakeApp) -> None:
    async with ProcessPool(make_app(ECHO), **steady(1)) as pool:
        reservation = await pool.reserve()
        kept = reservation.pid
        reservation.release("changed my mind")
        reservation.release("again")
        assert kept in idle_pids(pool)
        with pytest.raises(LaunchError, match="not reserved any more"):
            reservation.launch()
        await assert_recovered(pool, 1)


async def test_each_change_of_a_process_is_told_with_the_job_that_it_is_for(make_app: MakeApp) -> None:
    async with ProcessPool(make_app(ECHO), **steady(1)) as pool:
        changes: list[ProcessChanged] = []
        pool.subscribe(lambda event: changes.append(event) if isinstance(event, ProcessChanged) else None)
        (await pool.reserve(Job("offered"))).release()
        await (await pool.launch(Job("ordered"), timeout=DEADLINE)).wait()
        await assert_recovered(pool, 1)
    told = {(change.before, change.after): change.job_id for change in changes}
    assert told["idle", "reserved"] == "offered"
    assert told["reserved", "idle"] is None
    assert told["idle", "claimed"] == "ordered"


async def test_nothing_idle_is_turned_down_at_once_unless_it_may_wait(make_app: MakeApp) -> None:
    async with ProcessPool(make_app(ECHO), num_idle_processes=0) as pool:
        with pytest.raises(NoCapacity) as turned_down:
            await pool.reserve()
        assert turned_down.value.reason == "warming"
        reservation = await pool.reserve(timeout=DEADLINE)
        report = await reservation.launch().wait()
        assert (report.outcome, report.launch_type) == ("succeeded", "cold")


async def test_what_cannot_be_warm_in_time_is_turned_down_at_once(make_app: MakeApp) -> None:
    app = make_app(ECHO + "\n@app.prewarm\ndef prewarm(proc):\n    time.sleep(2)\n")
    async with ProcessPool(app, num_idle_processes=1, max_idle_processes=1) as pool:
        await pool.reserve()
        with pytest.raises(NoCapacity, match="the next one is expected") as turned_down:
            await pool.reserve(timeout=0.2)
        assert turned_down.value.reason == "warming"


async def test_P9_reserved_processes_count_as_jobs(make_app: MakeApp) -> None:
    async with ProcessPool(make_app(ECHO), num_idle_processes=3, max_jobs=2) as pool:
        first, second = await asyncio.gather(pool.reserve(), pool.reserve())
        with pytest.raises(NoCapacity) as turned_down:
            await pool.reserve()
        assert turned_down.value.reason == "full"
        first.release()
        third = await pool.reserve()
        assert pool.stats().jobs == 2
        for reservation in (second, third):
            assert (await reservation.launch().wait()).outcome == "succeeded"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_P4_a_reserved_process_that_dies_is_replaced(make_app: MakeApp, how: int) -> None:
    async with ProcessPool(make_app(ECHO), **steady(2)) as pool:
        reservation = await pool.reserve()
        first = reservation.pid
        assert first is not None
        kill(first, how)
        if how == signal.SIGKILL:
            await eventually(lambda: reservation.pid not in (None, first), "another process in its place")
        report = await reservation.launch().wait()
        assert report.outcome == "succeeded"
        assert report.pid != first
        await assert_recovered(pool, 2)


async def test_a_reservation_that_is_not_ordered_in_time_is_over(make_app: MakeApp) -> None:
    async with ProcessPool(make_app(ECHO), **steady(1), reservation_timeout=0.1) as pool:
        reservation = await pool.reserve(Job("late"))
        await assert_recovered(pool, 1)
        with pytest.raises(LaunchError, match="late"):
            reservation.launch()


async def test_P10_a_process_that_was_reserved_over_a_reload_serves_or_goes(make_app: MakeApp) -> None:
    async with ProcessPool(make_app(ECHO), **steady(2)) as pool:
        used, unused = await pool.reserve(), await pool.reserve()
        await pool.reload()
        report = await used.launch().wait()
        assert (report.outcome, report.generation) == ("succeeded", 1)
        unused.release()
        await assert_recovered(pool, 2)
        assert {process.generation for process in pool.processes} == {2}


async def test_S2_a_process_that_was_reserved_while_its_zygote_was_lost_is_idle_again(make_app: MakeApp) -> None:
    """The replacement has the same code: a later generation is not in itself a newer one."""
    async with ProcessPool(make_app(ECHO), **steady(1) | {"idle_ttl": 3600}) as pool:
        reservation = await pool.reserve()
        kept = reservation.pid
        kill(lost := zygote_pid(pool))
        await eventually(lambda: pool.stats().zygote_pid not in (None, lost), "replacement of the zygote")
        reservation.release()
        assert kept in idle_pids(pool)
        again = [await pool.reserve(timeout=DEADLINE), await pool.reserve(timeout=DEADLINE)]
        assert kept in {other.pid for other in again}
        await pool.reload()  # now its code is old
        for other in again:
            other.release()
        await eventually(lambda: [r.detail for r in pool.recent_reports if r.pid == kept] == ["its code was reloaded"])


@pytest.mark.parametrize("kill_it", [False, True])
async def test_P3_closing_while_processes_are_reserved(make_app: MakeApp, kill_it: bool) -> None:
    pool = ProcessPool(make_app(ECHO), num_idle_processes=2)
    await pool.start()
    reservation = await pool.reserve()
    waiting = asyncio.create_task(pool.reserve(timeout=DEADLINE))
    await pool.aclose(kill=kill_it)
    with pytest.raises(LaunchError):
        reservation.launch()
    await asyncio.gather(waiting, return_exceptions=True)


@pytest.mark.parametrize("is_drained", [False, True])
async def test_S5_an_offer_that_waits_when_the_pool_ends_is_turned_down(make_app: MakeApp, is_drained: bool) -> None:
    held = PLAIN + '\n@app.prewarm\nasync def prewarm(proc):\n    await on_stage("prewarm")\n'
    async with Stage(make_app) as stage, ProcessPool(stage.app(held), num_idle_processes=0) as pool:
        waiting = asyncio.create_task(pool.reserve(timeout=DEADLINE))
        await stage.next("prewarm")
        if is_drained:
            await pool.drain(0.1)
        await pool.aclose()
        with pytest.raises(NoCapacity) as turned_down:
            await waiting
        assert turned_down.value.reason == "draining"


async def test_S5_a_drain_waits_for_what_is_reserved(make_app: MakeApp) -> None:
    async with ProcessPool(make_app(ECHO), num_idle_processes=1) as pool:
        reservation = await pool.reserve()
        draining = asyncio.create_task(pool.drain(20))
        await eventually(lambda: pool.stats().not_ready_reason == "draining")
        with pytest.raises(NoCapacity):
            await pool.reserve()
        report = await reservation.launch().wait()
        assert report.outcome == "succeeded"
        await draining


# --- the app's word ------------------------------------------------------------------------------


async def test_an_app_without_a_request_function_takes_everything(make_app: MakeApp) -> None:
    async with ProcessPool(make_app(ECHO), num_idle_processes=1) as pool:
        assert not pool.has_request
        assert isinstance(await (await pool.reserve()).ask(), Accept)


async def test_the_app_accepts_in_a_process_of_its_own(make_app: MakeApp) -> None:
    async with ProcessPool(make_app(ASKED), num_idle_processes=1, request_timeout=50) as pool:
        reservation = await pool.reserve("answer", source="test")
        verdict = await reservation.ask()
        assert isinstance(verdict, Accept)
        assert verdict.answer == {"name": "Ada", "source": "test"}
        kept = reservation.pid
        with pytest.raises(GreenroomError, match="offered before"):
            await reservation.ask()
        assert (await reservation.launch(True).wait()).result == [kept, True]


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        (False, "the app rejected it"),
        ("raise", "RuntimeError: not today"),
        (None, "returned a NoneType"),
        (1, "returned a int"),
        ("unsendable", "cannot be sent"),
        ("no mapping", "cannot be sent"),
        ("cancelled", "CancelledError"),
        ("cancels itself", "CancelledError"),
        ("exit", "died"),
        ("crash", "died"),
    ],
)
async def test_W4_a_request_that_is_turned_down_costs_nothing_else(
    make_app: MakeApp, metadata: object, reason: str
) -> None:
    async with ProcessPool(make_app(ASKED), **steady(1), request_timeout=50) as pool:
        reservation = await pool.reserve(metadata)
        kept = reservation.pid
        verdict = await reservation.ask()
        assert isinstance(verdict, Reject)
        assert reason in verdict.reason
        await assert_recovered(pool, 1)
        # The reserved process is idle again, or has gone as surplus: the hook runs in another one.
        ends = [report.reason for report in pool.recent_reports if report.pid == kept]
        assert kept in idle_pids(pool) or ends == ["idle_expired"]
        assert (await pool.launch("fine", timeout=DEADLINE)).launch_type == "warm"


async def test_offers_that_come_to_nothing_raise_no_idle_target(make_app: MakeApp) -> None:
    slow = ASKED + "\n@app.prewarm\nasync def prewarm(proc):\n    await asyncio.sleep(1)\n"
    options = {"num_idle_processes": 1, "max_idle_processes": 20, "max_concurrent_prewarms": 20}
    async with ProcessPool(make_app(slow), **options) as pool:
        for _ in range(30):
            assert isinstance(await (await pool.reserve(False, timeout=DEADLINE)).ask(), Reject)
            (await pool.reserve(timeout=DEADLINE)).release("it went to another worker")
        assert pool.stats().idle_target == 1
        orders = [asyncio.create_task(pool.reserve(True, timeout=DEADLINE)) for _ in range(20)]
        handles = [reservation.launch() for reservation in await asyncio.gather(*orders)]
        assert pool.stats().idle_target > 1  # those that were ordered do
        for handle in handles:
            assert (await handle.wait()).outcome == "succeeded"


@pytest.mark.parametrize("how", ["hang", "block"])
async def test_W4_a_request_function_that_hangs_rejects_in_time(make_app: MakeApp, how: str) -> None:
    """One that blocks its event loop is found stalled, and gets a new process."""
    async with ProcessPool(make_app(ASKED), **steady(1), request_timeout=0.2, stall_timeout=1) as pool:
        reservation = await pool.reserve(how)
        verdict = await reservation.ask()
        assert isinstance(verdict, Reject)
        assert "did not answer within request_timeout (0.2 s)" in verdict.reason
        if how == "block":
            stalled = lambda: [report for report in pool.recent_reports if report.reason == "request_timeout"]  # noqa: E731
            await eventually(stalled, "the end of the process")
            assert "in answer" in (stalled()[0].stack_dump or "")
        await assert_recovered(pool, 1)


async def test_W4_the_app_is_asked_about_several_jobs_at_a_time(make_app: MakeApp) -> None:
    asked = (
        PLAIN
        + """
count = 0
@app.request
async def request(request):
    global count
    count += 1
    return greenroom.Accept({"pid": os.getpid(), "count": count, "said": await on_stage("asked")})
"""
    )
    async with Stage(make_app) as stage, ProcessPool(stage.app(asked), **steady(2), request_timeout=50) as pool:
        asking = [asyncio.create_task((await pool.reserve()).ask()) for _ in range(2)]
        first, second = await stage.next("asked"), await stage.next("asked")
        second.order("b")
        first.order("a")
        answers = [verdict.answer for verdict in await asyncio.gather(*asking) if isinstance(verdict, Accept)]
        assert sorted(answer["said"] for answer in answers) == ["a", "b"]
        assert len({answer["pid"] for answer in answers}) == 1, "in one process"
        assert sorted(answer["count"] for answer in answers) == [1, 2] or {a["count"] for a in answers} == {2}
        (resident,) = [process for process in pool.processes if process.state == "resident"]
        assert {answer["pid"] for answer in answers} == {resident.pid}
        kill(resident.pid or 0)
        await eventually(lambda: any(p.state == "resident" and p.pid != resident.pid for p in pool.processes))


async def test_W4_whoever_asks_and_goes_keeps_no_process(make_app: MakeApp) -> None:
    hangs = PLAIN + '\n@app.request\nasync def request(request):\n    await on_stage("asked")\n'
    async with Stage(make_app) as stage, ProcessPool(stage.app(hangs), **steady(1), request_timeout=50) as pool:
        reservation = await pool.reserve("hang")
        asking = asyncio.create_task(reservation.ask())
        await stage.next("asked")
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await assert_recovered(pool, 1)
        assert reservation.state == "ended"


async def test_a_job_cannot_be_ordered_while_the_app_is_asked(make_app: MakeApp) -> None:
    asked = PLAIN + '\n@app.request\nasync def request(request):\n    return await on_stage("asked") == "yes"\n'
    async with Stage(make_app) as stage, ProcessPool(stage.app(asked), **steady(1), request_timeout=50) as pool:
        reservation = await pool.reserve()
        asking = asyncio.create_task(reservation.ask())
        visit = await stage.next("asked")
        with pytest.raises(LaunchError, match="has not accepted or rejected it yet"):
            reservation.launch()
        visit.order("yes")
        assert isinstance(await asking, Accept)
        assert (await reservation.launch().wait()).outcome == "succeeded"
        await assert_recovered(pool, 1)


@pytest.mark.parametrize("metadata", ["crash", False])
async def test_P9_an_order_that_comes_with_the_rejection_starts_nothing_and_takes_no_slot(
    make_app: MakeApp, metadata: object
) -> None:
    async with ProcessPool(make_app(ASKED), **steady(1), request_timeout=50, max_jobs=1) as pool:
        reservation = await pool.reserve(metadata)
        asking = asyncio.create_task(reservation.ask())
        await asyncio.sleep(0)
        while reservation.state == "reserved":
            await asyncio.sleep(0)  # the order is tried in the very turn in which the answer is known
        with pytest.raises(LaunchError, match="not reserved any more"):
            reservation.launch()
        assert isinstance(await asking, Reject)
        await assert_recovered(pool, 1)


async def test_a_final_rejection_says_so(make_app: MakeApp) -> None:
    async with ProcessPool(make_app(ASKED), num_idle_processes=1, request_timeout=50) as pool:
        verdict = await (await pool.reserve("final")).ask()
        assert isinstance(verdict, Reject)
        assert (verdict.reason, verdict.final) == ("closed for good", True)


STUBBORN = """
@app.request
async def request(request):
    try:
        return await on_stage("asked") == "yes"
    except asyncio.CancelledError:
        if request.job.id != "stubborn":
            raise
        return await on_stage("late") == "yes"
"""


async def test_a_question_that_is_given_up_does_not_answer_the_next_about_the_same_job(make_app: MakeApp) -> None:
    """A source that had no answer in time offers the job again."""
    async with (
        Stage(make_app) as stage,
        ProcessPool(stage.app(PLAIN + STUBBORN), **steady(2), request_timeout=50) as pool,
    ):
        first = asyncio.create_task((await pool.reserve(Job("stubborn"))).ask())
        await stage.next("asked")
        first.cancel()
        await asyncio.wait([first])
        late = await stage.next("late")
        again = asyncio.create_task((await pool.reserve(Job("stubborn"), timeout=DEADLINE)).ask())
        visit = await stage.next("asked")
        late.order("no")
        await late.left()
        visit.order("yes")
        assert isinstance(await again, Accept)


async def test_a_question_that_is_given_up_is_no_error_of_the_apps(make_app: MakeApp) -> None:
    async with (
        Stage(make_app) as stage,
        ProcessPool(stage.app(PLAIN + STUBBORN), **steady(2), request_timeout=50) as pool,
    ):
        with listening(Kept(), "greenroom") as kept:
            first = asyncio.create_task((await pool.reserve(Job("first"))).ask())
            given_up = await stage.next("asked")
            first.cancel()
            await asyncio.wait([first])
            await given_up.left()
            other = asyncio.create_task((await pool.reserve("other", timeout=DEADLINE)).ask())
            (await stage.next("asked")).order("yes")
            assert isinstance(await other, Accept)  # what the hook's process has logged before is read by now
        assert not kept.of("the request function failed")


async def test_with_spawn_the_first_process_tells_of_the_request_function(make_app: MakeApp) -> None:
    async with ProcessPool(make_app(ASKED), num_idle_processes=1, request_timeout=50, start_method="spawn") as pool:
        assert pool.has_request
        assert isinstance(await (await pool.reserve(False)).ask(), Reject)


async def test_S2_the_app_is_asked_also_while_its_zygote_is_being_replaced(make_app: MakeApp) -> None:
    loads = ASKED + '\nif os.path.exists(STAGE + ".again"):\n    block_on_stage("loading")\n'
    async with Stage(make_app) as stage, ProcessPool(stage.app(loads), **steady(2)) as pool:
        (stage.directory / "stage.again").touch()
        kill(zygote_pid(pool))
        loading = await stage.next("loading")
        assert pool.has_request
        verdict = await (await pool.reserve(False)).ask()
        assert isinstance(verdict, Reject)
        loading.order("go on")
        await assert_recovered(pool, 2)


async def test_the_manifest_comes_from_the_zygote(make_app: MakeApp) -> None:
    source = PLAIN.replace('note("start", ctx.job.id)', "pass")
    app = make_app(source + "\n@app.preload\ndef preload():\n    app.manifest['plugin'] = {'names': ['a', 'b']}\n")
    async with ProcessPool(app, num_idle_processes=1) as pool:
        assert pool.manifest == {"plugin": {"names": ["a", "b"]}}


async def test_times_that_make_no_sense_change_nothing(make_app: MakeApp) -> None:
    async with ProcessPool(make_app(ECHO), **steady(1)) as pool:
        for timeout in (-1, float("nan"), "soon"):
            with pytest.raises(OptionError):
                await pool.reserve(timeout=timeout)  # type: ignore[arg-type]
        await assert_recovered(pool, 1)


async def test_a_job_that_cannot_be_acknowledged_after_its_order_is_tried_again_once(make_app: MakeApp) -> None:
    """P5: the process dies between the order and its acknowledgement."""
    async with Stage(make_app) as stage:
        from faults.stage import HELD_WHEN_CLAIMED

        async with ProcessPool(stage.app(HELD_WHEN_CLAIMED), **steady(2)) as pool:
            handle = (await pool.reserve(Job("once"))).launch()
            first = await stage.next("claimed")
            kill(first.pid)
            second = await stage.next("claimed")
            second.order("go on")
            report = await handle.wait()
            assert report.outcome == "succeeded"
            assert stage.starts() == {"once": 1}
            await assert_recovered(pool, 2)


async def test_the_request_function_runs_in_the_resident_process(make_app: MakeApp, tmp_path: Path) -> None:
    told = tmp_path / "told"
    app = make_app(
        ECHO
        + f"""
@app.request
def request(request):
    with open({str(told)!r}, "w") as file:
        file.write(str(os.getpid()))
    return True
"""
    )
    async with ProcessPool(app, num_idle_processes=1) as pool:
        reservation = await pool.reserve()
        await reservation.ask()
        pid = int(await wait_for_file(told))
        assert [process.pid for process in pool.processes if process.state == "resident"] == [pid]
        assert pid not in (reservation.pid, os.getpid())


WARMING = PLAIN + "\n@app.prewarm\nasync def prewarm(proc):\n    await on_stage('warming')\n"


@pytest.mark.parametrize("end", ["close", "drain"])
async def test_P3_an_offer_that_waits_is_not_given_what_another_one_gives_back_at_the_end(
    make_app: MakeApp, end: str
) -> None:
    async with Stage(make_app) as stage:
        pool = ProcessPool(stage.app(WARMING), **steady(1), prewarm_timeout=50)
        async with starting(pool) as start:
            (await stage.next("warming")).order("go on")
            await start
            kept = await pool.reserve()
            waiting = asyncio.create_task(pool.reserve(timeout=50))
            await stage.next("warming")
            await (pool.aclose() if end == "close" else pool.drain(0.01))
            with pytest.raises(NoCapacity, match="draining"):
                await waiting
            with pytest.raises(LaunchError, match=r"never started: the pool was (closed|drained)"):
                kept.launch()
