"""Reports of a session's end that the kernel contradicts. The walls are off, so that a session can send them at all."""

from __future__ import annotations

from typing import Any

from walled import NOBODY, Walled, walled


async def test_a_forged_report_of_an_end_changes_nothing() -> None:
    async with walled(NOBODY, "--walls", "off") as worker:
        victim = await _victim(worker)
        zygote = (await worker.worker.ask("GET", "/v1/pool")).body["zygote_pid"]
        assert await worker.attack("forge_ends", victim["id"]) == "done"
        await worker.worker.logs(f"the zygote reports Exited for process {victim['id']}, but the process lives")
        await worker.worker.logs(f"the zygote reports Reaped for process {victim['id']}, but the process lives")
        assert await _victim(worker) == victim
        # The true report of its end is believed.
        await worker.worker.ask("DELETE", f"/v1/jobs/{victim['job_id']}")
        shown = await worker.worker.ask("GET", f"/v1/jobs/{victim['job_id']}?wait=60")
        assert shown.body["report"]["reason"] == "cancelled"
        assert (await worker.worker.ask("GET", "/v1/pool")).body["zygote_pid"] == zygote


async def test_behind_walls_nobody_gets_the_channel() -> None:
    async with walled(NOBODY, "--walls", "require") as worker:
        victim = await _victim(worker)
        assert await worker.attack("forge_ends", victim["id"]) in ("EPERM", "EACCES")
        assert await _victim(worker) == victim


async def _victim(worker: Walled) -> dict[str, Any]:
    pool = (await worker.worker.ask("GET", "/v1/pool")).body
    (running,) = [each for each in pool["processes"] if each["state"] == "running"]
    return {name: running[name] for name in ("id", "pid", "job_id", "state")}
