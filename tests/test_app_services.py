"""Services of an app: called for real, killed and hung in the midst of their work."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import textwrap
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from faults.stage import Stage
from support import DEADLINE, Kept, eventually, is_gone, kill, listening, zygote_pid

from greenroom import App, GreenroomError, PayloadError, ProcessPool
from greenroom.wire.call_data import pack, unpack
from greenroom.zygote.services import address_of

MakeApp = Callable[[str], str]

SESSION = """
async def told(ctx, name, *arguments, timeout=None):
    try:
        return await ctx.service(name, timeout=timeout)(*arguments)
    except greenroom.ServiceError as error:
        return [error.reason, str(error)]

@app.entrypoint
async def entrypoint(ctx):
    # Each call in turn: [name, timeout, argument ...]; those of one list at the same time.
    results = []
    for calls in ctx.job.metadata:
        told_of = [told(ctx, name, *arguments, timeout=timeout) for name, timeout, *arguments in calls]
        results.append(await asyncio.gather(*told_of))
    return results
"""


Serving = Callable[..., AbstractAsyncContextManager[tuple[ProcessPool, Stage]]]


@pytest.fixture
def serving(make_app: MakeApp) -> Serving:
    """Run a pool for an app, whose processes can come on stage."""

    @asynccontextmanager
    async def run(source: str, idle: int = 1) -> AsyncIterator[tuple[ProcessPool, Stage]]:
        async with Stage(make_app) as stage:
            app = stage.app(SESSION + textwrap.dedent(source))
            async with ProcessPool(app, num_idle_processes=idle) as pool:
                yield pool, stage

    return run


@pytest.fixture
def kept() -> Iterator[Kept]:
    with listening(Kept(), "greenroom.app") as handler:
        yield handler


async def results(pool: ProcessPool, metadata: Any) -> Any:
    report = await (await pool.launch(metadata, timeout=DEADLINE)).wait()
    assert report.outcome == "succeeded", report
    assert report.descendants_killed == 0
    return report.result


def texts(kept: Kept) -> str:
    return "\n".join(record.getMessage() for record in kept.records)


# --- calls and answers ----------------------------------------------------------------------------


async def test_all_sessions_call_one_process(serving: Serving, kept: Kept) -> None:
    source = """
    class Changed(dict):
        def items(self): raise RuntimeError("dictionary changed size during iteration")

    @app.service
    def model():
        note("loaded", os.getpid())
        def answer(*arguments, **named):
            if arguments[:1] == ("raise",): raise LookupError("no such word")
            if arguments[:1] == ("leave",): sys.exit(3)
            if arguments[:1] == ("stop",): return next(iter([]))
            if arguments[:1] == ("object",): return object()
            if arguments[:1] == ("changed",): return Changed(key=1)
            return [os.getpid(), list(arguments), named]
        return answer

    @app.service("other.one", timeout=1e300)
    def whatever():
        async def answer(text): return text.upper()
        return answer

    @app.prewarm
    async def prewarm(proc):
        proc.userdata["warm"] = await proc.service("model", timeout=60)("warm")

    async def entrypoint(ctx):
        model = ctx.service("model")
        pid, (warm,), _ = ctx.proc.userdata["warm"]
        large = random.randbytes(9_000_000)
        assert await model(large, part=bytearray(b"x")) == [pid, [large], {"part": b"x"}]
        nested = {"audio": [memoryview(b"abcd")[::2], b""], "rate": 16_000.5, "text": "\\ud800\\0buffer", "none": None}
        assert await model(nested) == [pid, [{**nested, "audio": [b"ac", b""]}], {}]
        assert await asyncio.gather(*(model(n) for n in range(50))) == [[pid, [n], {}] for n in range(50)]
        assert await asyncio.to_thread(model.call, "thread") == [pid, ["thread"], {}]
        assert await ctx.service("other.one")("a") == "A"
        errors = []
        for call in (
            lambda: model("raise"), lambda: model("leave"), lambda: model("stop"), lambda: model("object"),
            lambda: model("changed"), lambda: ctx.service("other.one")(), lambda: ctx.service("none")(1),
            lambda: model(object()), lambda: asyncio.sleep(0, model.call(1)),
        ):
            try:
                await call()
            except Exception as error:
                errors.append([type(error).__name__, getattr(error, "reason", ""), str(error)])
        return [warm, pid, errors]
    app.entrypoint_fn = entrypoint
    """
    async with serving(source) as (pool, stage):
        first, second = await results(pool, 1), await results(pool, 2)
        (((loaded,)),) = stage.noted("loaded")
        warm, pid, errors = first
        assert (warm, str(pid)) == ("warm", loaded)
        assert second == first
        assert [error[:2] for error in errors] == [
            *[["ServiceError", "raised"]] * 6,
            ["ServiceError", "unknown"],
            ["PayloadError", ""],
            ["RuntimeError", ""],
        ]
        texts_of_errors = [error[2] for error in errors]
        assert texts_of_errors[0] == "the service 'model' raised LookupError: no such word"
        assert "SystemExit: 3" in texts_of_errors[1]
        assert "StopIteration" in texts_of_errors[2]
        assert "not plain data" in texts_of_errors[3]
        assert "changed size during iteration" in texts_of_errors[4]
        assert "missing 1 required positional argument" in texts_of_errors[5]
        assert "(there are: 'model', 'other.one')" in texts_of_errors[6]
        assert "await ctx.service('model')(...)" in texts_of_errors[8]
    assert is_gone(pid)
    assert "the service model failed on a call of job " in texts(kept)
    assert "in answer" in texts(kept)
    assert "LookupError: no such word" in texts(kept)


async def test_a_sync_entrypoint_calls_from_its_thread(serving: Serving) -> None:
    """Whatever the app has done to the environment."""
    source = """
    @app.preload
    def preload(): os.environ.clear()

    @app.service
    def double(): return lambda n: 2 * n

    @app.prewarm
    def prewarm(proc): proc.userdata["four"] = proc.service("double").call(2)

    def entrypoint(ctx): return [ctx.proc.userdata["four"], ctx.service("double").call(ctx.job.metadata)]
    app.entrypoint_fn = entrypoint
    """
    async with serving(source) as (pool, _):
        assert await results(pool, 4) == [4, 8]


@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_as_many_calls_run_at_a_time_as_the_service_allows(serving: Serving, kind: str) -> None:
    source = f"""
    @app.service(concurrency=3, timeout=60)
    def together():
        waiting, gate = [], threading.Barrier(3)
        async def opened():
            waiting.append(asyncio.get_running_loop().create_future())
            if len(waiting) == 3:
                for future in waiting: future.set_result(None)
            await waiting[-1]
        {kind} answer(n):
            {"gate.wait()" if kind == "def" else "await opened()"}
            return n
        return answer
    """
    async with serving(source, idle=2) as (pool, _):
        # Two of one session, and one of another: none is answered until the third is there.
        found = await asyncio.gather(
            results(pool, [[["together", 60, 1], ["together", 60, 2]]]), results(pool, [[["together", 60, 3]]])
        )
        assert found == [[[1, 2]], [[3]]]


async def test_callers_beyond_the_queue_wait_for_their_turn(serving: Serving) -> None:
    source = """
    @app.service(queue=0, timeout=60)
    def one_by_one():
        running = []
        def answer(n, data):
            running.append(n)
            assert len(running) == 1
            running.clear()
            return n
        return answer
    """
    async with serving(source) as (pool, _):
        calls = [["one_by_one", 60, n, "x" * 300_000] for n in range(40)]
        assert await results(pool, [calls]) == [list(range(40))]


# --- deadlines and withdrawal ---------------------------------------------------------------------

HOLDS = """
    @app.service(timeout=60)
    def model():
        async def answer(what):
            note("began", what)
            if not what.startswith("hold"): return what
            try:
                return await on_stage("held")
            except asyncio.CancelledError:
                note("cancelled", what)
                raise
        return answer
"""


async def test_a_call_has_a_deadline_and_is_withdrawn_then(serving: Serving) -> None:
    async with serving(HOLDS, idle=2) as (pool, stage):
        holds = asyncio.create_task(results(pool, [[["model", 60, "hold 1"]]]))
        held = await stage.next("held")
        # While another call is worked on, this one does not get its turn. It is never begun.
        (((busy, message),),) = await results(pool, [[["model", 0.3, "queued"]]])
        assert busy == "busy"
        assert "did not begin this call within 0.3 s" in message
        held.order("done")
        assert await holds == [["done"]]
        # Its own time is over while it is worked on.
        (((late, message),), *rest) = await results(pool, [[["model", 0.3, "hold 2"]], [["model", 60, "next"]]])
        assert late == "timeout"
        assert "did not answer within 0.3 s: it worked on this call for" in message
        assert rest == [["next"]]
        await (await stage.next("held")).left()
        assert stage.noted("cancelled") == [["hold", "2"]]
        assert stage.noted("began") == [["hold", "1"], ["hold", "2"], ["next"]]


@pytest.mark.parametrize("end", ["task", "cancel", "kill"])
async def test_a_call_is_withdrawn_with_its_task_or_its_session(serving: Serving, end: str) -> None:
    source = (
        HOLDS.replace("timeout=60", "timeout=60, concurrency=2")
        + """
    async def entrypoint(ctx):
        calls = [asyncio.create_task(told(ctx, "model", what)) for what in ctx.job.metadata]
        while (order := await on_stage("session", ctx.job.metadata[0].replace(" ", "-"))) != "cancel":
            calls.append(asyncio.create_task(told(ctx, "model", order)))
        for call in calls: call.cancel()
        await asyncio.wait(calls)
        return await told(ctx, "model", "next")
    app.entrypoint_fn = entrypoint
    """
    )
    async with serving(source, idle=2) as (pool, stage):
        first = await pool.launch(["hold 1"], timeout=DEADLINE)
        first_session, first_held = await stage.next("session"), await stage.next("held")
        second = await pool.launch(["hold 2"], timeout=DEADLINE)
        session, held = await stage.next("session"), await stage.next("held")
        first_session.order("hold 3")  # waits for its turn, and so does the next one
        first_session = await stage.next("session")
        session.order("queued")
        session = await stage.next("session")
        if end == "task":
            session.order("cancel")
        elif end == "cancel":
            second.cancel("enough")
        else:
            kill(session.pid)
        await held.left()
        last = await stage.next("held")  # the call that waited before the other one, which is withdrawn
        if end != "task":
            assert (await second.wait()).result is None
        first_held.order("done")
        if end == "task":
            assert (await second.wait()).result == "next"
        first_session.order("cancel")
        await last.left()
        assert (await first.wait()).result == "next"
        began = Counter(" ".join(words) for words in stage.noted("began"))
        assert began == {"hold 1": 1, "hold 2": 1, "hold 3": 1, "next": 2 if end == "task" else 1}
        assert Counter(number for (_, number) in stage.noted("cancelled")) == {"2": 1, "3": 1}


async def test_a_call_is_withdrawn_also_where_a_fork_holds_its_connection(serving: Serving) -> None:
    source = (
        HOLDS
        + """
    async def entrypoint(ctx):
        call = asyncio.create_task(told(ctx, "model", "hold"))
        await on_stage("session")
        if (pid := os.fork()) == 0:
            while True: signal.pause()
        call.cancel()
        await asyncio.wait([call])
        await on_stage("withdrawn")
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    app.entrypoint_fn = entrypoint
    """
    )
    async with serving(source) as (pool, stage):
        running = asyncio.create_task(results(pool, None))
        session, held = await stage.next("session"), await stage.next("held")
        session.order("fork, and cancel it")
        await held.left()
        (await stage.next("withdrawn")).order("go")
        await running
        assert stage.noted("cancelled") == [["hold"]]


# --- deaths, hangs and loading --------------------------------------------------------------------


async def test_a_call_that_was_begun_is_not_repeated_when_the_service_dies(serving: Serving) -> None:
    source = """
    @app.service(concurrency=1, timeout=60)
    def model():
        def answer(what):
            note("began", what, os.getpid())
            if what == "hold": block_on_stage("held")
            return what
        return answer
    """
    async with serving(source) as (pool, stage):
        calls = asyncio.create_task(results(pool, [[["model", 60, "hold"], ["model", 60, "queued"]]]))
        held = await stage.next("held")
        kill(held.pid)
        (((died, message), queued),) = await calls
        assert died == "died"
        assert "may have had effects, so it was not repeated" in message
        assert queued == "queued"
        (first, second) = stage.noted("began")
        assert (first[0], second[0]) == ("hold", "queued")
        assert first[1] == str(held.pid) != second[1]


@pytest.mark.parametrize("hang", ["threading.Event().wait()", "ctypes.PyDLL(None).pause()"])
async def test_a_service_that_hangs_is_replaced(serving: Serving, kept: Kept, hang: str) -> None:
    source = f"""
    from greenroom.zygote import service_process
    service_process.HANG_GRACE = 0.2

    @app.service(timeout=0.5)
    def model():
        note("loaded", os.getpid())
        def hang():
            {hang}
        def answer(what): return hang() if what == "hang" else what
        return answer
    """
    async with serving(source) as (pool, stage):
        await eventually(lambda: stage.noted("loaded"))
        (((late, message),), after) = await results(pool, [[["model", 0.5, "hang"]], [["model", 60, "next"]]])
        assert late == "timeout", message
        assert after == ["next"]
        ((first,), (_,)) = stage.noted("loaded")
        assert is_gone(int(first))
    assert "in hang" in texts(kept)
    if "Event" in hang:
        assert "the service model hangs in a call of job" in texts(kept)


async def test_an_impatient_caller_does_not_end_the_service(serving: Serving) -> None:
    source = """
    from greenroom.zygote import service_process
    service_process.HANG_GRACE = 0.01

    @app.service(timeout=60)
    def model():
        note("loaded")
        def answer(what):
            if what == "hold": block_on_stage("held")
            return what
        return answer
    """
    async with serving(source) as (pool, stage):
        calls = asyncio.create_task(results(pool, [[["model", 0.2, "hold"]], [["model", 60, "next"]]]))
        held = await stage.next("held")
        await asyncio.sleep(0.5)  # the process would be ended meanwhile
        held.order("go on")
        (((late, _),), after) = await calls
        assert (late, after) == ("timeout", ["next"])
        assert len(stage.noted("loaded")) == 1


async def test_calls_wait_while_the_service_loads_and_are_told_why_it_does_not(serving: Serving, kept: Kept) -> None:
    source = """
    @app.service(timeout=60)
    def slow():
        block_on_stage("loads")
        return lambda what: what

    @app.service(timeout=60)
    def broken():
        note("tried")
        if len(os.listdir(os.path.dirname(LEDGER))) < 3: raise OSError("no weights")
        return lambda what: what

    @app.service
    def nothing(): note("nothing")
    """
    async with serving(source) as (pool, stage):
        loading = await stage.next("loads")
        (((not_ready, message),),) = await results(pool, [[["slow", 0.2, "early"]]])
        assert not_ready == "not_ready"
        assert "not ready within 0.2 s: it loads, or is started again" in message
        waits = asyncio.create_task(results(pool, [[["slow", 60, "waits"]]]))
        ((failed, message), (nothing, why)), *_ = await results(
            pool, [[["broken", 60, "x" * 1_000_000], ["nothing", 60]]]
        )
        assert (failed, nothing) == ("not_loaded", "not_loaded")
        assert "the service 'broken' could not be loaded: OSError: no weights" in message
        assert "returned a NoneType instead of the function that answers calls" in why
        await eventually(lambda: len(stage.noted("tried")) >= 3)
        (stage.directory / "weights").touch()

        async def is_loaded() -> bool:
            return bool(await results(pool, [[["broken", 60, "again"]]]) == [["again"]])

        async with asyncio.timeout(DEADLINE):
            while not await is_loaded():
                pass
        loading.order("go on")
        assert await waits == [["waits"]]
    assert "the service broken could not be loaded" in texts(kept)
    assert 'raise OSError("no weights")' in texts(kept)


# --- generations ----------------------------------------------------------------------------------


async def test_each_generation_has_its_own_service_until_its_sessions_end(serving: Serving) -> None:
    source = """
    @app.service
    def model():
        pid = os.getpid()
        note("loaded", pid)
        return lambda: pid

    async def entrypoint(ctx):
        if ctx.job.metadata == "stay": await on_stage("session")
        return await ctx.service("model", timeout=60)()
    app.entrypoint_fn = entrypoint
    """
    async with serving(source) as (pool, stage):
        old_session = await pool.launch("stay", timeout=DEADLINE)
        visit = await stage.next("session")
        old = await results(pool, None)
        await pool.reload()
        new = await results(pool, None)
        assert new != old
        # Killed, it is started again by its own zygote: the old session does not go to the new code.
        kill(old)
        visit.order("go on")
        report = await old_session.wait()
        assert report.result not in (old, new)
        assert [int(pid) for (pid,) in stage.noted("loaded")] == [old, new, report.result]
        await eventually(lambda: is_gone(report.result), "the end of the old generation's service")


async def test_a_lost_zygotes_sessions_find_the_next_service(serving: Serving) -> None:
    async with serving(HOLDS) as (pool, stage):
        calls = asyncio.create_task(results(pool, [[["model", 60, "hold 1"]], [["model", 60, "next"]]]))
        held = await stage.next("held")
        kill(zygote_pid(pool))
        (((died, _),), after) = await calls
        assert (died, after) == ("died", ["next"])
        await eventually(lambda: is_gone(held.pid))


async def test_a_stopped_service_is_replaced(serving: Serving) -> None:
    source = "    @app.service\n    def model(): return os.getpid"
    async with serving(source) as (pool, _):
        ((first,),) = await results(pool, [[["model", 60]]])
        kill(first, signal.SIGSTOP)
        ((second,),) = await results(pool, [[["model", 60]]])
        assert second != first


async def test_what_a_service_has_started_ends_with_it(serving: Serving) -> None:
    """Or before, where the service ends it."""
    source = """
    import multiprocessing, subprocess

    def ended():
        process = multiprocessing.get_context("fork").Process(target=threading.Event().wait)
        process.start()
        process.terminate()
        process.join(20)
        return process.exitcode

    @app.service
    def model():
        helper = subprocess.Popen(["sleep", "1000"])
        return lambda: [os.getpid(), helper.pid, ended()]
    """
    async with serving(source) as (pool, _):
        (((pid, helper, code),),) = await results(pool, [[["model", 60]]])
        assert code == -signal.SIGTERM
        kill(pid)
        await eventually(lambda: is_gone(helper))
        (((_, other, _),),) = await results(pool, [[["model", 60]]])  # whose report counts none of them
    await eventually(lambda: is_gone(other))


# --- what is refused ------------------------------------------------------------------------------


def as_nobody(act: Callable[[], None]) -> None:
    """Do something in a process of another user."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setuid(65534)
            act()
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
async def test_another_user_is_refused(serving: Serving) -> None:
    source = """
    @app.service
    def model(): return os.getpid

    async def entrypoint(ctx):
        return [address, await ctx.service("model")()]
    from greenroom.zygote.services import address_of
    app.entrypoint_fn = entrypoint

    @app.preload
    def preload():
        global address
        address = address_of("model", 1)
    """
    async with serving(source) as (pool, _):
        address, _ = await results(pool, None)
        as_nobody(lambda: _is_refused(address))
        assert (await results(pool, None))[0] == address


def _is_refused(address: str) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(DEADLINE)
        sock.connect(address)
        assert sock.recv(1) == b""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
async def test_a_service_of_another_user_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    from greenroom.app_service import AppService
    from greenroom.errors import ServiceError
    from greenroom.zygote.service_client import client_of

    monkeypatch.setattr("greenroom.zygote.services._POOL", f"test-{os.getpid()}")
    service = AppService("model", lambda: print, 1, 0.3, 1)
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.socket(socket.AF_UNIX) as listener:

        def listens() -> None:
            listener.bind(address_of("model", 1))
            listener.listen()

        as_nobody(listens)
        with pytest.raises(ServiceError, match="not ready"):
            await client_of({"model": service}, "model", 1, None, "a test")("secret")
        listener.settimeout(DEADLINE)
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(1) == b""  # it came, looked, and said nothing


async def test_spawned_processes_refuse_an_app_with_services(make_app: MakeApp) -> None:
    source = "@app.service\ndef model(): return print\n\n@app.entrypoint\nasync def entrypoint(ctx): pass"
    async with ProcessPool(make_app(source), num_idle_processes=1, start_method="spawn") as pool:
        await eventually(lambda: pool.stats().breaker_cause, "the first process's failure")
        assert "start_method='spawn' cannot run the services of the app ('model')" in str(pool.stats().breaker_cause)


def loads() -> Callable[..., Any]:
    return print


async def loads_async() -> Callable[..., Any]:
    return print


def needs(path: str) -> Callable[..., Any]:
    return print


@pytest.mark.parametrize(
    ("register", "message"),
    [
        (lambda app: app.service(loads), "the app has a service 'loads' already"),
        (lambda app: app.service("loads")(needs), "must work without arguments"),
        (lambda app: app.service(3), "takes a function, not 3"),
        (lambda app: app.service("x")(None), "takes a function, not None"),
        (lambda app: app.service("x")(loads_async), "must be a plain function. The function that it returns may be"),
        (lambda app: app.service("a/b")(loads), "'a/b' cannot be the name"),
        (lambda app: app.service("")(loads), "'' cannot be the name"),
        (lambda app: app.service("x", concurrency=0)(loads), "concurrency of the service 'x' is 0"),
        (lambda app: app.service("x", timeout=0)(loads), "timeout of the service 'x' is 0"),
        (lambda app: app.service("x", timeout=float("nan"))(loads), "timeout of the service 'x' is nan"),
        (lambda app: app.service("x", queue=1.5)(loads), "queue of the service 'x' is 1.5"),
        (lambda app: app.service("raw")(loads), "the app has a service 'raw' already"),
    ],
)
def test_a_wrong_registration_changes_nothing(register: Callable[[App], object], message: str) -> None:
    app = App()
    app.services["raw"] = lambda listener: None
    assert app.service(loads) is loads
    before = dict(app.app_services)
    with pytest.raises(GreenroomError, match=message):
        register(app)
    assert app.app_services == before


# --- data -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [None, [1, 2.5, "\ud800\0"], b"", [b"a", {"b": [bytearray(b"c"), memoryview(b"dd")]}], {"\0buffer": 0}]
)
def test_data_arrives_as_it_was_packed(value: Any) -> None:
    parts = pack(value)
    assert unpack([len(part) for part in parts], memoryview(b"".join(parts))) == value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object(), "not plain data"),
        ([b"x", {"\0buffer": 0}], "is reserved for buffers"),
        (b"x" * (64 << 20), "at most"),
        ([b""] * 10_001, "10001 buffers; at most"),
        ({1: {2}}, "not plain data"),
    ],
)
def test_what_cannot_be_packed_is_told(value: Any, message: str) -> None:
    with pytest.raises(PayloadError, match=message):
        pack(value)


@pytest.mark.parametrize(
    ("sizes", "body"), [([], b""), ([3], b"12"), ([1], b"{"), ([12 + 2, 1], b'{"\\u0000buffer":7}x')]
)
def test_what_was_not_packed_is_refused(sizes: list[int], body: bytes) -> None:
    with pytest.raises(PayloadError):
        unpack(sizes, memoryview(body))
