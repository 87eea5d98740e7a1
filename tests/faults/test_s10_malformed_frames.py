"""S10: malformed, truncated, oversized frames on any channel. That peer is dropped, with a report; the
supervisor and the other sessions stay."""

from __future__ import annotations

import json
import logging
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from forged import FIND_CHANNEL
from stage import PLAIN, Stage, assert_recovered, steady
from support import eventually, is_gone, kill, zygote_pid

from greenroom import AppLoadError, LaunchError, ProcessPool, Reject
from greenroom.pool.events import ClaimFailed

MakeApp = Callable[[str], str]

APP = f"""{FIND_CHANNEL}
@app.entrypoint
async def entrypoint(ctx):
    if ctx.job.metadata == "stay":
        return await on_stage("job", ctx.job.id)
    if ctx.job.metadata:
        exec(ctx.job.metadata)
        await on_stage("stuck")
    return "done"
"""

TO_CONTROL = "channel(socket.SOCK_STREAM).sendall({})"
GARBAGE = {
    "random bytes": "os.urandom(1 << 16)",
    "text": "b'GET / HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n'",
    "another version": 'frame(2, KIND[\'Ended\'], b\'{"how":"completed","told":false,"error":null}\', b\'jnull\')',
    "an unknown kind": "frame(kind=200)",
    "kind 0": "frame(kind=0)",
    "a message of another channel": "m.encode(m.Exited('1-1', 0, None))",
    "an order, the wrong way": "m.encode(m.Start('job-1'), b'jnull')",
    "a header that is too large": "frame(header_size=1 << 30)",
    "a body that is too large": "frame(kind=KIND['Ended'], body_size=(1 << 32) - 1)",
    "a header that is not JSON": "frame(kind=KIND['Warm'], header=b'{')",
    "a header that is not text": "frame(kind=KIND['Warm'], header=bytes(range(128, 256)))",
    "a header that is nested too deeply": "frame(kind=KIND['Warm'], header=b'[' * 100_000)",
    "a header that is a huge number": "frame(kind=KIND['Warm'], header=b'9' * 100_000)",
    "a header that is a list": "frame(kind=KIND['Warm'], header=b'[]')",
    "a field that is missing": "frame(kind=KIND['Warm'], header=b'{}')",
    "a field too many": "frame(kind=KIND['Warm'], header=b'{\"prewarm_seconds\":1,\"x\":1}')",
    "a field of another type": "frame(kind=KIND['Warm'], header=b'{\"prewarm_seconds\":\"1\"}')",
    "a time that is no number": "frame(kind=KIND['Warm'], header=b'{\"prewarm_seconds\":NaN}')",
    "a message at the wrong time": "m.encode(m.Warm(0.1))",
    "a failure at the wrong time": "m.encode(m.PrewarmFailed(m.ErrorInfo('E', 'no')))",
    "an acknowledgement of another job": "m.encode(m.Started('job-1'))",
    "an end of an unknown sort": "m.encode(m.Ended('vanished', False))",
    "the second half of a frame": "m.encode(m.Ended('completed', False), bytes(100))[20:]",
    "a name of a field that is very long": "frame(kind=KIND['Warm'], header=b'{\"' + b'x' * 1_000_000 + b'\":1}')",
    "an end of a sort with a very long name": "m.encode(m.Ended('x' * 1_000_000, False))",
    "many wrong messages": "m.encode(m.Warm(0.1)) * 10_000",
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
async def test_S10_a_job_sends_on_its_control_channel(make_app: MakeApp, garbage: str) -> None:
    async with Stage(make_app) as stage, ProcessPool(stage.app(APP), num_idle_processes=2) as pool:
        other = await pool.launch("stay")
        visit = await stage.next("job")
        zygote = zygote_pid(pool)
        bad = await pool.launch(TO_CONTROL.format(garbage))
        report = await bad.wait()
        assert (report.outcome, report.reason, report.signal) == ("killed", "protocol_error", signal.SIGKILL)
        assert report.detail.startswith("it broke the protocol: ")
        assert len(report.detail) < 1200, "a thousand reports are kept"
        assert (await (await pool.launch()).wait()).result == "done"
        visit.order("fine")
        end = await other.wait()
        assert (end.reason, end.result) == ("completed", "fine")
        assert zygote_pid(pool) == zygote
        await assert_recovered(pool, 2)


async def test_S10_a_job_sends_a_frame_that_never_ends(make_app: MakeApp) -> None:
    """Such a frame is no error until it ends; it must hold nobody up, and the job ends as it would."""
    started = "frame(kind=KIND['Ended'], body_size=60 << 20)"
    async with Stage(make_app) as stage, ProcessPool(stage.app(APP), num_idle_processes=1) as pool:
        exits = await pool.launch(TO_CONTROL.format(started) + "; os._exit(7)")
        report = await exits.wait()
        assert (report.outcome, report.reason, report.exit_code) == ("failed", "exited", 7)
        stays = await pool.launch(TO_CONTROL.format(started))
        await stage.next("stuck")
        assert (await (await pool.launch()).wait()).result == "done"
        stays.cancel("enough")
        assert (await stays.wait()).reason == "cancelled"
        await assert_recovered(pool, 1)


async def test_S10_a_job_closes_its_control_channel(make_app: MakeApp) -> None:
    shut = "channel(socket.SOCK_STREAM).shutdown(socket.SHUT_WR)"
    async with Stage(make_app) as stage, ProcessPool(stage.app(APP), num_idle_processes=1) as pool:
        job = await pool.launch(shut + "; os._exit(7)")
        report = await job.wait()
        assert (report.outcome, report.reason, report.exit_code) == ("failed", "exited", 7)
        await assert_recovered(pool, 1)


async def test_S10_prewarm_sends_on_its_control_channel(make_app: MakeApp, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    flag.touch()
    prewarm = f"""
@app.prewarm
async def prewarm(proc):
    if os.path.exists({str(flag)!r}):
        channel(socket.SOCK_STREAM).sendall(m.encode(m.Started("job-1")))
        await asyncio.Event().wait()
"""
    async with Stage(make_app) as stage, ProcessPool(stage.app(APP + prewarm), num_idle_processes=1) as pool:
        await eventually(lambda: len(list(pool.recent_reports)) >= 3, "reports")
        assert {report.reason for report in pool.recent_reports} == {"protocol_error"}
        assert "broke the protocol" in str(pool.stats().breaker_cause)
        flag.unlink()
        await assert_recovered(pool, 1)
        assert (await (await pool.launch()).wait()).result == "done"


async def test_S10_a_forked_process_tells_of_an_app(make_app: MakeApp) -> None:
    """That is the zygote's to do. Nobody learns from a session's process what the app is."""
    prewarm = """
@app.prewarm
def prewarm(proc):
    try:
        os.mkdir(STAGE + ".forged")
    except FileExistsError:
        return
    channel(socket.SOCK_STREAM).sendall(m.encode(m.Hello(os.getpid(), 0, m.AppFacts(True, {"forged": True}))))
    time.sleep(1000)
"""
    async with Stage(make_app) as stage, ProcessPool(stage.app(APP + prewarm), num_idle_processes=4) as pool:
        await eventually(lambda: [report for report in pool.recent_reports if report.reason == "protocol_error"])
        assert (pool.has_request, pool.manifest) == (False, {})


GARBAGE_WHEN_CLAIMED = """
from greenroom.zygote.child_main import ChildMain

perform = ChildMain._perform

async def garbage_first(self, start, metadata):
    await self._loop.sock_sendall(self._sock, b"garbage" * 10)
    return await perform(self, start, metadata)

ChildMain._perform = garbage_first
"""


async def test_S10_a_job_whose_process_sent_garbage_is_not_tried_again(make_app: MakeApp) -> None:
    """The acknowledgement that followed is not read, so the job may have run: it is reported, and never repeated."""
    app = FIND_CHANNEL + PLAIN + GARBAGE_WHEN_CLAIMED
    async with Stage(make_app) as stage, ProcessPool(stage.app(app), num_idle_processes=2) as pool:
        failed: list[ClaimFailed] = []
        pool.subscribe(lambda event: failed.append(event) if isinstance(event, ClaimFailed) else None)
        handle = pool.submit("stay", timeout=50)  # or it may have ended before it is killed
        with pytest.raises(LaunchError, match="broke the protocol"):
            await handle.started()
        report = await handle.wait()
        assert (report.outcome, report.reason) == ("killed", "protocol_error")
        assert [event.retried for event in failed] == [False]
        await assert_recovered(pool, 2)
        assert stage.starts()[handle.id] <= 1


async def test_S10_a_request_function_gives_a_very_long_reason(make_app: MakeApp) -> None:
    request = """
import fcntl, termios

@app.request
def request(request):
    control = channel(socket.SOCK_STREAM)
    control.sendall(m.encode(m.Answer(1, False, "no" * 400_000, False), b"jnull"))
    while any(fcntl.ioctl(control, termios.TIOCOUTQ, bytes(4))):
        time.sleep(0.001)  # a process that is dead before all is read has not answered
    os._exit(0)
"""
    async with Stage(make_app) as stage, ProcessPool(stage.app(APP + request), **steady(1)) as pool:
        verdict = await (await pool.reserve()).ask()
        assert isinstance(verdict, Reject)
        assert verdict.reason.startswith("nono")
        assert len(verdict.reason) < 2200, "the worker remembers many of them"
        await assert_recovered(pool, 1)


async def test_S10_half_of_a_surrogate_pair_goes_nowhere(make_app: MakeApp) -> None:
    """Strict JSON, a UTF-8 log and a terminal fail at one, and each of them shows what a session says of itself."""
    ends = """
control = channel(socket.SOCK_STREAM)
half = chr(0xD800)
control.sendall(m.encode(m.Ended("raised", False, m.ErrorInfo(half, half, half))))
control.sendall(m.encode(m.CleaningUp(cut=half, stacks=half)))
os._exit(0)
"""
    request = """
@app.request
async def request(request):
    control = channel(socket.SOCK_STREAM)
    control.sendall(m.encode(m.Answer(2, False, chr(0xD800), False), b"jnull"))
    await asyncio.Event().wait()
"""
    async with Stage(make_app) as stage, ProcessPool(stage.app(APP + request), num_idle_processes=1) as pool:
        report = await (await pool.launch(ends)).wait()
        assert report.error is not None
        assert {report.error.type, report.error.message, report.error.traceback} == {r"\ud800"}
        assert report.stack_dump == r"\ud800"
        assert report.detail.endswith(r"; \ud800")
        verdict = await (await pool.reserve(timeout=50)).ask()
        assert isinstance(verdict, Reject)
        assert verdict.reason == r"\ud800"


REPEATED = {
    "Warm": "m.encode(m.Warm(0.1))",
    "Answer": "m.encode(m.Answer(1, True, '', False), b'jnull')",
    "Started": "m.encode(m.Started(ctx.job.id))",
    "Ending": "m.encode(m.Ending())",
    "Ended": "m.encode(m.Ended('cancelled', True))",
    "CleaningUp": "m.encode(m.CleaningUp())",
}


@pytest.mark.parametrize("message", REPEATED.values(), ids=REPEATED.keys())
async def test_S10_a_job_repeats_a_message_when_it_is_to_end(make_app: MakeApp, message: str) -> None:
    """What it sends when it is to end is read in any order, but nobody reads it for as long as it has to end."""
    source = f"""{FIND_CHANNEL}
@app.entrypoint
async def entrypoint(ctx):
    try:
        await on_stage("job")
    except asyncio.CancelledError:
        control = channel(socket.SOCK_STREAM)
        for _ in range(100):
            control.sendall({message} * 1000)
        note("sent", "all")
"""
    async with (
        Stage(make_app) as stage,
        ProcessPool(stage.app(source), num_idle_processes=1, shutdown_timeout=50) as pool,
    ):
        handle = await pool.launch()
        await stage.next("job")
        handle.cancel("enough")
        report = await handle.wait()
        assert (report.reason, report.signal, stage.noted("sent")) == ("cancelled", signal.SIGKILL, [])
        await assert_recovered(pool, 1)


SURROGATE = r"\\ud800"
"""Half of a pair: JSON can say it, and no log, file or socket takes it."""

LOG_GARBAGE = [
    "os.urandom(1000)",
    "b'{'",
    "b'[]'",
    "b'{}'",
    "b'[' * 50_000",
    "b'9' * 50_000",
    *(
        f'b\'{{"time":0,"level":{level},"logger":"x","message":{message},"error":null,"fields":{{}}}}\''
        for level, message in [
            ("Infinity", '"x"'),
            ("NaN", '"x"'),
            ("null", '"x"'),
            ('"high"', '"x"'),
            ("1e300", '"x"'),
            ("20", "[[[]]]"),
            ("20", '"%s %d"'),
            ("20", f'"{SURROGATE}"'),
        ]
    ),
    *(
        f'b\'{{"time":0,"level":20,"logger":{logger},"message":"x","error":{error},"fields":{fields}}}\''
        for logger, error, fields in [
            (f'"{SURROGATE}"', f'"{SURROGATE}"', f'{{"{SURROGATE}":"{SURROGATE}"}}'),
            ('"x"', "null", '{"deep": [[[]]]}'),
            ('"x"', "null", '{"deep": {"er": {}}}'),
            ('"x"', "[[[]]]", "{}"),
            ("[[[]]]", "null", "{}"),
            ('"x"', "null", "[[[]]]"),
        ]
    ),
]


async def test_S10_a_job_sends_on_its_log_channel(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    """A bad record costs that record; the channel stays in step, packet by packet."""
    send = f"""
log = channel(socket.SOCK_SEQPACKET)
for garbage in [{", ".join(LOG_GARBAGE)}]:
    log.send(garbage)
import logging
logging.getLogger("after").warning("still heard")
"""
    async with Stage(make_app) as stage, ProcessPool(stage.app(APP), num_idle_processes=1) as pool:
        with caplog.at_level(logging.INFO, "greenroom.app"):
            first = await pool.launch(send)
            await stage.next("stuck")
            job = await pool.launch(send + "os._exit(7)\n")  # and what is read after its death
            report = await job.wait()
            assert (report.reason, report.exit_code) == ("exited", 7)
            assert report.log_records_dropped == len(LOG_GARBAGE) - 4  # those that can be read after all
            first.cancel()
            assert (await first.wait()).reason == "cancelled"
        heard = [record for record in caplog.records if "still heard" in record.getMessage()]
        assert len(heard) == 2
        for record in caplog.records:
            json.dumps(vars(record), ensure_ascii=False, default=str).encode()  # raises for half a pair
        await assert_recovered(pool, 1)


@pytest.mark.parametrize("trick", ["fifo", "closed", "device"])
async def test_S10_a_job_puts_something_else_in_the_place_of_its_stack_dump(make_app: MakeApp, trick: str) -> None:
    """Its fd is a message, too: opening whatever has that number now must not hold up the supervisor."""
    tricks = {"fifo": "os.mkfifo(path); new = os.open(path, os.O_RDWR)", "closed": "new = None"}
    tricks["device"] = "new = os.open('/dev/zero', os.O_RDWR)"
    async with Stage(make_app) as stage, ProcessPool(stage.app(APP), num_idle_processes=1) as pool:
        replace = f"""
path = {str(stage.directory / "fifo")!r}
{tricks[trick]}
for name in os.listdir("/proc/self/fd"):
    try:
        target = os.readlink(f"/proc/self/fd/{{name}}")
    except OSError:
        continue
    if "stackdump" in target:
        os.close(int(name)) if new is None else os.dup2(new, int(name))
if new is not None:
    os.close(new)
time.sleep(1000)
"""
        async with ProcessPool(stage.app(APP), num_idle_processes=1, stall_timeout=0.5) as watched:
            report = await (await watched.launch(replace)).wait()
            assert (report.outcome, report.reason) == ("killed", "stalled")
        assert (await (await pool.launch()).wait()).result == "done"


# --- the zygote ------------------------------------------------------------------------------------

ZYGOTE_GARBAGE = {
    "random bytes": "os.urandom(1000)",
    "too short": "b'x'",
    "too long": "bytes(150 * 1024)",
    "another version": "frame(2, KIND['Loading'], b'{\"dump_fd\":1}')",
    "an unknown kind": "frame(kind=200)",
    "a message of another channel": "m.encode(m.Start('job-1'))",
    "two frames in one packet": "m.encode(m.Loading(1)) * 2",
    "a truncated frame": "m.encode(m.Loading(1))[:-1]",
    "a header that is not JSON": "frame(kind=KIND['Loaded'], header=b'{')",
    "a fork without a pidfd": "m.encode(m.Forked('1-1', 1, 0.0))",
    "an end of an unknown process": "m.encode(m.Exited('9-9', 0, None))",
}


@pytest.mark.parametrize("garbage", [*ZYGOTE_GARBAGE.values(), "b''"], ids=[*ZYGOTE_GARBAGE, "nothing"])
async def test_S10_preload_sends_on_the_channel_of_the_zygote(make_app: MakeApp, garbage: str) -> None:
    source = f"""{FIND_CHANNEL}
@app.preload
def preload():
    if os.path.exists(BAD):
        channel(socket.SOCK_SEQPACKET).send({garbage})
        time.sleep(1000)

@app.entrypoint
async def entrypoint(ctx):
    return await on_stage("job") if ctx.job.metadata else "done"
"""
    async with Stage(make_app) as stage:
        bad = stage.directory / "bad"
        app = stage.app(f"BAD = {str(bad)!r}\n{source}")
        async with ProcessPool(app, num_idle_processes=1) as pool:
            job = await pool.launch("stay")
            visit = await stage.next("job")
            zygote = zygote_pid(pool)
            bad.touch()
            with pytest.raises(AppLoadError, match="broke the protocol"):
                await pool.reload()
            with pytest.raises(AppLoadError, match="broke the protocol"):
                await ProcessPool(app).start()
            assert zygote_pid(pool) == zygote
            visit.order("fine")
            assert (await job.wait()).result == "fine"
            await assert_recovered(pool, 1)


LIES = {
    **ZYGOTE_GARBAGE,
    "nothing": "b''",
    "a second answer": "m.encode(m.Forked(LAST, os.getpid(), 0.0)), (os.pidfd_open(os.getpid()),)",
    "a refusal of what was forked": "m.encode(m.ForkFailed(LAST, 'no'))",
    "a live process that was reaped": "m.encode(m.Reaped(LAST, 0.0, 0.0, 0))",
    "a death of the living": "m.encode(m.Exited(LAST, 0, None)) + b'x'",
    "too many fds": "m.encode(m.Exited(LAST, 0, None)), (0, 1, 2, 2, 2, 2)",
}


@pytest.mark.parametrize("garbage", LIES.values(), ids=LIES.keys())
async def test_S10_a_zygote_at_work_sends_garbage(make_app: MakeApp, tmp_path: Path, garbage: str) -> None:
    """It is killed and replaced; its jobs go on, and their ends are told exactly."""
    # Sent before the next fork, and so after the answer to the one before.
    source = f"""{FIND_CHANNEL}
FLAG, LAST = {str(tmp_path / "flag")!r}, ""

CHANNEL = channel(socket.SOCK_SEQPACKET).detach()  # now: in the fork there are those of the child, too
os.register_at_fork(after_in_child=lambda: os.close(CHANNEL))

def send(packet, passed=()):
    fds.send(socket.socket(fileno=os.dup(CHANNEL)), packet, passed)

def lie():
    global LAST
    try:
        LAST = open(FLAG).read()
        os.unlink(FLAG)
    except OSError:
        return
    send({garbage})

os.register_at_fork(before=lie)

@app.entrypoint
async def entrypoint(ctx):
    if ctx.job.metadata == "stay":
        os._exit(int(await on_stage("job", ctx.job.id)))
    return "done"
"""
    async with Stage(make_app) as stage, ProcessPool(stage.app(source), num_idle_processes=1, idle_ttl=0.1) as pool:
        job = await pool.launch("stay")
        visit = await stage.next("job")
        await eventually(lambda: pool.stats().idle == 1 and not pool.stats().warming)
        lost = zygote_pid(pool)
        idle = next(process for process in pool.processes if process.state == "idle")
        (tmp_path / "told").write_text(idle.id)
        (tmp_path / "told").rename(tmp_path / "flag")
        kill(idle.pid or 0)  # so that another is asked for
        await eventually(lambda: pool.stats().zygote_pid not in (None, lost), "replacement of the zygote")
        await eventually(lambda: is_gone(lost))
        assert (await (await pool.launch()).wait()).result == "done"
        visit.order("7")
        report = await job.wait()
        assert (report.reason, report.exit_code) == ("exited", 7)
        await assert_recovered(pool, 1)
