"""Trusted proxies: which header is believed, of whom, and what is done with one that cannot be read."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from raw_http import RawAnswer, connect
from running_worker import RunningWorker

from greenroom import OptionError
from greenroom.server.web.proxies import Client, TrustedProxies
from greenroom.settings import ServerOptions

MakeApp = Callable[[str], str]

PROXY, OTHER = "127.0.0.5", "127.0.0.6"
"""Addresses of this machine, from which the tests connect: one that is trusted, and one that is not."""
NOOP = """
@app.entrypoint
async def entrypoint(ctx):
    return ctx.job.metadata
"""
OPTIONS = ("--num-idle-processes", "0", "--trusted-proxies", f"{PROXY},10.0.0.0/8")
TRUSTED = ["10.0.0.5", "10.1.0.0/16", "fd00::/8"]
addresses = st.one_of(
    st.sampled_from(["10.0.0.5", "10.1.2.3", "10.2.0.1", "fd00::1", "::ffff:10.0.0.5", "192.0.2.1"]),
    st.ip_addresses().map(str),
)
texts = st.one_of(
    addresses, st.sampled_from(["", "unknown", "1.2.3", "10.0.0.5.example", "[::1", "_hidden", "1.2.3.4:x"])
)


def is_trusted(address: str) -> bool:
    return any(parsed(address) in ip_network(network) for network in TRUSTED)


def parsed(address: str) -> IPv4Address | IPv6Address:
    """An IPv4 client of a socket for both families is the same client."""
    found = ip_address(address)
    return getattr(found, "ipv4_mapped", None) or found


# --- the policy ----------------------------------------------------------------------------------


@given(addresses, st.lists(texts, max_size=6))
def test_nobody_but_a_trusted_proxy_is_believed(peer: str, hops: list[str]) -> None:
    client = TrustedProxies(TRUSTED).client_of(peer, [", ".join(hops)])
    if not is_trusted(peer):
        assert client == Client(peer)
    assert TrustedProxies([]).client_of(peer, [", ".join(hops)]) == Client(peer)


@given(
    forged=st.lists(texts, max_size=5),
    client=addresses.filter(lambda address: not is_trusted(address)),
    proxies=st.lists(addresses.filter(is_trusted), max_size=5),
    peer=addresses.filter(is_trusted),
    splits=st.booleans(),
)
@example(forged=[], client="::ffff:0:0", proxies=[], peer="10.0.0.5", splits=False)
def test_what_a_client_forges_changes_nothing(
    forged: list[str], client: str, proxies: list[str], peer: str, splits: bool
) -> None:
    """The client sends what it likes. Each proxy appends the address of its own client, or adds a header with it."""
    hops = [*forged, client, *proxies]
    values = hops if splits else [",".join(hops)]
    found = TrustedProxies(TRUSTED).client_of(peer, values)
    assert parsed(found.address) == parsed(client)
    assert found.problem is None


@pytest.mark.parametrize(
    ("values", "client"),
    [
        ([], Client("10.0.0.5")),
        (["", " , "], Client("10.0.0.5")),
        (["192.0.2.1:4711"], Client("192.0.2.1")),
        (["[2001:db8::1]:443"], Client("2001:db8::1")),
        (["[2001:db8::1]"], Client("2001:db8::1")),
        (["::ffff:192.0.2.1"], Client("192.0.2.1")),
        (["10.1.0.1, 10.1.0.2"], Client("10.1.0.1")),  # all are proxies: the first of them asks
        (["unknown"], Client("10.0.0.5", "unknown")),
        (["192.0.2.1, unknown, 10.1.0.2"], Client("10.1.0.2", "unknown")),
        (["192.0.2.1;10.1.0.2"], Client("10.0.0.5", "192.0.2.1;10.1.0.2")),
    ],
)
def test_the_client_of_some_headers(values: list[str], client: Client) -> None:
    assert TrustedProxies(TRUSTED).client_of("10.0.0.5", values) == client


def test_a_client_cannot_have_thousands_of_addresses_read() -> None:
    endless = ",".join(["192.0.2.1", *["10.1.0.1"] * 100_000])
    assert TrustedProxies(TRUSTED).client_of("10.0.0.5", [endless]) == Client("10.1.0.1")


@pytest.mark.parametrize(
    ("setting", "text", "says"),
    [
        ("trusted_proxies", "proxy.example", "does not appear to be an IPv4 or IPv6 network"),
        ("trusted_proxies", "10.0.0.5/8", "has host bits set"),
        ("trusted_proxies", "10.0.0.5:80", "such as 10.0.0.5 or 10.1.0.0/16"),
        ("allowed_hosts", "calls.example:443", "must be a host name without a port"),
        ("allowed_hosts", "https://calls.example", "must be a host name without a port"),
    ],
)
def test_an_entry_that_cannot_be(setting: str, text: str, says: str) -> None:
    with pytest.raises(OptionError, match=rf"{setting} has '{text}'") as told:
        ServerOptions(**{setting: (text,)})  # type: ignore[arg-type]
    assert says in str(told.value)


# --- a real worker -------------------------------------------------------------------------------


async def ask(
    worker: RunningWorker, *headers: str, source: str = PROXY, method: str = "GET", host: str = "localhost"
) -> RawAnswer:
    body = b"{}" if method == "POST" else b""
    more = ("Content-Type: application/json", f"Content-Length: {len(body)}") if body else ()
    head = "\r\n".join(
        [f"{method} /v1/{'jobs' if body else 'pool'} HTTP/1.1", f"Host: {host}", *more, *headers, "", ""]
    )
    async with await connect(await worker.port(), source=source) as client:
        client.send(head.encode() + body)
        return await client.answer()


def forwarded(*addresses: str) -> str:
    return f"X-Forwarded-For: {', '.join(addresses)}"


async def test_behind_a_trusted_proxy_each_client_has_its_own_rate(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(NOOP), *OPTIONS, "--rate-limit", "0.01") as worker:
        one, another = forwarded("10.9.9.9", "192.0.2.1", "10.0.0.1"), forwarded("192.0.2.2")
        assert [(await ask(worker, one)).status for _ in range(2)] == [200, 429]
        assert [(await ask(worker, another)).status for _ in range(2)] == [200, 429]
        for forged in ("192.0.2.77", "10.0.0.1", "junk"):
            assert (await ask(worker, forwarded(forged, "192.0.2.1"))).status == 429
        # The proxy asks, too.
        assert [(await ask(worker)).status for _ in range(2)] == [200, 429]
        # Whoever is not trusted is counted by its own address, whatever it says.
        assert [(await ask(worker, another, source=OTHER)).status for _ in range(2)] == [200, 429]
        assert (await ask(worker, forwarded("192.0.2.99"), source=OTHER)).status == 429
        assert not [line for line in worker.lines if "X-Forwarded-For" in line]


async def test_a_header_that_cannot_be_read_counts_for_the_proxy_and_is_logged(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(NOOP), *OPTIONS, "--rate-limit", "0.01") as worker:
        statuses = [
            (await ask(worker, forwarded("192.0.2.1", word))).status for word in ("unknown", "\u00ff", "x" * 999)
        ]
        assert statuses == [200, 429, 429]
        text = r"the trusted proxy 127\.0\.0\.5 sends 'unknown' in X-Forwarded-For, which is no address"
        await worker.logs(text)
        assert (await ask(worker, forwarded("192.0.2.1"))).status == 200


async def test_a_public_name_is_known_by_the_setting_alone(make_app: MakeApp) -> None:
    options = (*OPTIONS, "--allowed-hosts", "Calls.example,other.example.")
    async with RunningWorker(make_app(NOOP), *options) as worker:
        for host in ("calls.example", "CALLS.example:8443", "other.example", "localhost", "127.0.0.1:1"):
            for source in (PROXY, OTHER):
                assert (await ask(worker, host=host, source=source)).status == 200, host
        # A page that points its own name to the worker, or to the proxy, which sends the worker's address as Host.
        for source in (PROXY, OTHER):
            answer = await ask(worker, host="evil.example", source=source)
            assert (answer.status, answer.error["type"]) == (403, "wrong_host")
            assert "allowed_hosts" in answer.error["message"]
        for hosts in ("evil.example", "calls.example, evil.example", "evil.example@calls.example"):
            answer = await ask(worker, f"X-Forwarded-Host: {hosts}")
            assert (answer.status, answer.error["type"]) == (403, "wrong_host")
        assert (await ask(worker, "X-Forwarded-Host: calls.example:443")).status == 200
        # Nobody but a trusted proxy is asked for the name that its client has requested.
        assert (await ask(worker, "X-Forwarded-Host: evil.example", source=OTHER)).status == 200


async def test_the_origin_of_a_page_is_compared_with_what_a_trusted_proxy_says(make_app: MakeApp) -> None:
    options = (*OPTIONS, "--allowed-hosts", "calls.example", "--offer-timeout", "60")
    page = ("Origin: https://calls.example", "X-Forwarded-Host: calls.example")
    async with RunningWorker(make_app(NOOP), *options) as worker:
        assert (await ask(worker, *page, method="POST")).status == 201
        answer = await ask(worker, *page, method="POST", source=OTHER)
        assert (answer.status, answer.error["type"]) == (403, "wrong_origin")
    # Without the setting, all proxies are believed: a page of another site cannot set this header.
    async with RunningWorker(make_app(NOOP), *OPTIONS[:2], "--offer-timeout", "60") as worker:
        assert (await ask(worker, *page, method="POST", source=OTHER)).status == 201


async def test_settings_are_lists_in_the_environment_too(make_app: MakeApp) -> None:
    environment = {
        **os.environ,
        "GREENROOM_TRUSTED_PROXIES": f"{PROXY}, ::1",
        "GREENROOM_ALLOWED_HOSTS": "a.example, b",
    }
    async with RunningWorker(make_app(NOOP), "--num-idle-processes", "0", env=environment) as worker:
        hosts = ("a.example", "b", "c")
        answers = await asyncio.gather(*(ask(worker, host=host) for host in hosts))
        assert [answer.status for answer in answers] == [200, 200, 403]
