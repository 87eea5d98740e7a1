"""The inference process that plugins share: killed for real, in the midst of its work."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from livekit_orders import notes_of, order
from support import DEADLINE, eventually, is_gone, kill, zygote_pid

from greenroom import ProcessPool

MakeAgent = Callable[[str], Path]

RUNNER = """
from livekit.agents.inference_runner import _InferenceRunner

class Echo(_InferenceRunner):
    INFERENCE_METHOD = "echo"

    def initialize(self):
        note("initialized in", os.getpid())
        self.asked = 0

    def run(self, data):
        self.asked += 1
        if data == b"nothing": return None
        if data == b"raise": raise LookupError("no such word")
        if data == b"die": os._exit(7)
        if data.startswith(b"hold"):  # until the test lets go, by killing this process or by writing the file
            note("holds in", os.getpid())
            gate = Path(__file__).with_suffix(".gate")
            while not gate.exists(): signal.sigtimedwait([], 0.005)
        return data.upper() + b" " + str(os.getpid()).encode()

class Broken(Echo):
    INFERENCE_METHOD = "broken"
    def initialize(self): raise OSError("no weights")

import signal
_InferenceRunner.register_runner(Echo)
_InferenceRunner.register_runner(Broken)
server = AgentServer()

@server.rtc_session()
async def entrypoint(ctx: JobContext):
    for request in json.loads(ctx.job.metadata):
        method, _, text = request.partition(" ")
        try:
            note("result", await ctx.inference_executor.do_inference(method, text.encode()))
        except Exception as error:
            note(type(error).__name__, error)
    ctx.shutdown()
"""


def pids(app: Path, what: str) -> list[int]:
    return [int(line.rpartition(" ")[2]) for line in notes_of(app) if line.startswith(what)]


def results(app: Path) -> list[str]:
    return [line for line in notes_of(app) if not line.startswith(("initialized", "holds"))]


async def test_jobs_share_one_inference_process_which_is_replaced_when_it_stops_or_dies(make_agent: MakeAgent) -> None:
    app = make_agent(RUNNER)
    async with ProcessPool(str(app), num_idle_processes=1) as pool:
        for _ in range(2):
            requests = '["echo a", "echo nothing", "echo raise", "other a", "broken a"]'
            report = await (await pool.launch(order(requests))).wait()
            assert report.outcome == "succeeded", report.error
            assert report.descendants_killed == 0
        (service,) = pids(app, "initialized")
        assert service != zygote_pid(pool)
        once = [
            f"result b'A {service}'",
            "result None",
            "RuntimeError inference of echo failed: LookupError: no such word",
            "RuntimeError inference of other failed: no plugin has registered an inference runner 'other' "
            "(there are: broken, echo)",
            "RuntimeError inference of broken failed: OSError: no weights",
        ]
        assert results(app) == [*once, *once]

        kill(service, signal.SIGSTOP)
        report = await (await pool.launch(order('["echo a"]'))).wait()
        assert report.outcome == "succeeded", report.error
        assert is_gone(service)
        _, service = pids(app, "initialized")
        assert results(app)[10:] == [f"result b'A {service}'"]

        report = await (await pool.launch(order('["echo die", "echo a"]'))).wait()
        assert report.outcome == "succeeded", report.error
        given_up, served = results(app)[11:]
        assert given_up.endswith("the inference process died 3 times while it worked on this request")
        assert served.startswith("result b'A ")
        services = pids(app, "initialized")
        assert len(services) == 5  # the fourth from there has served the next request
    assert all(map(is_gone, services))


@pytest.mark.more
async def test_an_inference_process_killed_in_mid_use_is_replaced(make_agent: MakeAgent) -> None:
    """The job notices nothing: its request is made again, to the next one. Also when it goes with its zygote."""
    app = make_agent(RUNNER)
    gate = app.with_suffix(".gate")
    async with ProcessPool(str(app), num_idle_processes=1) as pool:
        for number, how in enumerate((signal.SIGKILL, signal.SIGSTOP, "zygote"), 1):
            handle = await pool.launch(order('["echo hold"]'), timeout=DEADLINE)
            await eventually(lambda number=number: len(pids(app, "holds")) == 2 * number - 1)
            first = pids(app, "holds")[-1]
            if how == "zygote":
                kill(zygote_pid(pool))
                await eventually(lambda first=first: is_gone(first))
            else:
                kill(first, how)
            await eventually(lambda number=number: len(pids(app, "holds")) == 2 * number)
            second = pids(app, "holds")[-1]
            assert second != first
            gate.touch()
            report = await handle.wait()
            assert report.outcome == "succeeded", report.error
            assert results(app)[number - 1 :] == [f"result b'HOLD {second}'"]
            gate.unlink()


HANGS = """
from greenroom.integrations.livekit.agent import inference
inference.RUN_TIMEOUT = 0.5

def hang(self, data):
    if data == b"loop":
        while True: pass
    if data == b"hold the GIL": ctypes.PyDLL(None).pause()
    return data.upper()

Echo.run = hang
"""


@pytest.mark.more
async def test_an_inference_process_that_hangs_is_replaced(
    make_agent: MakeAgent, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    app = make_agent(RUNNER + HANGS)
    async with ProcessPool(str(app), num_idle_processes=2) as pool:
        report = await (await pool.launch(order('["echo loop", "echo hold the GIL", "echo a"]'))).wait()
        assert report.outcome == "succeeded", report.error
        hung = "RuntimeError inference of echo failed: the runner did not return within 0.5 s"
        assert results(app) == [hung, hung, "result b'A'"]
        assert len(pids(app, "initialized")) == 3  # each of the two was replaced, and asked once
    assert "in hang" in caplog.text
    assert "the service livekit-inference died (exit code 1); it is started again" in caplog.text


@pytest.mark.more
async def test_while_it_loads_its_models_sessions_start_and_requests_do_not_wait_for_ever(
    make_agent: MakeAgent,
) -> None:
    source = "\nfrom greenroom.integrations.livekit.agent import inference\ninference.REQUEST_TIMEOUT = 0.5\n"
    app = make_agent(RUNNER + source + "Echo.initialize = lambda self: signal.pause()")
    async with ProcessPool(str(app), num_idle_processes=1) as pool:
        for requests in ("[]", '["echo a"]'):
            report = await (await pool.launch(order(requests))).wait()
            assert report.outcome == "succeeded", report.error
        (told,) = results(app)
        assert "did not answer within 0.5 s" in told
