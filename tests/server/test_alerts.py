"""The shipped alerts and the dashboard: the files are right, and a real Prometheus fires at the first event."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus import a_prometheus, program
from running_worker import RunningWorker

from greenroom.cli.monitoring import ALERTS, dashboard, prometheus_rule, rules

MakeApp = Callable[[str], str]
pytestmark = pytest.mark.in_pairs  # a Prometheus each

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
CASES = Path(__file__).with_name("alerts")
RULES = rules()["greenroom-alerts.yml"]
APP = """
@app.entrypoint
async def entrypoint(ctx):
    kind = ctx.job.metadata
    if kind == "raise":
        raise KeyError("menu")
    if kind == "block":
        time.sleep(3600)
    if kind == "stay":
        await asyncio.sleep(3600)
"""


def test_the_page_has_the_shipped_alerts() -> None:
    table = PAGE.read_text().partition("## What to alert on")[2]
    rows = [re.split(r"(?<!\\)\|", line)[1:3] for line in table.splitlines() if line.startswith("| ")][1:]
    listed = {name.strip(): text.strip().strip("`").replace("\\|", "|") for name, text in rows if "---" not in name}
    assert listed == {alert.title: alert.expression for alert in ALERTS}


async def test_promtool_accepts_rules_and_metrics(make_app: MakeApp, tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(RULES)
    assert await promtool("check", "rules", str(tmp_path / "rules.yml")) == ""
    async with RunningWorker(make_app(APP)) as worker:
        await worker.report((await worker.start("raise"))["id"])
        metrics = (await worker.fetch("GET", "/metrics")).text
    ours = [line for line in metrics.splitlines(keepends=True) if "python_" not in line and "process_" not in line]
    assert await promtool("check", "metrics", standard_input="".join(ours)) == ""


@pytest.mark.parametrize("alert", [alert.name for alert in ALERTS])
async def test_each_alert_fires_and_is_silent_as_its_cases_say(alert: str, tmp_path: Path) -> None:
    """The cases are series of samples: with the first event, and healthy ones."""
    cases = (CASES / f"{alert}.yml").read_text()
    assert "exp_labels" in cases, "it fires"
    assert "# Healthy" in cases
    (tmp_path / "greenroom-alerts.yml").write_text(RULES)
    (tmp_path / "cases.yml").write_text(cases)
    assert await promtool("test", "rules", str(tmp_path / "cases.yml")) == ""


async def test_cases_that_are_wrong_are_found(tmp_path: Path) -> None:
    cases = (CASES / "GreenroomAReloadFailed.yml").read_text()
    (tmp_path / "greenroom-alerts.yml").write_text(RULES)
    (tmp_path / "cases.yml").write_text(cases.replace("1x4 0x18 1x4", "1x40"))
    assert "GreenroomAReloadFailed" in await promtool("test", "rules", str(tmp_path / "cases.yml"))


def test_no_cases_are_left_of_an_alert_that_is_gone() -> None:
    assert {path.stem for path in CASES.iterdir()} == {alert.name for alert in ALERTS}


async def promtool(*arguments: str, standard_input: str = "") -> str:
    """What it complains about."""
    process = await asyncio.create_subprocess_exec(
        program("promtool"),
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await process.communicate(standard_input.encode())
    return "" if process.returncode == 0 else told.decode()


@pytest.mark.more
async def test_each_alert_fires_at_the_first_event(make_app: MakeApp, tmp_path: Path) -> None:
    app = make_app(APP)
    path = Path(app.rpartition(":")[0])
    options = ("--max-jobs", "2", "--drain-timeout", "0.2", "--history", str(tmp_path / "file" / "history.db"))
    (tmp_path / "file").write_text("not a folder")
    async with RunningWorker(app, *options) as worker:
        url = await worker.url()
        async with a_prometheus(url, RULES, tmp_path) as prometheus:
            await prometheus.until_scraped(4)
            assert await prometheus.firing() <= {"GreenroomTheHistoryIsNotWritten"}
            await prometheus.until_fires("GreenroomTheHistoryIsNotWritten")
            await worker.report((await worker.start("raise"))["id"])
            await prometheus.until_fires("GreenroomSessionsCrash")
            await worker.start("block")
            await worker.start("stay")
            await prometheus.until_fires("GreenroomASessionIsStuck")
            assert (await worker.post(timeout=0.01)).status == 503
            await prometheus.until_fires("GreenroomCallsAreTurnedAway")
            path.write_text("def broken(:\n")
            assert (await worker.ask("POST", "/v1/pool/reload", json={})).status == 409
            await prometheus.until_fires("GreenroomAReloadFailed")
            worker.signal(signal.SIGTERM)
            await worker.exit_code()
            await prometheus.until_fires("GreenroomAWorkerIsGone")
            await prometheus.until_fires("GreenroomADrainCutCalls")


@pytest.mark.more
async def test_the_dashboard_asks_only_for_metrics_that_are_there(make_app: MakeApp, tmp_path: Path) -> None:
    plain = json.loads(dashboard()["greenroom-dashboard.json"])
    expressions = [target["expr"] for panel in plain["panels"] for target in panel["targets"]]
    assert len(expressions) >= 15
    async with (
        RunningWorker(make_app(APP)) as worker,
        a_prometheus(await worker.url(), RULES, tmp_path) as prometheus,
    ):
        await worker.report((await worker.start(None))["id"])
        await worker.start("stay")
        await prometheus.until_scraped(4)
        for expression in expressions:
            assert await prometheus.query(expression.replace("$instance", ".*")), expression


def test_the_rule_for_kubernetes_has_the_same_alerts() -> None:
    text = prometheus_rule("my-agent")
    assert text.count("- alert: ") == RULES.count("- alert: ") == len(ALERTS)
    assert "kind: PrometheusRule" in text
