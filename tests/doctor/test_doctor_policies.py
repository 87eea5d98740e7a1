"""What facts mean: the judging functions, with facts passed in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from greenroom import PoolOptions
from greenroom.doctor import app_findings, importtime, machine_findings
from greenroom.doctor.bench_figures import BARS, histogram, spread
from greenroom.doctor.capacity import bounds
from greenroom.doctor.facts import GraceFacts, KernelFacts, LimitFacts, LoadFacts, PackageCost, WarmFacts, WarmProcess
from greenroom.doctor.findings import Finding
from greenroom.doctor.grace import grace_in_text, read_grace, seconds_of
from greenroom.errors import OptionError
from greenroom.settings.open_files import FEWEST_CONNECTIONS, fds_needed, sessions_within
from greenroom.system.machine_limits import TaskRoom

OPTIONS = PoolOptions(num_idle_processes=3, max_concurrent_prewarms=4, max_jobs=100)

LOAD = LoadFacts(
    import_seconds=1.0,
    preload_seconds=0.5,
    modules=10,
    packages=(PackageCost("numpy", 0.8, 0.9, 8), PackageCost("email", 0.05, 0.1, 2)),
    threads=(),
    allowed_threads=(),
    fds=(),
    children=(),
    has_preload=True,
    has_prewarm=True,
)
WARM = WarmFacts(
    processes=tuple(WarmProcess(pid, 5.0, 20.0, 9.0, 2) for pid in (1, 2, 3)),
    idle_seconds=(0.01, 0.02),
    prewarm_seconds=(0.005, 0.01),
    image_mb=100.0,
    fds_per_process=6.0,
    failures=(),
)
LIMITS = LimitFacts(
    available_mb=10_000.0,
    memory_where="the machine",
    nofile_soft=1024,
    nofile_hard=4096,
    tasks=(TaskRoom(500, 512, "pids.max", "raise TasksMax="),),
    cpus=2.0,
)
KERNEL = KernelFacts(
    release="6.1",
    pidfd="",
    subreaper="",
    lifeline="",
    memfd="",
    smaps_rollup="",
    psi=True,
    memory_delegated=True,
    missing_walls={},
    shm_mb=1000.0,
)


def _levels(findings: Iterable[Finding]) -> list[str]:
    return [finding.level for finding in findings]


# --- the app -------------------------------------------------------------------------------------


def test_what_dominates_a_load_is_named() -> None:
    (finding,) = app_findings.of_load(LOAD, OPTIONS)
    assert finding.level == "ok"
    assert "numpy 0.80 s" in finding.found
    assert "email" not in finding.found


@pytest.mark.parametrize(("seconds", "level"), [(1.0, "ok"), (20.0, "note"), (70.0, "warning")])
def test_a_slow_load(seconds: float, level: str) -> None:
    assert _levels(app_findings.of_load(replace(LOAD, import_seconds=seconds), OPTIONS)) == [level]


def test_a_thread_counts_by_its_python_name_and_its_native_one() -> None:
    load = replace(LOAD, threads=("flusher / python", "pool-1"), allowed_threads=("python",))
    found = list(app_findings.of_threads(load, OPTIONS))
    assert _levels(found) == ["problem", "note"]
    assert "pool-1" in found[0].found
    assert "flusher" in found[1].found


@pytest.mark.parametrize(("seconds", "level"), [(0.02, "ok"), (1.0, "note"), (6.0, "warning")])
def test_a_slow_prewarm(seconds: float, level: str) -> None:
    warm = replace(WARM, idle_seconds=(seconds, seconds), prewarm_seconds=(seconds, seconds))
    assert _levels(app_findings.of_prewarm(warm, LOAD, OPTIONS)) == [level]


def test_a_process_with_much_memory_of_its_own() -> None:
    heavy = replace(WARM, processes=(WarmProcess(1, 80.0, 20.0, 85.0, 2),))
    assert _levels(app_findings.of_memory(WARM, OPTIONS)) == ["ok"]
    assert _levels(app_findings.of_memory(heavy, OPTIONS)) == ["warning"]
    assert _levels(app_findings.of_memory(heavy, replace(OPTIONS, memory_limit_mb=100.0))) == ["warning", "warning"]
    assert _levels(app_findings.of_memory(heavy, replace(OPTIONS, start_method="spawn"))) == ["note"]


# --- the machine ---------------------------------------------------------------------------------


def test_each_limit_is_counted_in_sessions_and_the_tightest_comes_first() -> None:
    found = {bound.limit: bound.sessions for bound in bounds(WARM, LIMITS, OPTIONS, 0.0)}
    assert found == {
        "tasks": 500 // 2 - 7,
        "open files": sessions_within(4096, OPTIONS),
        "memory": int((9000 - 100 - 15) / 5),
    }
    assert list(found) == ["tasks", "open files", "memory"]


def test_doctor_and_worker_need_the_same_open_files() -> None:
    found = {bound.limit: bound.sessions for bound in bounds(WARM, LIMITS, OPTIONS, 0.0)}
    fits, too_many = (replace(OPTIONS, max_jobs=found["open files"] + more) for more in (0, 1))
    assert fds_needed(fits) + FEWEST_CONNECTIONS <= LIMITS.nofile_hard < fds_needed(too_many) + FEWEST_CONNECTIONS


def test_what_a_session_takes_while_it_runs_counts() -> None:
    found = bounds(WARM, LIMITS, OPTIONS, 95.0)
    assert (found[0].limit, found[0].sessions) == ("memory", 88)


def test_the_cpu_time_of_a_measured_session_counts() -> None:
    """Of two CPUs, nine tenths."""
    found = bounds(WARM, LIMITS, OPTIONS, 0.0, session_cpus=0.1)
    assert (found[0].limit, found[0].sessions) == ("CPU", 18)


def test_a_limit_that_is_not_there_does_not_count() -> None:
    found = bounds(WARM, replace(LIMITS, nofile_hard=None, tasks=()), OPTIONS, 0.0)
    assert [bound.limit for bound in found] == ["memory"]


def test_capacity_is_compared_with_max_jobs() -> None:
    held = bounds(WARM, LIMITS, OPTIONS, 95.0)
    few, enough = replace(OPTIONS, max_jobs=50), replace(OPTIONS, max_jobs=200)
    assert _levels(machine_findings.of_capacity(held, few, 95.0)) == ["ok"]
    (finding,) = machine_findings.of_capacity(held, enough, 95.0)
    assert finding.level == "warning"
    assert "set max_jobs to 88" in finding.todo
    none = bounds(WARM, replace(LIMITS, available_mb=100.0), OPTIONS, 95.0)
    assert _levels(machine_findings.of_capacity(none, few, 95.0)) == ["problem"]


@pytest.mark.parametrize("feature", ["pidfd", "subreaper", "lifeline", "memfd", "smaps_rollup"])
def test_a_feature_that_greenroom_stands_on_is_a_problem_where_it_is_missing(feature: str) -> None:
    assert _levels(machine_findings.of_kernel(KERNEL, OPTIONS)) == ["ok", "ok", "ok"]
    found = list(machine_findings.of_kernel(replace(KERNEL, **{feature: "Function not implemented"}), OPTIONS))
    assert found[0].level == "problem"
    assert "Function not implemented" in found[0].found


def test_what_is_only_good_to_have_is_noted() -> None:
    kernel = replace(KERNEL, psi=False, memory_delegated=False, shm_mb=None)
    assert _levels(machine_findings.of_kernel(kernel, OPTIONS)) == ["ok", "note", "ok", "note", "note"]


@pytest.mark.parametrize(
    ("walls", "missing", "level"),
    [
        ("auto", {}, "ok"),
        ("auto", {"signals": "Landlock has no scopes"}, "note"),
        ("require", {"signals": "Landlock has no scopes"}, "problem"),
        ("off", {}, "note"),
    ],
)
def test_a_missing_wall_is_a_problem_where_all_are_required(walls: str, missing: dict[str, str], level: str) -> None:
    kernel, options = replace(KERNEL, missing_walls=missing), replace(OPTIONS, walls=walls)
    (found,) = [each for each in machine_findings.of_kernel(kernel, options) if each.topic == "walls"]
    assert found.level == level
    assert all(f"{name}: {cause}" in found.found for name, cause in missing.items())


@pytest.mark.parametrize(("seconds", "level"), [(None, "note"), (60.0, "problem"), (115.0, "ok"), (float("inf"), "ok")])
def test_a_grace_period_has_to_hold_a_whole_drain(seconds: float | None, level: str) -> None:
    options = replace(OPTIONS, job_timeout=30.0)
    assert _levels(machine_findings.of_grace(GraceFacts(seconds, "somewhere", False), options, 60.0)) == [level]


def test_sessions_that_a_drain_would_cut_short_are_noted() -> None:
    grace = GraceFacts(1000.0, "somewhere", False)
    assert _levels(machine_findings.of_grace(grace, replace(OPTIONS, job_timeout=90.0), 60.0)) == ["ok", "note"]
    assert _levels(machine_findings.of_grace(grace, replace(OPTIONS, job_timeout=None), 60.0)) == ["ok", "note"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("1min 30s", 90),
        ("1m30s", 90),
        ("2h", 7200),
        ("infinity", float("inf")),
        ("500ms", 0.5),
    ],
)
def test_spans_of_time(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "5 parsecs", "-3"])
def test_what_is_no_span_of_time(text: str) -> None:
    assert seconds_of(text) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[Service]\nTimeoutStopSec=2min\n", ("TimeoutStopSec", 120)),
        ("[Service]\nTimeoutStopSec=0\n", ("TimeoutStopSec", float("inf"))),
        ("[Service]\nExecStart=greenroom start a.py\n", ("the default of TimeoutStopSec", 90)),
        (
            "kind: Deployment\nspec:\n      terminationGracePeriodSeconds: 75  # s\n",
            ("terminationGracePeriodSeconds", 75),
        ),
        ("kind: Deployment\n", ("the default of terminationGracePeriodSeconds", 30)),
        ("services:\n  agent:\n    stop_grace_period: 1m30s\n", ("stop_grace_period", 90)),
        ("hello\n", None),
    ],
)
def test_grace_periods_in_files(text: str, found: tuple[str, float] | None) -> None:
    assert grace_in_text(text) == found


def test_a_file_that_says_nothing_about_it(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(OptionError, match=r"notes\.txt"):
        read_grace(tmp_path / "notes.txt")


# --- figures -------------------------------------------------------------------------------------


def test_import_times_are_added_up_by_package() -> None:
    lines = [
        "import time:      1000 |       1000 |     numpy.core.a",
        "import time:      2000 |       3000 |   numpy.core",
        "something that the app has printed",
        "import time:       500 |       3500 | numpy",
        "import time:       700 |        700 | json",
    ]
    numpy, json = importtime.costs(lines, most=5)
    assert (numpy.package, numpy.self_seconds, numpy.total_seconds, numpy.modules) == ("numpy", 0.0035, 0.0035, 3)
    assert json.package == "json"
    assert importtime.modules_in(lines) == 4


def test_percentiles_are_values_that_were_measured() -> None:
    found = spread([float(number) for number in range(1, 101)])
    assert found is not None
    assert (found.least, found.p50, found.p90, found.p99, found.most, found.count) == (1, 50, 90, 99, 100, 100)
    assert spread([]) is None


def test_a_histogram_holds_every_value_once() -> None:
    values = [0.001 * number for number in range(1, 200)] + [9.0]
    bars = histogram(values)
    assert sum(bar.count for bar in bars) == 200
    assert len(bars) == BARS + 1
    assert bars[-1].high == 9.0
    assert [bar.count for bar in histogram([5.0])] == [1]
    assert [bar.count for bar in histogram([5.0, 5.0, 5.0])] == [3]
    assert histogram([]) == ()
