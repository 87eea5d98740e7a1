"""The commands against several real workers: lists that are merged, jobs that are found, starts, drains and tokens."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from client_commands import ask, ask_all, greenroom, nobody_listening
from faults.stage import Stage
from server.running_worker import RunningWorker

from greenroom.cli.client import Client
from greenroom.cli.connection import Connections
from greenroom.cli.job_requests import in_order
from greenroom.cli.workers import Workers
from greenroom.server.worker_identity import WorkerIdentity

MakeApp = Callable[[str], str]

TOKEN = "a-token-of-this-length"
APP = """
@app.entrypoint
async def entrypoint(ctx):
    note("start", ctx.job.id)
    print("words of", ctx.job.metadata, flush=True)
    if ctx.job.metadata == "raise":
        raise ValueError("why")
    if "stay" in (ctx.job.metadata or ""):
        await on_stage("job", ctx.job.id)
"""


@asynccontextmanager
async def two_workers(
    make_app: MakeApp, *options: str
) -> AsyncIterator[tuple[Stage, str, RunningWorker, RunningWorker]]:
    async with Stage(make_app) as stage:
        app = stage.app(APP)
        options = ("--num-idle-processes", "1", *options)
        async with (
            RunningWorker(app, "--worker-name", "blue", *options) as blue,
            RunningWorker(app, "--worker-name", "red", *options) as red,
        ):
            yield stage, app, blue, red


async def staying(stage: Stage, worker: RunningWorker, job_id: str | None = None) -> str:
    """Start a job that goes on, and return its id."""
    known = {} if job_id is None else {"id": job_id}
    job: str = (await worker.start("stay", **known))["id"]
    await stage.next("job")
    return job


async def are_ready(*workers: RunningWorker) -> list[str]:
    """Wait until a job could start on each worker, and return their addresses."""
    for worker in workers:
        await worker.until("/readyz", lambda answer: answer.status == 200)
    return [await worker.url() for worker in workers]


# --- lists ---------------------------------------------------------------------------------------


async def test_lists_of_several_workers_are_merged(make_app: MakeApp) -> None:
    async with two_workers(make_app) as (stage, _, blue, red):
        live = await staying(stage, blue)
        bad = (await red.start("raise"))["id"]
        await red.report(bad)
        await staying(stage, red, "call")
        both = await are_ready(blue, red)

        alone = await greenroom("jobs", "list", "--url", both[0])
        assert (alone.code, alone.err, "WORKER" in alone.out) == (0, "", False)
        listed = await greenroom("jobs", "list", "--url", both[0], "--url", both[1])
        assert (listed.code, listed.err) == (0, "")
        head, *rows = [line.split()[:2] for line in listed.out.splitlines()]
        assert head == ["WORKER", "ID"]
        assert rows == [["red", bad], ["blue", live], ["red", "call"]]

        with nobody_listening() as silent:
            urls, line = [both[0], silent, both[1]], f"{silent}: no answer: connection refused\n"
            listed = await ask_all(urls, "jobs", "list", "--json")
            assert (listed.code, listed.err) == (1, line)
            assert [[job["worker"], job["id"]] for job in listed.json["jobs"]] == rows
            assert listed.json["workers"] == [
                {"worker": "blue", "url": urls[0], "error": None},
                {"worker": silent, "url": silent, "error": "no answer: connection refused"},
                {"worker": "red", "url": urls[2], "error": None},
            ]
            latest = await ask_all(urls, "jobs", "list", "--json", "--limit", "1")
            assert [job["id"] for job in latest.json["jobs"]] == ["call"]

            found = await ask_all(urls, "jobs", "find", "state:live")
            assert (found.code, found.err) == (1, line)
            assert [row.split()[:2] for row in found.out.splitlines()[1:]] == [["blue", live], ["red", "call"]]

            problems = await ask_all(urls, "problems")
            assert (problems.code, problems.err) == (1, line)
            assert re.search(rf"^    [0-9: +-]+  red  job {bad} .*ValueError", problems.out, re.MULTILINE)
            as_json = (await ask_all(both, "problems", "--json")).json
            assert [one["worker"] for one in as_json["failures"][0]["latest"]] == ["red"]

            status = await ask_all(urls, "status")
            assert (status.code, status.err) == (1, line)
            assert re.search(r"^blue +1 of 100 +\d of 1 .* ready$", status.out, re.MULTILINE)
            assert re.search(r"^red +1 of 100 +\d of 1 .* ready$", status.out, re.MULTILINE)

            once = await ask_all(urls, "top", "--once")
            assert once.code == 1
            assert once.out.startswith("Greenroom  3 workers, 1 without an answer")
            assert re.search("^blue +ready +jobs 1/100", once.out, re.MULTILINE)
            assert re.search(f"^{silent}  no answer since [0-9:]+: connection refused$", once.out, re.MULTILINE)
            assert re.search("^call +red +http +running", once.out, re.MULTILINE)


@pytest.mark.more
async def test_lists_of_several_workers_as_json(make_app: MakeApp) -> None:
    async with two_workers(make_app, "--max-jobs", "1") as (stage, _, blue, red):
        live = await staying(stage, blue)
        both = [await blue.url(), *await are_ready(red)]
        status = await ask_all(both, "status", "--json")
        assert status.code == 1  # one is full
        shown = [(one["worker"], one["ready"], one["reason"], one["error"]) for one in status.json["workers"]]
        assert shown == [("blue", False, "full", None), ("red", True, None, None)]
        with nobody_listening() as silent:
            top = await ask_all([*both, silent], "top", "--json")
        assert (top.code, top.err) == (1, f"{silent}: no answer: connection refused\n")
        workers = [(one["worker"], one["ready"], one["capacity"]) for one in top.json["workers"]]
        assert workers == [("blue", False, 1), ("red", True, 1), (silent, None, None)]
        assert [(one["worker"], one["id"]) for one in top.json["sessions"]] == [("blue", live)]
        assert {one["worker"] for one in top.json["processes"]} == {"blue", "red"}
        # A search that cannot be parsed is told once, and not for each worker.
        wrong = await ask_all(both, "jobs", "find", "since:2x")
        assert (wrong.code, wrong.out, wrong.err.count("'2x' is no time")) == (2, "", 1)
        nothing = await ask_all(both, "jobs", "find", "nowhere")
        assert (nothing.code, nothing.err) == (1, "no job matches\n")


async def test_no_worker_answers() -> None:
    with nobody_listening() as first, nobody_listening() as second:
        done = await ask_all([first, second], "jobs", "list")
        assert (done.code, done.out) == (5, "")
        assert done.err.splitlines()[1:] == [f"    {url}: no answer: connection refused" for url in (first, second)]


# --- one job -------------------------------------------------------------------------------------


@pytest.mark.more
async def test_a_job_is_found_on_its_worker(make_app: MakeApp) -> None:
    async with two_workers(make_app, "--num-idle-processes", "2") as (stage, _, blue, red):
        of_blue = await staying(stage, blue)
        await staying(stage, red, "call")
        both = [await blue.url(), await red.url()]
        for job_id, worker in ((of_blue, "blue"), ("call", "red")):
            has_it = blue if worker == "blue" else red
            await has_it.until(f"/v1/jobs/{job_id}/log", lambda answer: "words of stay" in answer.text)
            shown = await ask_all(both, "jobs", "show", job_id)
            assert (shown.code, shown.err) == (0, "")
            assert re.search(f"^worker +{worker}$", shown.out, re.MULTILINE)
            assert (await ask_all(both, "jobs", "show", job_id, "--json")).json["worker"] == worker
            logs = await ask_all(both, "jobs", "logs", job_id)
            assert (logs.code, "words of stay" in logs.out) == (0, True)
            assert (await ask_all(both, "jobs", "stack", job_id, "--json")).json["worker"] == worker

        with nobody_listening() as silent:
            shown = await ask_all([silent, *both], "jobs", "show", "call")
            assert (shown.code, shown.err) == (0, "")
            unknown = await ask_all([silent, *both], "jobs", "cancel", "no-such")
            assert (unknown.code, unknown.out) == (5, "")
            assert "no worker that answered has a job 'no-such'" in unknown.err
            assert f"    {silent}: no answer: connection refused" in unknown.err.splitlines()

        waiting = asyncio.create_task(ask_all(both, "jobs", "show", "call", "--wait", "60"))
        cancelled = await ask_all(both, "jobs", "cancel", "call")
        assert (cancelled.code, cancelled.out) == (0, "job call is being cancelled on worker red\n")
        assert "cancelled" in (await waiting).out
        again = await ask_all(both, "jobs", "cancel", "call")
        assert (again.code, "had already ended on worker red" in again.out) == (1, True)


@pytest.mark.more
async def test_a_job_that_no_worker_or_more_than_one_has(make_app: MakeApp) -> None:
    async with two_workers(make_app, "--num-idle-processes", "2") as (stage, _, blue, red):
        both = [await blue.url(), await red.url()]
        for job_id, says in (
            ("no-such", "no worker has a job 'no-such', or its report is no longer kept"),
            (WorkerIdentity("blue").new_job_id(), "is lost: an earlier start of worker blue had made it"),
            (WorkerIdentity("green").new_job_id(), "belongs to worker 'green', which is none of these"),
        ):
            for command in ("show", "logs", "stack", "cancel"):
                done = await ask_all(both, "jobs", command, job_id)
                assert (done.code, done.out) == (1, "")
                assert says in done.err
        elsewhere = await ask(red, "jobs", "show", await staying(stage, blue))
        assert elsewhere.code == 1
        assert "belongs to worker 'blue'; this one is 'red'. Set the address of that worker with --url" in elsewhere.err

        for worker in (blue, red):
            await staying(stage, worker, "twice")
        done = await ask_all(both, "jobs", "cancel", "twice")
        assert (done.code, done.out) == (1, "")
        assert f"2 workers have a job 'twice': blue ({both[0]}), red ({both[1]}). Name one of them" in done.err
        assert (await ask_all(both, "jobs", "cancel", "twice", "--url", both[1])).code == 0
        assert (await ask(blue, "jobs", "show", "twice", "--json")).json["state"] == "running"


# --- starts --------------------------------------------------------------------------------------


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that answers each request so, and closes its connection; and the headers that came."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", heads


async def test_a_job_is_started_on_the_next_worker_only_if_it_surely_does_not_run(make_app: MakeApp) -> None:
    foreign = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\nContent-Type: text/html\r\n\r\n<html"
    async with two_workers(make_app, "--max-jobs", "1") as (stage, _, blue, red):
        both = await are_ready(blue, red)
        for answer in (b"", foreign):  # a connection that breaks, and a 503 that promises nothing
            async with answering(answer) as (broken, heads):
                done = await ask_all([broken, *both], "jobs", "run")
            assert (done.code, done.out, len(heads)) == (5, "", 1)
            assert "may have been started there, so no other worker is asked" in done.err
        assert stage.starts() == {}

        run = ("jobs", "run", "--metadata", '"stay"')
        with nobody_listening() as silent:
            first = await ask_all([silent, *both], *run)
        assert (first.code, first.err) == (0, f"{silent}: no answer: connection refused\n")
        assert " on worker blue (" in first.out
        second = await ask_all(both, *run, "--json")  # blue is full
        assert (second.code, second.json["worker"]) == (0, "red")
        assert second.err.startswith("blue: rejected (full): ")
        third = await ask_all(both, *run)
        assert (third.code, third.out) == (1, "")
        assert [line.partition(": ")[0] for line in third.err.splitlines()[:2]] == ["blue", "red"]
        assert "none of 2 workers has taken it" in third.err
        # A refusal for another reason is the same on each worker, or needs a decision.
        taken = await ask_all([both[1], both[0]], *run, "--id", second.json["id"])
        assert (taken.code, "red: " in taken.err, "blue" in taken.err) == (1, True, False)
        for _ in range(2):
            await stage.next("job")
        assert sorted(stage.starts().values()) == [1, 1]


# --- acts on several workers ---------------------------------------------------------------------


@pytest.mark.parametrize("command", ["drain", "reload", "resize 2", "token", "page --no-open", "debug record"])
async def test_a_command_for_one_worker_acts_on_none_of_several(command: str) -> None:
    with nobody_listening() as first, nobody_listening() as second:
        done = await ask_all([first, second], *command.split())
        assert (done.code, done.out) == (2, "")
        assert f"the command is for one worker, but 2 are given: {first}, {second}. Name one" in done.err
        assert ("with --all" in done.err) == (command.split()[0] in ("drain", "reload", "resize"))


@pytest.mark.more
async def test_all_workers_are_reloaded_resized_and_drained_in_turn(make_app: MakeApp) -> None:
    async with two_workers(make_app) as (stage, app, blue, red):
        both, file = await are_ready(blue, red), Path(app.rpartition(":")[0])
        source, before = file.read_text(), (await red.get("/v1/pool")).body["generation"]
        file.write_text(f"{source}\nmistake\n")
        failed = await ask_all(both, "reload", "--all")
        assert (failed.code, failed.out) == (1, "")
        assert "error: blue: " in failed.err
        assert "NameError" in failed.err
        assert "    unchanged, since this failed: red" in failed.err.splitlines()
        file.write_text(source)
        with nobody_listening() as silent:
            unchanged = await ask_all([*both, silent], "reload", "--all")
        assert (unchanged.code, unchanged.out) == (5, "")
        assert "nothing was changed, since not all workers answer" in unchanged.err
        assert (await red.get("/v1/pool")).body["generation"] == before
        reloaded = await ask_all(both, "reload", "--all")
        assert reloaded.code == 0
        assert re.fullmatch(r"(?:(?:blue|red): generation \d+ serves from now on\n){2}", reloaded.out)
        resized = await ask_all(both, "resize", "2", "--all", "--json")
        assert [(one["worker"], one["num_idle_processes"]) for one in resized.json["workers"]] == [
            ("blue", 2),
            ("red", 2),
        ]
        await staying(stage, red)
        drained = await ask_all(both, "drain", "--all", "--wait", "--timeout", "0.1", "--json")
        assert drained.code == 1  # a job was cut short
        assert [(one["worker"], len(one["cut_short"])) for one in drained.json["workers"]] == [("blue", 0), ("red", 1)]
        assert drained.err.splitlines()[0] == "blue: draining: 0 jobs may go on for 0.1 s"
        assert [await blue.exit_code(), await red.exit_code()] == [0, 0]


# --- tokens --------------------------------------------------------------------------------------


@pytest.mark.more
async def test_a_worker_gets_its_own_token_and_no_other(make_app: MakeApp) -> None:
    async with two_workers(make_app, "--token", "required") as (_, _, blue, red):
        both = [await blue.url(), await red.url()]
        own = {(await ask(worker, "token")).out for worker in (blue, red)}
        assert len(own) == 2
        async with answering(b"") as (other, heads):
            done = await ask_all([*both, other], "jobs", "list")
            assert done.code == 1
            assert done.err.startswith(f"{other}: no answer: the connection was lost: ")
            assert heads
            assert not [head for head in heads if b"authorization" in head.lower()]
            heads.clear()
            given = await ask_all([*both, other], "jobs", "list", GREENROOM_TOKEN=TOKEN)
            assert (given.code, given.out) == (1, "")
            assert given.err.count("does not accept this token") == 2
            assert [head for head in heads if f"Bearer {TOKEN}".encode() in head]


# --- sums ----------------------------------------------------------------------------------------


def urls_of(*texts: str) -> list[str]:
    return [connection.url for connection in Connections.of(texts, "off", None).each]


def test_addresses_are_divided_by_commas_and_taken_once() -> None:
    assert urls_of("http://a:1") == ["http://a:1"]
    assert urls_of("http://a:1,", "http://b:2/w/b/ , http://c", "http://a:1/") == [
        "http://a:1",
        "http://b:2/w/b/",
        "http://c",
    ]


def test_a_worker_is_named_by_its_address_if_its_name_is_not_its_own() -> None:
    clients = [Client(f"http://{host}", None) for host in "abcd"]
    workers = Workers(clients)
    clients[0].worker = clients[1].worker = "same"
    clients[2].worker = "other"
    assert [workers.name_of(client) for client in clients] == ["http://a", "http://b", "other", "http://d"]
    assert workers.marked(clients[2], {"id": "call"}) == {"worker": "other", "id": "call"}
    assert Workers(clients[:1]).marked(clients[0], {"id": "call"}) == {"id": "call"}


def test_jobs_of_several_workers_are_in_the_order_of_their_ends_and_acceptances() -> None:
    def job(name: str, state: str, *times: float | None) -> dict[str, object]:
        return {"id": name, "state": state} | dict(zip(("accepted", "started", "ended"), times, strict=True))

    jobs = [
        job("second live", "running", 5.0, 5.0, None),
        job("last ended", "ended", 1.0, 2.0, 9.0),
        job("first live", "waiting", 4.0, None, None),
        job("lost with its worker", "ended", 3.0, None, None),
    ]
    names = ["lost with its worker", "last ended", "first live", "second live"]
    assert [one["id"] for one in in_order(jobs)] == names
