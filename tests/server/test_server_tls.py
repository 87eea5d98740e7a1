"""TLS of the API: who is let in by a certificate or by the token, and that no worker holds what opens another one."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import ssl
from asyncio import sslproto
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import commands
import pytest
from certificates import Authority, Certificate, client_context
from raw_http import connect, open_fds, request
from running_worker import Answer, RunningWorker
from support import DEADLINE, eventually

from greenroom import OptionError
from greenroom.server.web.tls import tls_context
from greenroom.settings import ServerOptions

MakeApp = Callable[[str], str]

TOKEN = "correct-horse-battery-staple"
APP = """
@app.entrypoint
async def entrypoint(ctx):
    if ctx.job.metadata == "environment":
        return dict(os.environ)
    if ctx.job.metadata == "stay":
        await asyncio.sleep(3600)
    return ctx.job.metadata
"""
IDLE = ("--num-idle-processes", "1")


class Authorities(NamedTuple):
    workers: Authority
    proxies: Authority
    proxy: Certificate
    """What the proxy shows to workers."""


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> Authorities:
    folder = tmp_path_factory.mktemp("authorities")
    workers, proxies = Authority(folder, "workers"), Authority(folder, "proxies")
    return Authorities(workers, proxies, proxies.sign("proxy", "clientAuth", folder))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def options_of(authorities: Authorities, folder: Path, name: str = "worker") -> tuple[str, ...]:
    """Put what a worker needs into a folder: its certificate, and whom it trusts. Nothing else is there."""
    mine = authorities.workers.sign(name, "serverAuth", folder)
    trusted = shutil.copy(authorities.proxies.path, folder / "clients.pem")
    return (*mine.options, "--tls-client-ca", str(trusted), *IDLE)


async def test_a_worker_speaks_https(make_app: MakeApp, authorities: Authorities, tmp_path: Path) -> None:
    options = (*authorities.workers.sign("a", None, tmp_path).options, *IDLE)
    tls = client_context(authorities.workers)
    async with RunningWorker(make_app(APP), *options) as worker:
        assert (await worker.url()).startswith("https://")
        for size in (0, 20_000, 700_000):
            metadata = "x" * size
            started = await worker.ask("POST", "/v1/jobs", json={"metadata": metadata, "timeout": 60}, ssl=tls)
            assert started.status == 201, started
            shown = await worker.ask("GET", f"/v1/jobs/{started.body['id']}?wait=60", ssl=tls)
            assert shown.body["report"]["result"] == metadata
        unread = await worker.ask("POST", "/v1/jobs", data=b"x" * 900_000, ssl=tls)
        assert (unread.status, unread.error["type"]) == (415, "not_json")
        assert (await worker.ask("GET", "/livez", ssl=tls)).status == 200
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{await worker.url()}/v1/events", ssl=tls) as events,
        ):
            async with asyncio.timeout(DEADLINE):
                await events.content.readuntil(b"event: board")
        async with await connect(await worker.port()) as plain:
            plain.send(request("GET", "/livez"))
            assert b"HTTP" not in await plain.is_cut()
        for context in (ssl.create_default_context(), client_context(authorities.proxies)):
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await worker.ask("GET", "/livez", ssl=context)


async def test_who_shows_a_certificate_is_trusted_as_with_the_token(
    make_app: MakeApp, authorities: Authorities, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "stranger")
    proxy = client_context(authorities.workers, authorities.proxy)
    nobody = client_context(authorities.workers)
    forged = client_context(authorities.workers, stranger.sign("proxy", "clientAuth", tmp_path))
    for_servers = authorities.proxies.sign("server", "serverAuth", tmp_path)
    environment = {**os.environ, "GREENROOM_TOKEN": TOKEN}
    options = options_of(authorities, tmp_path)
    async with RunningWorker(make_app(APP), *options, env=environment) as worker:
        started = await worker.ask("POST", "/v1/jobs", json={"timeout": 60}, ssl=proxy)
        assert started.status == 201
        job = f"/v1/jobs/{started.body['id']}"
        assert (await worker.ask("GET", job, ssl=proxy)).status == 200
        assert (await worker.ask("GET", job, ssl=nobody)).status == 401
        assert (await worker.ask("GET", job, ssl=nobody, headers=bearer(TOKEN))).status == 200
        assert (await worker.ask("GET", job, ssl=nobody, headers=bearer(TOKEN + "x"))).status == 401
        # Whoever cannot prove to have its certificate is not let in at all.
        for context in (forged, client_context(authorities.workers, for_servers)):
            with pytest.raises((aiohttp.ClientError, ConnectionError)):
                await worker.ask("GET", job, ssl=context)
        for path in ("/livez", "/readyz"):
            await eventually_ready(worker, path, nobody)


async def eventually_ready(worker: RunningWorker, path: str, context: ssl.SSLContext) -> None:
    async with asyncio.timeout(DEADLINE):
        while (await worker.ask("GET", path, ssl=context)).status != 200:
            await asyncio.sleep(0.01)


async def test_beyond_loopback_a_certificate_is_enough(
    make_app: MakeApp, authorities: Authorities, tmp_path: Path
) -> None:
    options = (*options_of(authorities, tmp_path), "--host", "0.0.0.0", "--health-port", "0")
    proxy, nobody = client_context(authorities.workers, authorities.proxy), client_context(authorities.workers)
    async with RunningWorker(make_app(APP), *options) as worker:

        async def ask(method: str, path: str, context: ssl.SSLContext, **more: Any) -> Answer:
            return await worker.ask(method, path, ssl=context, server_hostname="127.0.0.1", **more)

        assert (await ask("POST", "/v1/jobs", proxy, json={"timeout": 60})).status == 201
        for method, path in (
            ("POST", "/v1/jobs"),
            ("GET", "/v1/jobs"),
            ("GET", "/metrics"),
            ("POST", "/v1/pool/drain"),
        ):
            refused = await ask(method, path, nobody, json={})
            assert (refused.status, refused.error["type"]) == (401, "unauthorized")
            assert "tls_client_ca" in refused.error["message"]
        assert (await ask("GET", "/livez", nobody)).status == 200
        port = int((await worker.logs(r"probes are answered on http://[^ ]*:(\d+)"))[1])
        async with await connect(port) as probe:  # an orchestrator has no certificates
            probe.send(request("GET", "/livez"))
            assert (await probe.answer()).status == 200


async def test_nothing_of_one_worker_opens_another(make_app: MakeApp, authorities: Authorities, tmp_path: Path) -> None:
    """All files and the environment of A, and what its sessions have, against B."""
    proxy = client_context(authorities.workers, authorities.proxy)
    a, b = tmp_path / "a", tmp_path / "b"
    a.mkdir()
    b.mkdir()
    shared = ("--token", "auto", "--sessions-may", "all")
    app = make_app(APP)
    async with (
        RunningWorker(app, *options_of(authorities, a, "a"), *shared, cwd=a) as first,
        RunningWorker(app, *options_of(authorities, b, "b"), *shared, cwd=b) as second,
    ):
        first.has_nothing_to_do_with(second.pid)
        second.has_nothing_to_do_with(first.pid)
        started = await first.ask("POST", "/v1/jobs", json={"metadata": "environment", "timeout": 60}, ssl=proxy)
        shown = await first.ask("GET", f"/v1/jobs/{started.body['id']}?wait=60", ssl=proxy)
        of_session = shown.body["report"]["result"]
        assert of_session["GREENROOM_TOKEN"]
        assert of_session["GREENROOM_URL"] == await first.url()
        own = bearer(of_session["GREENROOM_TOKEN"])
        nobody = client_context(authorities.workers)
        assert (await first.ask("GET", "/v1/jobs", ssl=nobody, headers=own)).status == 200  # that is what it is for
        victim = (await second.ask("POST", "/v1/jobs", json={"metadata": "stay", "timeout": 60}, ssl=proxy)).body["id"]

        files = [path for path in a.rglob("*") if path.is_file()]
        assert {path.name for path in files} >= {"a.pem", "a.key", "clients.pem"}
        words = {*of_session.values(), *os.environ.values()}  # and with these it was started
        words |= {line for path in files for line in [path.read_text(), *path.read_text().splitlines()]}
        tokens = sorted(word for word in words if word.isascii() and word.isprintable() and word.strip())
        for token in tokens:
            assert (await second.ask("GET", "/v1/jobs", ssl=nobody, headers=bearer(token))).status == 401, token
        contexts = list(contexts_of(authorities.workers, files))
        assert len(contexts) == 1  # the certificate of A with its key
        attacks = [("POST", "/v1/jobs"), ("GET", f"/v1/jobs/{victim}"), ("DELETE", f"/v1/jobs/{victim}")]
        for context, (method, path) in itertools.product([nobody, *contexts], attacks):
            with suppress(aiohttp.ClientError, ConnectionError):
                answer = await second.ask(method, path, json={}, ssl=context, headers=own)
                assert answer.status == 401, (method, path)

        jobs = (await second.ask("GET", "/v1/jobs", ssl=proxy)).body["jobs"]
        assert [(job["id"], job["state"]) for job in jobs] == [(victim, "running")]


def contexts_of(authority: Authority, files: list[Path]) -> Iterator[ssl.SSLContext]:
    """Yield a client's context for each certificate among these files whose key is there, too."""
    for certificate, key in itertools.product(files, files):
        with suppress(ssl.SSLError):
            yield client_context(authority, Certificate(certificate, key))


async def test_clients_that_never_shake_hands_keep_nobody_out(
    make_app: MakeApp, authorities: Authorities, tmp_path: Path
) -> None:
    options = (*options_of(authorities, tmp_path), "--max-connections", "20")
    proxy = client_context(authorities.workers, authorities.proxy)
    async with RunningWorker(make_app(APP), *options) as worker, AsyncExitStack() as stack:
        port = await worker.port()
        assert (await worker.ask("GET", "/v1/pool", ssl=proxy)).status == 200
        before = open_fds(worker.pid)
        silent = [await stack.enter_async_context(await connect(port)) for _ in range(100)]
        for connection in silent[:50]:
            assert await connection.is_cut() == b""
        await eventually(lambda: open_fds(worker.pid) <= before + 20, "the end of those that were closed")
        assert (await worker.ask("GET", "/v1/pool", ssl=proxy)).status == 200
        assert (await worker.ask("POST", "/v1/pool/drain", json={}, ssl=proxy)).status == 202
        assert await worker.ends() == 0


def test_a_workers_own_certificate_must_open_no_worker(authorities: Authorities, tmp_path: Path) -> None:
    def use(mine: Certificate) -> ssl.SSLContext | None:
        trusted = str(authorities.proxies.path)
        return tls_context(ServerOptions(tls_cert=str(mine.path), tls_key=str(mine.key), tls_client_ca=trusted))

    for number, kind in enumerate((None, "clientAuth")):
        with pytest.raises(OptionError, match="whoever reads this worker's files could start jobs on all workers"):
            use(authorities.proxies.sign(f"open-{number}", kind, tmp_path))
    assert use(authorities.proxies.sign("for-servers", "serverAuth", tmp_path)) is not None
    assert use(authorities.workers.sign("of-another-authority", None, tmp_path)) is not None
    assert tls_context(ServerOptions()) is None


async def test_files_that_cannot_be_used_start_nothing(
    make_app: MakeApp, authorities: Authorities, tmp_path: Path
) -> None:
    app, one = make_app(APP), authorities.workers.sign("one", "serverAuth", tmp_path)
    other = authorities.workers.sign("other", "serverAuth", tmp_path)
    missing = str(tmp_path / "missing.pem")
    for options, complaint in (
        (("--tls-cert", missing), "missing.pem; tls_cert, tls_key): No such file"),
        (("--tls-cert", str(one.path), "--tls-key", str(other.key)), "belong together"),
        ((*one.options, "--tls-client-ca", missing), "missing.pem (tls_client_ca) cannot be used: No such file"),
        ((*one.options, "--tls-client-ca", str(one.key)), "(tls_client_ca) cannot be used"),
        (("--tls-key", str(one.key)), "tls_key is set, but the API speaks no TLS"),
        (("--tls-client-ca", str(one.path)), "tls_client_ca is set, but the API speaks no TLS"),
        ((*one.options, "--host", "0.0.0.0"), "no token is set"),
    ):
        process = await commands.start("start", app, "--port", "0", *options, stderr=asyncio.subprocess.PIPE)
        _, complaints = await process.communicate()
        assert process.returncode == 2, complaints
        assert complaint in complaints.decode()


@pytest.mark.more
async def test_a_certificate_and_its_key_may_be_in_one_file(
    make_app: MakeApp, authorities: Authorities, tmp_path: Path
) -> None:
    mine, both = authorities.workers.sign("mine", "serverAuth", tmp_path), tmp_path / "both.pem"
    both.write_text(mine.path.read_text() + mine.key.read_text())
    async with RunningWorker(make_app(APP), "--tls-cert", str(both), *IDLE) as worker:
        assert (await worker.ask("GET", "/livez", ssl=client_context(authorities.workers))).status == 200


@pytest.mark.more
async def test_commands_ask_by_https(make_app: MakeApp, authorities: Authorities, tmp_path: Path) -> None:
    environment = {**os.environ, "GREENROOM_TOKEN": TOKEN}
    options = (*options_of(authorities, tmp_path), *IDLE)
    async with RunningWorker(make_app(APP), *options, env=environment) as worker:
        command = (commands.GREENROOM, "status", "--url", await worker.url())
        for trusted, code in ((authorities.workers.path, 0), (authorities.proxies.path, 5)):
            process = await asyncio.create_subprocess_exec(
                *command,
                env={**environment, "SSL_CERT_FILE": str(trusted)},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            _, complaints = await process.communicate()
            assert process.returncode == code, complaints
        assert b"its certificate is not trusted" in complaints
        assert b"SSL_CERT_FILE" in complaints


def test_the_name_of_asyncio_that_bounds_its_buffers_is_there() -> None:
    assert isinstance(sslproto.SSLProtocol.max_size, int)
    assert {"set_read_buffer_limits", "set_write_buffer_limits"} <= set(dir(sslproto._SSLProtocolTransport))
