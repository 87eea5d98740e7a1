"""A LiveKit server that is reached by an HTTP proxy alone."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from dispatcher import Dispatcher, a_job
from faults.stage import Stage
from proxy import Proxy, certificate
from server.running_worker import RunningWorker
from source_scene import MakeApp

IS_MISSING = shutil.which("openssl") is None and "CI" not in os.environ  # there it fails
pytestmark = pytest.mark.skipif(IS_MISSING, reason="openssl makes the certificates")

AGENT = """
from livekit.agents import AgentServer

app = AgentServer(http_proxy=PROXY)

@app.rtc_session()
async def entrypoint(ctx):
    ctx.shutdown("by way of the proxy")
"""


@pytest.mark.more
@pytest.mark.parametrize("where", ["the app", "the environment"])
async def test_a_server_is_reached_by_a_proxy(make_app: MakeApp, tmp_path: Path, where: str) -> None:
    trusted, context = certificate(tmp_path)
    async with Stage(make_app) as stage, Dispatcher(context) as dispatcher, Proxy() as proxy:
        environment = {**os.environ, **dispatcher.environment, "SSL_CERT_FILE": str(trusted)}
        elsewhere = "http://127.0.0.1:9"  # where nobody listens: the app's own comes first
        environment["HTTPS_PROXY"] = elsewhere if where == "the app" else proxy.url
        source = AGENT.replace("http_proxy=PROXY", f"http_proxy={proxy.url!r}" if where == "the app" else "")
        async with RunningWorker(stage.app(source), env=environment) as worker:
            line = await (await dispatcher.line()).ready()
            await line.runs(a_job("AJ_1"))
            assert (await worker.report("AJ_1"))["result"] == {"ended_by": "by way of the proxy"}
        assert proxy.requests == [f"CONNECT {dispatcher.url.removeprefix('wss://')} HTTP/1.1"]


async def test_a_proxy_that_refuses_is_named(make_app: MakeApp, tmp_path: Path) -> None:
    trusted, context = certificate(tmp_path)
    async with Stage(make_app) as stage, Dispatcher(context) as dispatcher, Proxy("403 Forbidden") as proxy:
        environment = {**os.environ, **dispatcher.environment, "SSL_CERT_FILE": str(trusted)}
        source = AGENT.replace("PROXY", repr(proxy.url))
        async with RunningWorker(stage.app(source), env=environment) as worker:
            await worker.logs("the HTTP proxy refused the connection with HTTP status 403; next attempt")
