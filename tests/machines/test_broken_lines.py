"""No line of HAProxy's file is there by habit: without it, or with another one, the audit or a count fails.

What must fail is a scenario that finds nothing wrong with the file as it is written: see ``test_targets.py`` and
``test_machines.py``. Some lines need the checks to be still (``STILL``), so that HAProxy does not learn in another way
what the line is for.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest
from machines.cluster import Cluster, Edit, Machine, added, changed, within, without
from machines.scenarios import (
    KILLS,
    STILL,
    beside_full,
    freeze_in_bursts,
    fresh,
    frozen,
    hung_up,
    kill_in_bursts,
    looked_up,
    no_longer_asked,
    repeated,
    slow_start,
    start_in_two_parts,
    started_on,
    until_waiting,
    use_up_idle,
)
from support import DEADLINE

pytestmark = [pytest.mark.more, pytest.mark.in_pairs, pytest.mark.usefixtures("installed")]

PATIENCE = 5.0
"""Seconds to wait for what must not come. A longer wait would find the same."""
RETRY = "retry-on 503 conn-failure"
BUFFER = 1024 * 1024 + 32 * 1024


# --- starts: further tries -----------------------------------------------------------------------


async def test_further_tries(tmp_path: Path) -> None:
    edits: dict[str, Edit] = {
        "retry-on 503": changed(RETRY, "retry-on conn-failure"),
        "option redispatch 1": without("option redispatch"),
        "retries": changed("retries 8", "retries 0"),
    }
    async with Cluster(tmp_path, idle=6, jobs=6) as cluster:
        await asyncio.gather(cluster["a"].fill(), cluster["b"].fill())
        for name, edit in edits.items():
            async with cluster.front(STILL, edit) as front:
                assert await beside_full(front) != [], name
            await cluster["c"].worker.until("/v1/pool", lambda answer: not answer.body["jobs"])
        async with cluster.front(STILL, changed(f"tune.bufsize {BUFFER}", "tune.bufsize 16384")) as front:
            assert await beside_full(front) == [], "small bodies fit"
            await cluster["c"].worker.until("/v1/pool", lambda answer: not answer.body["jobs"])
            assert await beside_full(front, pad=20_000) != []


async def test_further_tries_for_ids_of_clients(tmp_path: Path) -> None:
    async with Cluster(tmp_path, jobs=20) as cluster:
        await cluster["a"].fill()
        async with cluster.front(STILL) as front:
            assert await beside_full(front, with_id=True, calls=24) == []
        async with cluster.front(STILL, without("hash-type consistent")) as front:
            assert await beside_full(front, with_id=True, calls=24) != []


async def test_a_further_try_after_a_connection_that_failed(tmp_path: Path) -> None:
    async with Cluster(tmp_path, jobs=20) as cluster:
        for edits in ([STILL], [STILL, changed(RETRY, "retry-on 503")]):
            async with cluster.front(*edits) as front:
                assert await front.until(lambda rows: rows["starts", "a"]["check_status"] == "L7OK")
                await cluster.kill("a")
                assert (await beside_full(front) == []) == (edits == [STILL])
            await cluster["a"].start()


async def test_no_further_try_without_an_answer(tmp_path: Path) -> None:
    """The opt-in `--rerun-broken`: sessions begin twice."""
    async with Cluster(tmp_path, idle=5, jobs=30) as cluster, cluster.front(options=("--rerun-broken",)) as front:
        wrong = await kill_in_bursts(cluster, front, 3 * KILLS)
        assert [text for text in wrong if "began 2 times" in text] != [], wrong


async def test_no_further_try_after_a_time_without_an_answer(tmp_path: Path) -> None:
    """A worker that stands still can owe the answer for a session that began. With `response-timeout`, two begin."""
    short = changed("timeout server 24s", "timeout server 1s")
    async with Cluster(tmp_path, idle=5, jobs=30) as cluster:
        async with cluster.front(STILL, short) as front:
            assert await freeze_in_bursts(cluster, front, 3) == []
        async with cluster.front(STILL, short, changed(RETRY, f"{RETRY} response-timeout")) as front:
            assert await freeze_in_bursts(cluster, front, 3 * KILLS) != []


# --- starts: which worker ------------------------------------------------------------------------


async def test_checks_of_readiness(tmp_path: Path) -> None:
    edits: dict[str, Edit] = {
        "GET /readyz": within("backend starts", changed("GET /readyz", "GET /livez")),
        "option httpchk": within("backend starts", without("option httpchk", "http-check send")),
        "http-check send": within("backend starts", without("http-check send")),
        "check inter": within("backend starts", changed("inter 500ms fastinter 200ms", "inter 1h fastinter 1h")),
    }
    async with Cluster(tmp_path, idle=6, jobs=6) as cluster:
        await asyncio.gather(cluster["a"].fill(), cluster["b"].fill())
        for name, edit in edits.items():
            async with cluster.front(edit) as front:
                if name == "http-check send":  # a worker without a token answers 403: all are taken for dead
                    assert await front.until_down("starts", "c"), name
                else:
                    assert await no_longer_asked(cluster, front, "a", "b", patience=PATIENCE) != [], name


async def test_a_worker_that_was_full_comes_back(tmp_path: Path) -> None:
    edits: list[Edit] = [lambda text: text, changed("downinter 50ms", "downinter 1h")]
    async with Cluster(tmp_path, idle=6, jobs=6) as cluster:
        for number, edit in enumerate(edits):
            async with cluster.front(edit) as front:
                await cluster["a"].fill()
                assert await front.until_down("starts", "a")
                await cluster["a"].empty()
                assert await front.until_up("starts", "a", patience=(DEADLINE, PATIENCE)[number]) == (number == 0)


async def test_calls_of_a_frozen_worker(tmp_path: Path) -> None:
    edits: dict[str, Edit] = {
        "balance leastconn": changed("balance leastconn", "balance roundrobin"),
        "no shutdown-sessions": changed(
            "rise 1\n    server a", "rise 1 on-marked-down shutdown-sessions\n    server a"
        ),
    }
    async with Cluster(tmp_path, jobs=30) as cluster:
        for name, edit in edits.items():
            async with cluster.front(within("backend starts", edit)) as front:
                wrong, _ = await frozen(cluster, front, patience=PATIENCE)
                assert wrong != [], name
            await cluster["a"].worker.until("/v1/pool", lambda answer: not answer.body["jobs"])


async def test_clients_that_hang_up(tmp_path: Path) -> None:
    in_backend = added("balance leastconn", "option abortonclose")
    for number, edits in enumerate([[without("option abortonclose")], [without("option abortonclose"), in_backend]]):
        folder = tmp_path / str(number)
        folder.mkdir()
        async with Cluster(folder, jobs=30) as cluster, cluster.front(STILL, *edits) as front:
            assert await hung_up(cluster, front, patience=PATIENCE) != [], "in a backend alone, it has no effect"


async def test_the_time_for_a_slow_start(tmp_path: Path) -> None:
    async with Cluster(tmp_path, jobs=30) as cluster:
        async with cluster.front(STILL, changed("timeout server 24s", "timeout server 1s")) as front:
            assert await slow_start(cluster, front) != []
            assert [one.error for one in front.told] == ["start_unknown"]
        await cluster.warm()
        edits = (changed("timeout server 24s", "timeout server 1s"), without("errorfile 504 start"))
        async with cluster.front(STILL, *edits) as front:
            await slow_start(cluster, front)
            assert [(one.status, one.error) for one in front.told] == [(504, "")], "it is HTML"


async def test_each_request_has_a_connection_of_its_own(tmp_path: Path) -> None:
    """Without `option httpclose`, clients of a worker that dies are told nothing."""
    edit = without("option httpclose")
    async with Cluster(tmp_path, idle=5, jobs=30) as cluster, cluster.front(edit) as front:
        assert await kill_in_bursts(cluster, front, 3 * KILLS) != []
        assert [one for one in front.told if one.status is None] != []


@pytest.mark.parametrize("line", ["option httpclose", "", "http-reuse never"])
async def test_a_client_is_told_that_no_worker_is_left(line: str, tmp_path: Path) -> None:
    """HAProxy gives no answer itself to a request for which it has used a connection again, whatever the reason."""
    edits = (STILL, changed("option httpclose", line) if line else without("option httpclose"))
    async with Cluster(tmp_path, jobs=30) as cluster, cluster.front(*edits) as front:
        for name in ("b", "c"):
            await front.ask(f"set server starts/{name} state maint")
        assert (await front.start_job(fresh("first"))).status == 201
        await use_up_idle(cluster)
        call = asyncio.create_task(front.start_job(fresh("last"), timeout=2.0))
        assert await until_waiting(cluster, 1, DEADLINE)
        await front.ask("set server starts/a state maint")
        told = await call  # the worker has said no, as no process became warm, and there is no other one
        cluster.hold.unlink()
        assert (told.status, told.error) == ((503, "no_worker") if line == "option httpclose" else (None, ""))


# --- ids of clients ------------------------------------------------------------------------------


async def test_ids_are_read(tmp_path: Path) -> None:
    async with Cluster(tmp_path, jobs=60) as cluster:
        async with cluster.front(changed("json_query('$.id')", "json_query('$.no')")) as front:
            assert await repeated(cluster, front) != []
        async with cluster.front(changed("{ var(txn.id) -m found }", "{ var(txn.no) -m found }")) as front:
            assert await repeated(cluster, front) != []
        async with cluster.front() as front:
            assert await repeated(cluster, front, send=start_in_two_parts) == []
        async with cluster.front(without("http-request wait-for-body")) as front:
            assert await repeated(cluster, front, send=start_in_two_parts) != []


async def test_an_id_comes_to_the_worker_that_has_it(tmp_path: Path) -> None:
    async with Cluster(tmp_path, jobs=20) as cluster:
        assert await _repeated_after_full(cluster) == []
        for machine in cluster.machines.values():
            await _cancel_all(machine)
        assert await _repeated_after_full(cluster, without("stick on")) != []


async def _repeated_after_full(cluster: Cluster, *edits: Edit) -> list[str]:
    """Send calls while a worker is full, and again when it is not: by the hash, some would now be its own."""
    await cluster["a"].fill()
    async with cluster.front(*edits) as front:
        assert await front.until_down("starts", "a")

        async def empty() -> None:
            await cluster["a"].empty()
            assert await front.until_up("starts", "a")

        return await repeated(cluster, front, calls=15, between=empty)


async def _cancel_all(machine: Machine) -> None:
    for job in await machine.jobs("?state=live"):
        await machine.worker.ask("DELETE", f"/v1/jobs/{job['id']}")
    await machine.worker.until("/v1/pool", lambda answer: not answer.body["jobs"])


async def test_a_full_worker_is_asked_for_its_ids(tmp_path: Path) -> None:
    async with Cluster(tmp_path, jobs=12) as cluster, cluster.front(without("option persist")) as front:

        async def fill() -> None:
            await asyncio.gather(*(machine.fill() for machine in cluster.machines.values()))
            assert await front.until_down("starts", *cluster.machines)

        assert await repeated(cluster, front, calls=9, between=fill) != []


async def test_ids_are_found_without_the_table(tmp_path: Path) -> None:
    edit = changed("balance hash var(txn.id)", "balance roundrobin")
    async with Cluster(tmp_path, jobs=40) as cluster, cluster.front(edit) as front:

        async def restart() -> None:
            await front.restart()
            # Without it, the new process would take the turns of the old one.
            await front.start_job("between", id="between")

        assert await repeated(cluster, front, between=restart) != []


# --- lookups -------------------------------------------------------------------------------------


async def test_lookups_find_their_worker(tmp_path: Path) -> None:
    lost: dict[str, Edit] = {
        "retry-on 404": changed("retry-on 404 conn-failure", "retry-on conn-failure"),
        "retries": within("backend lookups", changed("retries 16", "retries 0")),
    }
    async with Cluster(tmp_path, jobs=30) as cluster:
        async with cluster.front(without("use_backend at_%[path,url_dec")) as front:
            assert await looked_up(cluster, front) != []
        for name, edit in lost.items():
            async with cluster.front(edit) as front:
                assert await looked_up(cluster, front, between=front.restart) != [], name
        for edit, expected in ((within("backend lookups", without("stick match")), False), (lambda text: text, True)):
            async with cluster.front(edit) as front:
                assert await looked_up(cluster, front) == [], "each worker is asked in turn"
                tries = int((await front.rows())["lookups", "BACKEND"]["wretr"])
                assert (tries == 0) == expected


async def test_lookups_ask_full_workers_and_wait(tmp_path: Path) -> None:
    async with Cluster(tmp_path) as cluster:
        edit = within("backend lookups", changed("GET /livez", "GET /readyz"))
        async with cluster.front(edit) as front:
            started = await front.start_job(fresh("shown"), stays=True)
            await asyncio.gather(*(machine.fill() for machine in cluster.machines.values()))
            assert await front.until_down("lookups", *cluster.machines)
            assert (await front.get(f"/v1/jobs/{started.id}")).error == "worker_unreachable"
        async with cluster.front(changed("timeout server 11m", "timeout server 1s")) as front:
            assert (await front.get(f"/v1/jobs/{started.id}?wait={DEADLINE:g}")).error == "worker_unreachable"
        async with cluster.front() as front:
            waiting = asyncio.create_task(front.get(f"/v1/jobs/{started.id}?wait={DEADLINE:g}"))
            await asyncio.wait({waiting}, timeout=2.5)
            assert not waiting.done()
            assert (await front.request("DELETE", f"/v1/jobs/{started.id}")).status == 202
            assert (await waiting).body["state"] == "ended"


async def test_a_dead_worker_is_named(tmp_path: Path) -> None:
    retry = changed("retry-on conn-failure empty-response", "retry-on conn-failure")
    answer = without("http-response return")
    file = without("errorfile 503 lookup", "http-response return")
    async with Cluster(tmp_path, jobs=30) as cluster:
        for edit in (retry, answer, file):
            async with cluster.front(edit) as front:
                ours = await started_on(front, "a")
                waiting = asyncio.create_task(front.get(f"/v1/jobs/{ours}?wait={DEADLINE:g}"))
                assert await front.until(lambda rows: int(rows["at_a", "a"]["scur"]) == 1)
                await cluster.kill("a")
                (awaited,) = await asyncio.gather(waiting, return_exceptions=True)
                assert await front.until_down("lookups", "a")
                if edit is retry:
                    assert isinstance(awaited, aiohttp.ClientError) or awaited[0] == 502
                elif edit is answer:
                    assert (await front.get("/v1/jobs/never-seen")).status == 404
                else:
                    assert (await front.get(f"/v1/jobs/{ours}")).error == "", "it is HTML"
            await cluster["a"].start()


async def test_a_start_below_the_name_of_a_worker_is_not_repeated(tmp_path: Path) -> None:
    """Without the line, HAProxy asks the dead worker again, and says that it does not answer: and yet the job began."""
    edit = without("http-request disable-l7-retry")
    async with Cluster(tmp_path, idle=5, jobs=30) as cluster, cluster.front(edit) as front:
        for _ in range(3 * KILLS):
            keys = [fresh("below") for _ in range(10)]
            bodies = [{"metadata": {"key": key, "stays": True}} for key in keys]
            calls = [asyncio.create_task(front.request("POST", "/w/a/v1/jobs", json=body)) for body in bodies]
            await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            await cluster.kill("a")
            answers = await asyncio.gather(*calls, return_exceptions=True)
            began = {one.key for one in cluster.began()}
            refused = [
                key
                for key, answer in zip(keys, answers, strict=True)
                if not isinstance(answer, BaseException) and answer.status == 503
            ]
            if began & set(refused):
                return
            await cluster["a"].start()
            await cluster["a"].idle(5)
            assert await front.until_up("lookups", "a")
        pytest.fail("no start was told no, and ran")


async def test_the_page_of_a_worker(tmp_path: Path) -> None:
    broken: list[tuple[str, str, int]] = [
        ("http-request replace-path", "/w/a/v1/pool", 404),
        ("http-request redirect", "/w/a", 404),
        ("http-request return status 200", "/", 404),
        ("use_backend at_%[path,field(3,/)]", "/w/a/v1/pool", 404),
        ("http-request return status 404", "/v1/pool", 200),  # of one worker, as if it were all
    ]
    async with Cluster(tmp_path, idle=1) as cluster:
        for line, path, status in broken:
            async with cluster.front(without(line)) as front:
                assert (await front.get(path)).status == status, line


async def test_answers_without_their_files(tmp_path: Path) -> None:
    async with Cluster(tmp_path, idle=1) as cluster, cluster.front(without("errorfile 503 start")) as front:
        for name in cluster.machines:
            await cluster.kill(name)
        assert await front.until_down("starts", *cluster.machines)
        told = await front.start_job(fresh("html"))
        assert (told.status, told.error) == (503, ""), "it is HTML"
