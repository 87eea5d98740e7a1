"""HAProxy reaches workers by TLS: it checks their certificates and names, and they trust its certificate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import commands
import pytest
from machines.cluster import LIMITS, NAMES, Edit, Front, changed
from machines.haproxy import kept_port
from server.certificates import Authority
from server.running_worker import RunningWorker
from support import DEADLINE

MOST_CALLS = 6
"""Most sessions that a test starts. So many idle processes has each worker: without one, it is not ready."""
MakeApp = Callable[[str], str]
pytestmark = [pytest.mark.more, pytest.mark.in_pairs, pytest.mark.usefixtures("installed")]

APP = """
@app.entrypoint
async def entrypoint(ctx):
    await asyncio.Event().wait()
"""


class Secured:
    """Three workers with certificates of one authority, and the certificate of a proxy, of another one."""

    def __init__(self, app: str, folder: Path) -> None:
        self._app = app
        self._folder = folder
        self.authority = Authority(folder, "workers")
        self._proxies = Authority(folder, "proxies")
        proxy = self._proxies.sign("proxy", "clientAuth", folder)
        self.proxy_cert = folder / "proxy-with-key.pem"
        self.proxy_cert.write_text(proxy.path.read_text() + proxy.key.read_text())
        self.workers: dict[str, RunningWorker] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Secured:
        for name in NAMES:
            shown = self.authority.sign(name, "serverAuth", self._folder).options
            options = (*shown, "--tls-client-ca", str(self._proxies.path), "--worker-name", name)
            worker = RunningWorker(self._app, *options, *LIMITS, "--num-idle-processes", str(MOST_CALLS))
            self.workers[name] = await self._stack.enter_async_context(worker)
        for worker in self.workers.values():
            await worker.port()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    @asynccontextmanager
    async def front(self, *edits: Edit, authority: Path | None = None) -> AsyncIterator[Front]:
        with kept_port() as port:
            folder = self._folder / f"front-{port}"
            addresses: list[str] = []
            for name, worker in self.workers.items():
                addresses += ["--worker", f"{name}=127.0.0.1:{await worker.port()}"]
            files = ("--worker-ca", str(authority or self.authority.path), "--proxy-cert", str(self.proxy_cert))
            await self._write(*addresses, *files, "--bind", f"127.0.0.1:{port}", "--output", str(folder))
            config = folder / "haproxy.cfg"
            for edit in edits:
                config.write_text(edit(config.read_text()))
            front = Front(folder, port)
            try:
                await front.start()
                yield front
            finally:
                await front.close()

    async def _write(self, *options: str) -> None:
        process = await commands.start("init", "haproxy", self._app, *options, stdout=commands.DEVNULL)
        assert await process.wait() == 0


async def until_warm(front: Front, *names: str) -> None:
    """Wait until HAProxy finds each of these workers ready, with all its idle processes."""
    async with asyncio.timeout(DEADLINE):
        for name in names:
            while (answer := await front.get(f"/w/{name}/v1/pool")).status != 200 or answer.body["idle"] < MOST_CALLS:
                await asyncio.sleep(0.02)
    await front.until_sure("starts", *names)


async def test_sessions_are_started_and_found_by_tls(make_app: MakeApp, tmp_path: Path) -> None:
    async with Secured(make_app(APP), tmp_path) as secured, secured.front() as front:
        assert await front.until_up("lookups", *NAMES)
        await until_warm(front, *NAMES)
        told = [await front.start_job(f"call-{number}") for number in range(MOST_CALLS)]
        assert [one.status for one in told] == [201] * MOST_CALLS
        assert len({one.worker for one in told}) > 1
        for one in told:
            assert (await front.get(f"/v1/jobs/{one.id}")).body["id"] == one.id
            assert (await front.request("DELETE", f"/v1/jobs/{one.id}")).status == 202
        for name, worker in secured.workers.items():
            assert (await front.get(f"/w/{name}/v1/pool")).status == 200
            url = f"{await worker.url()}/v1/pool"
            async with aiohttp.ClientSession() as stranger, stranger.get(url, ssl=False) as answer:
                assert answer.status == 401, "without the certificate"


async def test_a_worker_with_another_certificate_is_not_asked(make_app: MakeApp, tmp_path: Path) -> None:
    async with Secured(make_app(APP), tmp_path) as secured:
        strange = Authority(tmp_path, "strange")
        async with secured.front(authority=strange.path) as front:
            assert await front.until_down("starts", *NAMES)
            assert (await front.start_job("nobody")).error == "no_worker"
        # One worker passes itself off as another: its authority is the right one, and its name is not.
        async with secured.front(changed("verifyhost a", "verifyhost b")) as front:
            assert await front.until_down("starts", "a")
            await until_warm(front, "b", "c")
            assert {(await front.start_job(f"call-{number}")).worker for number in range(4)} <= {"b", "c"}
