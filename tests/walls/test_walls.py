"""What a session cannot do to the worker and to its neighbours. Each attack succeeds where the walls are off."""

from __future__ import annotations

import platform

import pytest
from walled import NOBODY, WITHOUT_CAPABILITIES, outside_sockets, walled

USERS = {"root without capabilities": WITHOUT_CAPABILITIES, "another user": NOBODY}
REFUSALS = {"EPERM", "EACCES", "ENOSYS"}
TARGETS = ("supervisor", "zygote", "sibling")
LOOKS = ("read_environment", "read_memory", "open_file", "take_file", "trace")
LIMITS = [
    *((attack, target) for attack in ("limit_files", "limit_cpu") for target in TARGETS),
    *([("limit_by_other_interface", "supervisor")] if platform.machine() == "x86_64" else []),
]

ATTACKS = [
    *((attack, target) for attack in ("send_signal", "stop", *LOOKS) for target in TARGETS),
    *LIMITS,
    ("write_heartbeat", "supervisor"),
    ("write_heartbeat", "sibling"),
]


@pytest.mark.parametrize("method", ["zygote", "spawn"])
@pytest.mark.parametrize("user", USERS)
async def test_a_session_cannot_reach_its_worker_and_its_neighbours(user: str, method: str) -> None:
    attacks = [(attack, target) for attack, target in ATTACKS if method == "zygote" or target != "zygote"]
    options = ("--start-method", method, "--walls", "require")
    with outside_sockets() as outside:
        async with walled(USERS[user], *options) as worker:
            results = {each: await worker.attack(*each) for each in [*attacks, *outside]}
            assert {each: result for each, result in results.items() if result not in REFUSALS} == {}
            pool = (await worker.ask("GET", "/v1/pool")).body
    assert (pool["walls"], pool["missing_walls"]) == (["memory", "signals", "sockets", "limits", "supervisor"], {})


@pytest.mark.parametrize("user", USERS)
async def test_without_walls_each_attack_succeeds(user: str) -> None:
    with outside_sockets() as outside:
        async with walled(USERS[user], "--walls", "off") as worker:
            results = {each: await worker.attack(*each) for each in [*ATTACKS, *outside]}
            assert {each: result for each, result in results.items() if result != "done"} == {}
            pool = (await worker.ask("GET", "/v1/pool")).body
    assert (pool["walls"], pool["missing_walls"]) == ([], {})


@pytest.mark.parametrize(("walls", "result"), [("auto", "EACCES"), ("off", "done")])
async def test_a_session_cannot_have_the_kernel_kill_the_supervisor_first(walls: str, result: str) -> None:
    async with walled(NOBODY, "--walls", walls) as worker:
        assert await worker.attack("be_killed_first", "supervisor") == result


# --- kernels that have less ----------------------------------------------------------------------


async def test_before_linux_6_12_memory_and_limits_are_walled() -> None:
    async with walled(NOBODY, env={"LANDLOCK_ABI_LIMIT": "5"}) as worker:
        assert await worker.attack("read_environment", "zygote") == "EACCES"
        assert await worker.attack("read_environment", "sibling") == "EACCES"
        assert await worker.attack("limit_files", "supervisor") == "EPERM"
        assert await worker.attack("send_signal", "sibling") == "done"
        with outside_sockets() as outside:
            assert {await worker.attack(*each) for each in outside} == {"done"}
        pool = (await worker.ask("GET", "/v1/pool")).body
        line = await worker.worker.logs("walls around sessions: .*")
    cause = "Landlock has no scopes before Linux 6.12"
    assert pool["walls"] == ["memory", "limits", "supervisor"]
    assert pool["missing_walls"] == {"signals": cause, "sockets": cause}
    text = f"these stand: memory, limits, supervisor; signals is missing: {cause}; sockets is missing: {cause}"
    assert text in line[0]


async def test_without_landlock_limits_and_the_supervisor_are_walled() -> None:
    """The filter alone, and the supervisor that is not dumpable alone."""
    attacks = [*LIMITS, *((attack, "supervisor") for attack in LOOKS)]
    async with walled(NOBODY, env={"LANDLOCK_ABI_LIMIT": "0"}) as worker:
        results = {each: await worker.attack(*each) for each in attacks}
        assert {each: result for each, result in results.items() if result not in REFUSALS} == {}
        assert await worker.attack("read_environment", "zygote") == "done"
        pool = (await worker.ask("GET", "/v1/pool")).body
    assert pool["walls"] == ["limits", "supervisor"]
    assert pool["missing_walls"].keys() == {"memory", "signals", "sockets"}
