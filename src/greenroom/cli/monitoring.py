"""Alerts and a dashboard for the metrics of a worker: the files of `greenroom init alerts` and `init grafana`. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

__all__ = ["ALERTS", "Alert", "dashboard", "prometheus_rule", "rules"]


@dataclass(frozen=True, slots=True)
class Alert:
    """Alert for Prometheus. docs/metrics.md has the table for people, with the same names and expressions."""

    title: str
    expression: str
    severity: str
    summary: str

    @property
    def name(self) -> str:
        """Name in the rule file: ``GreenroomCallsAreTurnedAway``."""
        return "Greenroom" + "".join(word.capitalize() for word in self.title.split())


ALERTS = (
    Alert(
        "calls are turned away",
        'sum by (source, reason) (rate(greenroom_turned_down_total{reason!~"draining|rejected_by_app"}[5m])) > 0',
        "critical",
        "Calls from {{ $labels.source }} are rejected: {{ $labels.reason }}",
    ),
    Alert(
        "nothing can start",
        "max_over_time(greenroom_ready[2m]) == 0 and greenroom_ready offset 2m >= 0",
        "critical",
        "For 2 minutes, no job could start on {{ $labels.instance }}",
    ),
    Alert(
        "a worker is gone",
        'up{job="greenroom"} == 0 or absent(up{job="greenroom"})',
        "critical",
        "The worker {{ $labels.instance }} does not answer",
    ),
    Alert(
        "a session is stuck",
        "min_over_time(greenroom_jobs_stuck[10s]) > 0",
        "warning",
        "On {{ $labels.instance }}, the event loop of a running session stands still",
    ),
    Alert(
        "too few idle processes",
        "min_over_time(greenroom_warm_deficit[5m]) > 0 and greenroom_warm_deficit offset 5m >= 0",
        "warning",
        "{{ $labels.instance }} had too few idle processes for 5 minutes",
    ),
    Alert(
        "sessions crash",
        'sum by (reason) (rate(greenroom_exits_total{had_job="true",outcome=~"failed|killed"}[5m])) > 0',
        "critical",
        "Sessions fail or are killed: {{ $labels.reason }}",
    ),
    Alert(
        "a drain cut calls",
        'rate(greenroom_exits_total{had_job="true",reason="drained"}[5m]) > 0',
        "warning",
        "The drain of {{ $labels.instance }} has ended calls",
    ),
    Alert(
        "starts are slow",
        'histogram_quantile(0.99, sum by (le) (rate(greenroom_claim_seconds_bucket{launch_type="warm"}[5m]))) > 0.1',
        "warning",
        "One of 100 starts takes longer than 0.1 s",
    ),
    Alert(
        "a reload failed",
        "greenroom_last_reload_successful == 0",
        "warning",
        "{{ $labels.instance }} serves old code: its reload has failed",
    ),
    Alert(
        "a zygote was lost",
        "increase(greenroom_zygote_restarts_total[1h]) > 0",
        "warning",
        "The zygote of {{ $labels.instance }} was lost and replaced",
    ),
    Alert(
        "the history is not written",
        "greenroom_history_failing > 0",
        "warning",
        "{{ $labels.instance }} cannot write its history of jobs to disk",
    ),
)


def rules() -> dict[str, str]:
    """Return a rule file for Prometheus, by its name."""
    head = "# Written by `greenroom init alerts`. Name the file under rule_files in prometheus.yml.\n"
    return {"greenroom-alerts.yml": f"{head}groups:\n{_groups('  ')}"}


def prometheus_rule(name: str) -> str:
    """Return a PrometheusRule for the Prometheus Operator. ``name`` is that of the deployment."""
    metadata = f"metadata:\n  name: {name}\n  labels: {{app: {name}}}\n"
    head = "# For the Prometheus Operator: the alerts of `greenroom init alerts`.\n"
    kind = "apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\n"
    return f"{head}{kind}{metadata}spec:\n  groups:\n{_groups('    ')}"


def _groups(indent: str) -> str:
    lines = ["- name: greenroom", "  rules:"]
    for alert in ALERTS:
        lines += [
            f"    - alert: {alert.name}",
            f"      expr: {json.dumps(alert.expression)}",
            f"      labels: {{severity: {alert.severity}}}",
            f"      annotations: {{summary: {json.dumps(alert.summary)}}}",
        ]
    return "".join(f"{indent}{line}\n" for line in lines)


@dataclass(frozen=True, slots=True)
class _Panel:
    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    """Expressions with their legends."""


_OF = '{instance=~"$instance"}'
_PANELS = (
    _Panel(
        "Sessions",
        "short",
        ((f"greenroom_jobs{_OF}", "running"), (f"greenroom_max_jobs{_OF}", "limit"), (f"greenroom_room{_OF}", "room")),
    ),
    _Panel("Processes", "short", ((f"sum by (state) (greenroom_processes{_OF})", "{{state}}"),)),
    _Panel(
        "Rejected",
        "cps",
        (('sum by (reason) (rate(greenroom_turned_down_total{instance=~"$instance"}[1m]))', "{{reason}}"),),
    ),
    _Panel(
        "Ends of sessions",
        "cps",
        (
            (
                'sum by (outcome, reason) (rate(greenroom_exits_total{instance=~"$instance",had_job="true"}[1m]))',
                "{{outcome}}, {{reason}}",
            ),
        ),
    ),
    _Panel(
        "Time to start",
        "s",
        tuple(
            (
                f"histogram_quantile({share}, sum by (le) "
                '(rate(greenroom_claim_seconds_bucket{instance=~"$instance"}[1m])))',
                f"{share:.0%}",
            )
            for share in (0.5, 0.99)
        ),
    ),
    _Panel(
        "Private memory",
        "bytes",
        (
            (f"sum by (state) (greenroom_private_memory_bytes{_OF})", "{{state}}"),
            (f"greenroom_job_largest_bytes{_OF}", "largest session"),
            (f"greenroom_memory_available_bytes{_OF}", "available"),
        ),
    ),
    _Panel(
        "CPU",
        "s",
        ((f"greenroom_cpu_wait_seconds{_OF}", "wait for a CPU"), (f"greenroom_session_cpus{_OF}", "CPUs of a session")),
    ),
    _Panel(
        "Event loops",
        "s",
        (
            (f"greenroom_job_loop_lag_seconds{_OF}", "sessions, largest lag"),
            (f"greenroom_worker_loop_lag_seconds{_OF}", "worker"),
            (f"greenroom_jobs_stuck{_OF}", "stuck sessions"),
        ),
    ),
    _Panel(
        "Idle processes",
        "short",
        ((f"greenroom_idle_target{_OF}", "target"), (f"greenroom_warm_deficit{_OF}", "missing")),
    ),
    _Panel(
        "Worker",
        "short",
        (
            (f"greenroom_ready{_OF}", "ready"),
            (f"greenroom_breaker_open{_OF}", "breaker open"),
            (f"increase(greenroom_zygote_restarts_total{_OF}[1h])", "zygotes lost in an hour"),
            (
                'increase(greenroom_reloads_total{instance=~"$instance",result="failed"}[1h])',
                "reloads failed in an hour",
            ),
            (f"greenroom_last_reload_successful{_OF}", "last reload succeeded"),
        ),
    ),
    _Panel(
        "Workers by version",
        "short",
        ((f"count by (app_version, version) (greenroom_info{_OF})", "{{app_version}} on Greenroom {{version}}"),),
    ),
    _Panel(
        "Ends of sessions by version of the app",
        "cps",
        (
            (
                f"sum by (app_version, outcome) (rate(greenroom_generation_ends_total{_OF}[5m]))",
                "{{app_version}}, {{outcome}}",
            ),
        ),
    ),
    _Panel(
        "Drains",
        "s",
        ((f"clamp_min(greenroom_drain_deadline_timestamp_seconds{_OF} - time(), 0)", "{{instance}}, time left"),),
    ),
)


def dashboard() -> dict[str, str]:
    """Return a dashboard for Grafana, by the name of its file."""
    plain = {
        "title": "Greenroom",
        "uid": "greenroom",
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "tags": ["greenroom"],
        "templating": {"list": [_DATASOURCE, _INSTANCE]},
        "annotations": {"list": []},
        "panels": [_plain(number, panel) for number, panel in enumerate(_PANELS)],
    }
    return {"greenroom-dashboard.json": json.dumps(plain, indent=2) + "\n"}


_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_DATASOURCE = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}
_INSTANCE = {
    "name": "instance",
    "type": "query",
    "label": "Worker",
    "datasource": _SOURCE,
    "query": "label_values(greenroom_ready, instance)",
    "refresh": 2,
    "multi": True,
    "includeAll": True,
    "current": {"text": "All", "value": "$__all"},
}


def _plain(number: int, panel: _Panel) -> dict[str, Any]:
    targets = [
        {"refId": chr(ord("A") + index), "datasource": _SOURCE, "expr": expression, "legendFormat": legend}
        for index, (expression, legend) in enumerate(panel.queries)
    ]
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "datasource": _SOURCE,
        "gridPos": {"h": 8, "w": 12, "x": 12 * (number % 2), "y": 8 * (number // 2)},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": targets,
    }
