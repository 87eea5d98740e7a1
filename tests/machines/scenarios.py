"""What happens to workers behind HAProxy, and what is wrong afterwards: counts of answers and runs, and no times.

Each scenario returns what is wrong, as texts. With the file that `greenroom init haproxy` writes, nothing is. When a
line of it is missing or another, something must be: ``patience`` bounds the wait for what then never comes.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from support import DEADLINE

from .audit import Told
from .cluster import Cluster, Edit, Front, changed, within

__all__ = [
    "BURST",
    "STILL",
    "at_once",
    "beside_full",
    "flow",
    "freeze_in_bursts",
    "fresh",
    "frozen",
    "given_up",
    "hung_up",
    "kill_in_bursts",
    "looked_up",
    "no_longer_asked",
    "repeated",
    "slow_start",
    "start_head",
    "start_in_two_parts",
    "started_on",
    "unlike",
    "until_waiting",
    "use_up_idle",
]

PACE = 0.04
"""Seconds between two calls: 25 in a second."""
SESSION = 0.35
"""Seconds that a session of a flow takes."""
BURST = 15
KILLS = 14
MOST_LATE = 3
"""Most calls that a frozen worker holds."""
UNKNOWN = "start_unknown"

STILL: Edit = within(
    "backend starts",
    changed("inter 500ms fastinter 200ms downinter 50ms", "inter 1h fastinter 1h downinter 1h"),
    changed("GET /readyz", "GET /livez"),
)
"""HAProxy learns nothing by its checks: each worker is taken for ready. So each "no" is met by a further try."""

_numbers = itertools.count()


def fresh(name: str) -> str:
    """Return a key that no other call has."""
    return f"{name}-{next(_numbers)}"


def unlike(told: Iterable[Told], status: int) -> list[str]:
    """Return the calls that were told something else, as texts."""
    return [f"{one.key} was told {one.status} {one.error}" for one in told if one.status != status]


async def started_on(front: Front, name: str, *, with_id: bool = False) -> str:
    """Start sessions until a worker has one, and return its id."""
    async with asyncio.timeout(DEADLINE):
        while True:
            key = fresh("on")
            told = await front.start_job(key, id=key if with_id else None, stays=True)
            assert told.is_accepted, told
            if told.worker == name:
                return told.id


# --- refusals ------------------------------------------------------------------------------------


async def beside_full(front: Front, *, with_id: bool = False, pad: int = 0, calls: int = 6) -> list[str]:
    """Start sessions one after the other, while some workers are full or dead and others are not."""
    told = []
    for _ in range(calls):
        key = fresh("beside")
        told.append(await front.start_job(key, id=key if with_id else None, pad=pad))
    return unlike(told, 201)


async def no_longer_asked(cluster: Cluster, front: Front, *names: str, patience: float = DEADLINE) -> list[str]:
    """Find out whether full workers are left alone, once HAProxy can know that they are full."""
    if not await front.until_down("starts", *names, patience=patience):
        return [f"{names} are full, and are still asked"]
    before = [await cluster.turned_down(name) for name in names]
    wrong = await beside_full(front)
    after = [await cluster.turned_down(name) for name in names]
    # Refusals of more than a minute ago are no longer counted.
    is_asked = any([now > then for now, then in zip(after, before, strict=True)])
    return wrong + ([f"{names} refused {before} before, and {after} after"] if is_asked else [])


async def at_once(cluster: Cluster, front: Front, *, calls: int = 500, slots: int = 30) -> list[str]:
    """Ask for many sessions at once, of which few fit."""
    told = await asyncio.gather(*(front.start_job(fresh("burst"), stays=True) for _ in range(calls)))
    counts = Counter(one.status for one in told)
    wrong = [] if counts == {201: slots, 503: calls - slots} else [f"the answers were {dict(counts)}"]
    return wrong + await cluster.faults(front)


# --- faults --------------------------------------------------------------------------------------


async def flow(front: Front, calls: int, **asked: Any) -> list[Told]:
    """Ask for 25 sessions in a second. A machine that is busy asks for fewer."""
    tasks = []
    for _ in range(calls):
        tasks.append(asyncio.create_task(front.start_job(fresh("flow"), **{"seconds": SESSION, **asked})))
        await asyncio.sleep(PACE)
    return list(await asyncio.gather(*tasks))


async def frozen(cluster: Cluster, front: Front, *, patience: float = DEADLINE) -> tuple[list[str], list[Told]]:
    """Stop a worker until HAProxy takes it out. Return what is wrong, and the calls that it held."""
    tasks = []
    await front.until_sure("starts", "a")
    cluster["a"].worker.signal(signal.SIGSTOP)
    try:
        async with asyncio.timeout(DEADLINE):
            while await front.is_up("starts", "a"):
                tasks.append(asyncio.create_task(front.start_job(fresh("frozen"), seconds=0.1)))
                await asyncio.sleep(PACE)
        held = await _undone(tasks, MOST_LATE, patience)
    finally:
        cluster["a"].worker.signal(signal.SIGCONT)
    told = await asyncio.gather(*tasks)
    late = [task.result() for task in held]
    wrong = [] if len(held) <= MOST_LATE else [f"{len(held)} calls waited for the frozen worker"]
    return wrong + unlike(told, 201) + await cluster.faults(front), late


async def _undone(tasks: list[asyncio.Task[Told]], most: int, patience: float) -> list[asyncio.Task[Told]]:
    """Wait until at most so many calls have no answer, and return these."""
    give_up = time.monotonic() + patience
    while len(left := [task for task in tasks if not task.done()]) > most and time.monotonic() < give_up:
        await asyncio.sleep(0.02)
    return left


async def given_up(cluster: Cluster, front: Front) -> list[str]:
    """Stop all workers until HAProxy has given up their calls, and let them go on. No such call may run."""
    for machine in cluster.machines.values():
        machine.worker.signal(signal.SIGSTOP)
    try:
        told = await asyncio.gather(*(front.start_job(fresh("given-up")) for _ in range(6)))
    finally:
        for machine in cluster.machines.values():
            machine.worker.signal(signal.SIGCONT)
    wrong = [f"{one.key} was told {one.status} {one.error}" for one in told if one.error != UNKNOWN]
    return wrong + await cluster.faults(front)


async def kill_in_bursts(cluster: Cluster, front: Front, kills: int = KILLS) -> list[str]:
    """Kill workers in the midst of bursts of calls. End with the first fault."""
    for name in itertools.islice(itertools.cycle(cluster.machines), kills):
        tasks = [asyncio.create_task(front.start_job(fresh("burst"), seconds=SESSION)) for _ in range(BURST)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        await cluster.kill(name)
        told = await asyncio.gather(*tasks)
        wrong = [f"{one.key} was told {one.status}" for one in told if one.is_unknown and one.error != UNKNOWN]
        wrong += await cluster.faults(front)
        if wrong:
            return wrong
        await cluster[name].start()
        await cluster.warm()
        await front.until_up("starts", *cluster.machines)
    return []


async def freeze_in_bursts(cluster: Cluster, front: Front, freezes: int = KILLS) -> list[str]:
    """Stop workers in the midst of bursts, until HAProxy has given up their calls. Return those that began twice.

    A session that has begun, and whose client was told that nobody knows, is no fault here. End with the first fault.
    """
    for name in itertools.islice(itertools.cycle(cluster.machines), freezes):
        tasks = [asyncio.create_task(front.start_job(fresh("burst"), seconds=SESSION)) for _ in range(BURST)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        cluster[name].worker.signal(signal.SIGSTOP)
        try:
            await asyncio.gather(*tasks)
        finally:
            cluster[name].worker.signal(signal.SIGCONT)
        await cluster.warm()
        counts = Counter(one.key for one in cluster.began())
        twice = [key for key, count in counts.items() if count > 1]
        if twice:
            return twice
    return []


# --- clients that hang up, and slow starts -------------------------------------------------------


async def _waiting(cluster: Cluster) -> int:
    """Return how many calls wait at the workers for a process."""
    answers = [await machine.worker.get("/v1/pool") for machine in cluster.machines.values()]
    return sum(answer.body["waiting"] for answer in answers)


async def until_waiting(cluster: Cluster, count: int, patience: float) -> bool:
    """Wait until so many calls wait for a process. Return false if it does not come to that in time."""
    give_up = time.monotonic() + patience
    while await _waiting(cluster) != count:
        if time.monotonic() > give_up:
            return False
        await asyncio.sleep(0.02)
    return True


async def use_up_idle(cluster: Cluster) -> None:
    """Have no idle process left in any worker, and none to come until ``cluster.hold`` is removed."""
    for machine in cluster.machines.values():  # none may be on its way, which would not see the file
        await machine.worker.until("/v1/pool", lambda answer: answer.body["idle"] and not answer.body["warming"])
    cluster.hold.touch()
    for machine in cluster.machines.values():
        while (await machine.worker.get("/v1/pool")).body["idle"]:
            await machine.worker.start({"key": fresh("used"), "stays": True})


async def hung_up(cluster: Cluster, front: Front, *, calls: int = 4, patience: float = DEADLINE) -> list[str]:
    """Have clients hang up while their calls wait for a process. No session may be left behind.

    The file must have been changed by :data:`STILL`: workers without an idle process are not ready.
    """
    await use_up_idle(cluster)
    keys = [fresh("hung-up") for _ in range(calls)]
    try:
        writers = [await send_start(front.port, key) for key in keys]
        assert await until_waiting(cluster, calls, DEADLINE), "the calls have not reached the workers"
        for writer in writers:
            writer.close()
            await writer.wait_closed()
        has_noticed = await until_waiting(cluster, 0, patience)
    finally:
        cluster.hold.unlink()
    wrong = [] if has_noticed else ["calls still wait whose clients have hung up"]
    await cluster.warm()
    wrong += await cluster.faults(front)
    left = {one.key for one in cluster.began()} & set(keys)
    return wrong + [f"{key} ran, and nobody was there" for key in sorted(left)]


async def send_start(port: int, key: str) -> asyncio.StreamWriter:
    """Send a call as a client that can hang up before its answer."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps({"metadata": {"key": key, "stays": True}}).encode()
    writer.write(start_head(len(body)) + body)
    await writer.drain()
    return writer


def start_head(length: int) -> bytes:
    lines = ["POST /v1/jobs HTTP/1.1", "Host: localhost", "Content-Type: application/json", f"Content-Length: {length}"]
    return "\r\n".join([*lines, "", ""]).encode()


async def slow_start(cluster: Cluster, front: Front, *, seconds: float = 2.5) -> list[str]:
    """Have a call wait for a process for some time. The file must have been changed by :data:`STILL`."""
    await use_up_idle(cluster)
    call = asyncio.create_task(front.start_job(fresh("slow"), stays=True))
    try:
        await asyncio.wait({call}, timeout=seconds)
    finally:
        cluster.hold.unlink()
    return unlike([await call], 201) + await cluster.faults(front)


# --- ids of clients ------------------------------------------------------------------------------


async def repeated(
    cluster: Cluster,
    front: Front,
    *,
    calls: int = 20,
    between: Callable[[], Awaitable[object]] | None = None,
    send: Callable[[Front, str], Awaitable[Told]] | None = None,
) -> list[str]:
    """Send each call twice under one id of the client's, and do something between the two."""
    send = send or _start_with_id
    keys = [fresh("webhook") for _ in range(calls)]
    first = [await send(front, key) for key in keys]
    if between is not None:
        await between()
    again = [await send(front, key) for key in keys]
    return unlike(first, 201) + unlike(again, 409) + await cluster.faults(front)


async def _start_with_id(front: Front, key: str) -> Told:
    return await front.start_job(key, id=key, stays=True)


async def start_in_two_parts(front: Front, key: str) -> Told:
    """Send a call whose body comes when HAProxy has seen its headers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
    body = json.dumps({"id": key, "metadata": {"key": key, "stays": True}}).encode()
    seen = int((await front.rows())["greenroom", "FRONTEND"]["req_tot"])
    sent = time.monotonic()
    writer.write(start_head(len(body)))
    assert await front.until(lambda rows: int(rows["greenroom", "FRONTEND"]["req_tot"]) > seen)
    writer.write(body)
    async with asyncio.timeout(DEADLINE):
        head = await reader.readuntil(b"\r\n\r\n")
        (length,) = re.findall(rb"(?im)^content-length: (\d+)", head)
        answer = json.loads(await reader.readexactly(int(length)))
    writer.close()
    await writer.wait_closed()
    told = Told(key, int(head.split()[1]), answer, None, sent, time.monotonic())
    front.told.append(told)
    return told


# --- lookups -------------------------------------------------------------------------------------


async def looked_up(
    cluster: Cluster,
    front: Front,
    *,
    calls: int = 6,
    between: Callable[[], Awaitable[object]] | None = None,
) -> list[str]:
    """Show, await and cancel sessions with our ids and with those of clients."""
    ours = [await front.start_job(fresh("ours"), stays=True) for _ in range(calls)]
    theirs = [await front.start_job(key, id=key, stays=True) for key in [fresh("theirs") for _ in range(calls)]]
    told = [*ours, *theirs]
    wrong = unlike(told, 201)
    if wrong:
        return wrong
    if between is not None:
        await between()
    for one in told:
        wrong += await _lookup_faults(front, one)
    return wrong + await cluster.faults(front)


async def _lookup_faults(front: Front, one: Told) -> list[str]:
    path = f"/v1/jobs/{one.id}"
    shown = await front.get(path)
    if (shown.status, shown.headers.get("Greenroom-Worker")) != (200, one.worker) or shown.body["id"] != one.id:
        return [f"{path} was shown as {shown.status} {shown.error}"]
    waiting = asyncio.create_task(front.get(f"{path}?wait={DEADLINE:g}"))
    cancelled = await front.request("DELETE", path)
    ended = await waiting
    if (cancelled.status, ended.status) != (202, 200) or ended.body["state"] != "ended":
        return [f"{path} was cancelled with {cancelled.status} {cancelled.error}, and awaited with {ended.status}"]
    return []
