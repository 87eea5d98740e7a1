"""What a worker did in its last minutes: recorded, fetched, left behind by a crash, and replayed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import commands
from running_worker import RunningWorker
from support import DEADLINE, kill

MakeApp = Callable[[str], str]

APP = """
@app.entrypoint
async def entrypoint(ctx):
    if ctx.job.metadata == "fail":
        raise ValueError("sesame-error")
    if ctx.job.metadata == "stay":
        await asyncio.sleep(3600)
    return "sesame-result"
"""


async def _greenroom(*arguments: str, env: dict[str, str] | None = None, stdin: bytes = b"") -> tuple[int, str, str]:
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), commands.PIPE)
    process = await commands.start("debug", *arguments, env={**os.environ, **(env or {})}, **streams)
    out, err = await process.communicate(stdin)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def _live_an_incident(worker: RunningWorker) -> None:
    """Jobs that end well and badly, one that is killed, one that is cancelled, and a reload."""
    await worker.start("sesame-metadata", id="good")
    await worker.report("good")
    await worker.start("fail", id="bad")
    await worker.report("bad")
    kill((await worker.start("stay", id="killed"))["pid"])
    await worker.report("killed")
    await worker.start("stay", id="cancelled")
    await worker.ask("DELETE", "/v1/jobs/cancelled?reason=nobody+is+there")
    await worker.report("cancelled")
    answer = await worker.ask("POST", "/v1/pool/reload", json={})
    assert answer.status == 200


def _lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


async def test_an_incident_is_recorded_and_replayed(make_app: MakeApp, tmp_path: Path) -> None:
    incident = tmp_path / "incident.jsonl"
    async with RunningWorker(make_app(APP), "--num-idle-processes", "2") as worker:
        await _live_an_incident(worker)
        code, out, _ = await _greenroom("record", "--url", await worker.url())
        assert code == 0
    incident.write_text(out)
    assert "sesame" not in out
    reserved = next(line for line in _lines(out) if line.get("event") == "Reserve" and line["job_id"] == "good")
    assert reserved["metadata"] == len('"sesame-metadata"') + 1, "its size alone"

    code, out, err = await _greenroom("replay", str(incident))
    assert code == 0, err
    assert "all decisions are as recorded" in err
    assert "SIGKILL from outside" in out
    assert "nobody is there (cancelled) [the job is asked to end]" in out
    assert "generation 2: PROVING → SERVING" in out

    code, out, err = await _greenroom("replay", "-", "--job", "killed", "--json", stdin=incident.read_bytes())
    *told, end = _lines(out)
    assert end == {"events": end["events"], "differs": False, "stopped": True}
    assert {line["job_id"] for line in told} <= {"killed", None}
    assert told[-1]["after"] == "ENDED"

    code, out, err = await _greenroom("replay", str(incident), "--job", "unheard-of")
    assert (code, "job unheard-of is not in the recording" in err) == (1, True)


async def test_a_core_that_decides_otherwise_is_told_where(make_app: MakeApp, tmp_path: Path) -> None:
    async with RunningWorker(make_app(APP), "--num-idle-processes", "1") as worker:
        await _live_an_incident(worker)
        _, out, _ = await _greenroom("record", "--url", await worker.url())
    # As a core would have done that sends no SIGKILL, and one that reports another cause.
    lines = out.splitlines()
    place = next(number for number, line in enumerate(lines) if '"reason":"signaled"' in line)
    lines[place] = lines[place].replace('"reason":"signaled"', '"reason":"oom_killed"')
    (tmp_path / "incident.jsonl").write_text("\n".join(lines) + "\n")
    code, out, _ = await _greenroom("replay", str(tmp_path / "incident.jsonl"))
    assert code == 1
    assert f"line {place + 1} of the recording: this version decides differently" in out
    *_, recorded, now = [line for line in out.splitlines() if "ProcessEnded" in line]
    assert "oom_killed" in recorded
    assert "signaled" in now


async def test_a_crash_leaves_the_recording_behind(make_app: MakeApp, tmp_path: Path) -> None:
    """The next worker says where it is, and an orderly end leaves nothing."""
    env = {"GREENROOM_FLIGHT_RECORDER_DIR": str(tmp_path)}
    home = tmp_path / f"greenroom-{os.geteuid()}"
    app = make_app(APP)
    async with RunningWorker(app, "--num-idle-processes", "1", env={**os.environ, **env}) as worker:
        await _live_an_incident(worker)
        await worker.start("stay", id="last")
        await worker.fetch("GET", "/v1/debug/recording")  # which writes what is younger than 25 ms
        worker.signal(signal.SIGKILL)
        await worker.exit_code()
    assert [one.name.partition("-")[0] for one in home.iterdir()] == ["live"]

    async with RunningWorker(app, "--num-idle-processes", "1", env={**os.environ, **env}) as worker:
        said = await worker.logs(r"supervisor (\d+) did not end normally.*greenroom debug record --from (\S+)")
        await worker.url()
        code, recorded, _ = await _greenroom("record", "--from", said[2])
        assert (code, Path(said[2]).name.partition("-")[0]) == (0, "crashed")
        assert (await _greenroom("record", "--crashed", env=env))[:2] == (0, recorded)
        worker.signal(signal.SIGTERM)
        assert await worker.ends() == 0
    assert [str(one) for one in home.iterdir()] == [said[2]]

    code, out, err = await _greenroom("replay", "-", stdin=recorded.encode())
    assert code == 0, err
    assert "job last: STARTING → RUNNING" in out


async def test_a_worker_without_a_recorder_says_so(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(APP), "--flight-recorder-mb", "0", "--num-idle-processes", "0") as worker:
        code, out, err = await _greenroom("record", "--url", await worker.url())
        assert (code, out) == (1, "")
        assert "nothing is recorded: flight_recorder_mb is 0" in err


async def test_a_worker_that_cannot_leave_anything_behind_records_all_the_same(
    make_app: MakeApp, tmp_path: Path
) -> None:
    """A folder that others can write in could be anybody's."""
    home = tmp_path / f"greenroom-{os.geteuid()}"
    home.mkdir(mode=0o755)
    home.chmod(0o755)
    options = ("--flight-recorder-dir", str(tmp_path), "--num-idle-processes", "1")
    async with RunningWorker(make_app(APP), *options) as worker:
        await worker.logs("cannot be used for a flight recording")
        await worker.start(None, id="one", timeout=DEADLINE)
        _, out, _ = await _greenroom("record", "--url", await worker.url())
        assert any(line.get("job_id") == "one" for line in _lines(out))
    assert list(home.iterdir()) == []


async def test_head_tells_the_kind(make_app: MakeApp) -> None:
    async with RunningWorker(make_app(APP), "--num-idle-processes", "0") as worker:
        answer = await worker.fetch("HEAD", "/v1/debug/recording")
        assert (answer.status, answer.headers["Content-Type"]) == (200, "application/jsonl")


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    """Each with its line, exit code 2, and no traceback."""
    header = json.dumps({"flight_recording": 1, "form": "objects"})
    wrong = {
        "": "no complete state",
        "{}\n": "line 1: this is not a flight recording",
        "nonsense\n": "line 1: JSON is malformed",
        header.replace("1,", "99,", 1) + "\n": "line 1: its format is 99",
        header + "\n[1, 2]\n": "line 2: it is no line of a recording",
        header + '\n{"state_after":0,"records":1}\n{"record":"Pool"}\n': "line 3: Pool: ",
        header + '\n{"record":"Subprocess","id":"1"}\n': "no complete state",
        header + "\n" + "[" * 100_000 + "\n": "line 2: ",
        header.replace("objects", "rows") + "\n[1,2.0,[0],[]]\n": "line 1: its header has no vocabulary",
    }
    for text, told in wrong.items():
        file = tmp_path / "wrong.jsonl"
        file.write_text(text)
        done = commands.run("debug", "replay", str(file))
        assert (done.returncode, done.stdout) == (2, ""), text[:200]
        assert told in done.stderr, (text[:200], done.stderr)
        assert "Traceback" not in done.stderr
    done = commands.run("debug", "replay", str(tmp_path / "absent"))
    assert (done.returncode, "No such file" in done.stderr) == (2, True)
    done = commands.run("debug", "record", "--crashed", env={**os.environ, "GREENROOM_FLIGHT_RECORDER_DIR": "/nowhere"})
    assert (done.returncode, "has no recording of a crashed worker" in done.stderr) == (1, True)
