"""The parts of the demo, and what it measures: the memory of calls that share a model."""

import io
import re
import subprocess

import pytest
from rich.console import Console
from support import DEADLINE, eventually

from examples.call_monitor.demo.closing import print_closing
from examples.call_monitor.demo.director import Ending
from examples.call_monitor.demo.memory import Memory, memory_of
from examples.call_monitor.demo.options import AGENT, DemoOptions, parse
from examples.call_monitor.demo.rows import Ruler, call_line
from examples.call_monitor.demo.scene import Call, Scene
from greenroom import ProcessPool

# The agent in a pool


async def test_model_is_shared_by_all_calls_and_costs_each_little() -> None:
    """A running call has its own copy of a small part of what it uses; the rest is the zygote's."""
    async with ProcessPool(f"{AGENT}:app", num_idle_processes=2) as pool:
        handles = [await pool.launch({"caller": f"+{n}", "speed": 2.0}, timeout=DEADLINE) for n in range(6)]
        zygote = pool.stats().zygote_pid
        assert zygote is not None
        whole = measure(zygote)
        # Early in a call, it has used little of anything.
        await eventually(lambda: all(uses_a_third(handle.pid, whole) for handle in handles), "calls that use the model")
        calls = [measure(handle.pid) for handle in handles if handle.pid is not None]
        reports = [await handle.wait() for handle in handles]
    assert [report.outcome for report in reports] == ["succeeded"] * 6
    assert whole.resident > 50, "the model and its runtime are not loaded"
    assert max(call.private for call in calls) < whole.resident / 5
    assert min(call.resident for call in calls) > whole.resident / 3, "the calls do not use what is shared"


def uses_a_third(pid: int | None, whole: Memory) -> bool:
    return pid is not None and measure(pid).resident > whole.resident / 3


def measure(pid: int) -> Memory:
    memory = memory_of(pid)
    assert memory is not None
    return memory


# How it is drawn


def seen_call(caller: str = "+15550100") -> Call:
    call = Call(caller, 10.0)
    call.answered({"id": "a", "pid": 4242, "launch_type": "warm", "start_ms": 3.2, "state": "running"}, 0.0)
    call.spurts.append((2.0, 6.0))
    call.measured(Memory(5.5, 7.5, 58.0))
    return call


@pytest.mark.parametrize("width", [20, 38, 45, 60, 80, 120, 300])
def test_line_of_a_call_fills_its_width(width: int) -> None:
    line = call_line(seen_call(), Ruler(10.0, 1.0), width)
    assert line.cell_len == width


def test_line_of_talk_shows_when_the_caller_talked() -> None:
    call = seen_call()
    call.ended({"outcome": "succeeded", "reason": "completed", "result": {"frames": 500}})
    line = call_line(call, Ruler(20.0, 1.0), 58).plain
    bar = max(re.findall(r"[━─·]+ *", line), key=len)
    assert re.fullmatch(r"─+━+─+ +", bar), "silence, talk, silence, and nothing after the end"


@pytest.mark.parametrize("width", [40, 50, 70, 80, 200])
def test_closing_table_fits_the_terminal(width: int) -> None:
    scene = Scene([seen_call(), Call("+15550101", 10.0)], print)
    output = io.StringIO()
    print_closing(Console(file=output, width=width), DemoOptions(), Ending(scene, 0, interrupted=True))
    printed = output.getvalue()
    assert max(map(len, printed.splitlines())) <= width
    assert "…" not in printed, "a figure was cut off"


# What a call's end means


def test_memory_of_a_process_that_is_gone() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert memory_of(gone.pid) is None


@pytest.mark.parametrize(
    ("outcome", "reason", "fate"),
    [
        ("succeeded", "completed", "served"),
        ("succeeded", "signaled", "served"),
        ("killed", "signaled", "killed from outside"),
        ("cancelled", "cancelled", "killed from outside"),
        ("killed", "stalled", "lost"),
        ("failed", "raised", "lost"),
    ],
)
def test_fate_of_a_call(outcome: str, reason: str, fate: str) -> None:
    call = Call("+1", 1.0)
    call.ended({"outcome": outcome, "reason": reason})
    assert call.fate == fate


def test_new_zygote_is_remarked_once() -> None:
    remarks: list[str] = []
    scene = Scene([], remarks.append)
    for pid in (1, 1, None, 2, 2):
        scene.look({"zygote_pid": pid, "processes": []})
    assert len(remarks) == 2
    assert remarks[1] == "zygote 2 has taken over"


def test_news_of_a_death_may_be_faster_than_the_pool() -> None:
    scene = Scene([], print)
    pool = {"zygote_pid": 1, "processes": [{"id": "p", "pid": 7, "state": "idle", "job_id": None}]}
    scene.look(pool)
    scene.put_out("p", "killed", "signaled")
    scene.look(pool)
    assert scene.lights["p"].state == "killed"
    assert scene.idle_pids() == []


def test_calls_hang_up_at_different_times() -> None:
    lengths = DemoOptions(calls=20).lengths()
    assert len(set(lengths)) == 20
    assert max(lengths) == DemoOptions().longest_seconds == pytest.approx(18.68)


@pytest.mark.parametrize("wrong", [["--calls", "0"], ["--speed", "-1"], ["--speed", "x"], ["--seconds", "nan"]])
def test_options_that_make_no_sense(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(wrong)
    assert wrong[0] in capsys.readouterr().err
