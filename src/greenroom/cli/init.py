"""`greenroom init`: write the files that run and watch workers in production."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from ..command_exit_codes import ExitCode
from ..settings.open_files import fds_needed
from . import deployment, monitoring
from .haproxy import BIND, Haproxy, haproxy_files, read_worker
from .options import Layers, with_settings
from .printing import Failure, echo
from .serve import AppArgument

__all__ = ["register"]

_UNIT, _IMAGE, _PODS = deployment.Systemd(), deployment.Docker(), deployment.Kubernetes()

NameOption = Annotated[
    str, typer.Option(help="Name of the service. Default: a name made from APP.", show_default=False)
]
OutputOption = Annotated[Path, typer.Option(help="Folder for the files. A missing folder is made.", file_okay=False)]
StdoutOption = Annotated[bool, typer.Option("--stdout", help="Print the files instead of writing them.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite existing files.")]
MemoryOption = Annotated[
    int | None, typer.Option(help="Memory of the worker and all sessions together.", metavar="MIB", min=1)
]


def register(cli: typer.Typer) -> None:
    init = typer.Typer(help="Write the files that run and watch a worker in production.", no_args_is_help=True)
    for command in (systemd, docker, k8s, haproxy, alerts, grafana):
        init.command()(command)
    cli.add_typer(init, name="init")


@with_settings("start")
def systemd(
    app: AppArgument,
    layers: Layers,
    name: NameOption = "",
    output: OutputOption = Path(),
    stdout: StdoutOption = False,
    force: ForceOption = False,
    user: Annotated[str, typer.Option(help="User that the worker runs as.")] = _UNIT.user,
    directory: Annotated[str, typer.Option(help="Working directory, in which APP is found.")] = _UNIT.directory,
    venv: Annotated[str, typer.Option(help="Virtual environment with Greenroom and the app.")] = _UNIT.venv,
    memory_mb: MemoryOption = None,
    systemd_version: Annotated[
        int, typer.Option(help="Version of systemd on the server (systemctl --version). Old versions lack features.")
    ] = _UNIT.systemd_version,
) -> int:
    """Write a systemd unit with readiness, watchdog, reload, and a stop timeout that matches the drain timeout."""

    unit = deployment.Systemd(
        user=user, directory=directory, venv=venv, memory_mb=memory_mb, systemd_version=systemd_version
    )
    plan = _plan(app, name, layers)
    return _deliver(deployment.systemd(plan, unit, fds_needed(plan.pool, plan.server)), output, stdout, force)


@with_settings("start")
def docker(
    app: AppArgument,
    layers: Layers,
    name: NameOption = "",
    output: OutputOption = Path(),
    stdout: StdoutOption = False,
    force: ForceOption = False,
    user: Annotated[str, typer.Option(help="User that the worker runs as, with the id 10001.")] = _IMAGE.user,
    python: Annotated[str, typer.Option(help="Version of Python.")] = _IMAGE.python,
    memory_mb: MemoryOption = None,
) -> int:
    """Write a Dockerfile: a slim image whose PID 1 is the worker, without shell or init."""
    image = deployment.Docker(user=user, python=python, memory_mb=memory_mb)
    return _deliver(deployment.docker(_plan(app, name, layers), image), output, stdout, force)


@with_settings("start")
def k8s(
    app: AppArgument,
    layers: Layers,
    name: NameOption = "",
    output: OutputOption = Path("k8s"),
    stdout: StdoutOption = False,
    force: ForceOption = False,
    image: Annotated[str, typer.Option(help="Image, built from the files of `greenroom init docker`.")] = _PODS.image,
    replicas: Annotated[
        int, typer.Option(help="Number of pods; with the autoscaler, the least number.")
    ] = _PODS.replicas,
    max_replicas: Annotated[int, typer.Option(help="Most pods, with the autoscaler.")] = _PODS.max_replicas,
    memory_mb: MemoryOption = None,
    claims_per_second: Annotated[
        float, typer.Option(help="Sessions that one pod starts per second before the autoscaler adds a pod.")
    ] = _PODS.claims_per_second,
    prometheus: Annotated[
        str, typer.Option(help="Address of the Prometheus server that the autoscaler queries.")
    ] = _PODS.prometheus,
) -> int:
    """Write Kubernetes manifests: deployment, service, disruption budget, autoscaling by claims and warm deficit."""
    pods = deployment.Kubernetes(
        image=image,
        replicas=replicas,
        max_replicas=max_replicas,
        memory_mb=memory_mb,
        claims_per_second=claims_per_second,
        prometheus=prometheus,
    )
    return _deliver(deployment.kubernetes(_plan(app, name, layers), pods), output, stdout, force)


@with_settings("start")
def haproxy(
    app: AppArgument,
    layers: Layers,
    worker: Annotated[
        list[str],
        typer.Option(help="Worker by its worker_name and its address. Once for each worker.", metavar="NAME=HOST:PORT"),
    ],
    output: OutputOption = Path("haproxy"),
    stdout: StdoutOption = False,
    force: ForceOption = False,
    bind: Annotated[str, typer.Option(help="Address for clients.", metavar="HOST:PORT")] = BIND,
    rerun_broken: Annotated[
        bool, typer.Option("--rerun-broken", help="Repeat starts without an answer. Such sessions may begin twice.")
    ] = False,
    token_env: Annotated[
        str,
        typer.Option(help="Variable of HAProxy's environment with the token of its clients.", metavar="VARIABLE"),
    ] = "",
    worker_ca: Annotated[
        str, typer.Option(help="Authority of the workers' certificates, on HAProxy's machine.", metavar="FILE")
    ] = "",
    proxy_cert: Annotated[
        str,
        typer.Option(help="Certificate with key that HAProxy shows to workers, on its machine.", metavar="FILE"),
    ] = "",
) -> int:
    """Write the configuration of HAProxy in front of several workers, with its error files."""
    front = Haproxy(
        workers=tuple(map(read_worker, worker)),
        bind=bind,
        rerun_broken=rerun_broken,
        token_env=token_env,
        worker_ca=worker_ca,
        proxy_cert=proxy_cert,
    )
    return _deliver(haproxy_files(_plan(app, "", layers), front), output, stdout, force)


def alerts(output: OutputOption = Path(), stdout: StdoutOption = False, force: ForceOption = False) -> int:
    """Write alerts for Prometheus."""
    return _deliver(monitoring.rules(), output, stdout, force)


def grafana(output: OutputOption = Path(), stdout: StdoutOption = False, force: ForceOption = False) -> int:
    """Write a dashboard for Grafana."""
    return _deliver(monitoring.dashboard(), output, stdout, force)


def _plan(app: str, name: str, layers: Layers) -> deployment.Plan:
    return deployment.Plan(app=app, name=name or _name_of(app), settings=layers.resolve("start").settings)


def _name_of(app: str) -> str:
    """Return a name made from APP: ``my-agent`` for ``agents/my_agent.py:app`` and for ``agents.my_agent:app``."""
    module = app.partition(":")[0].removesuffix(".py")
    words = re.findall(r"[a-z0-9]+", re.split(r"[/.]", module)[-1].lower())
    return "-".join(words)[:50].strip("-") or "greenroom"


def _deliver(files: dict[str, str], folder: Path, to_stdout: bool, force: bool) -> int:
    if to_stdout:
        separator = "---\n" if all(name.endswith(".yaml") for name in files) else "\n"
        typer.echo(separator.join(files.values()), nl=False)
        return ExitCode.OK
    there = [str(folder / name) for name in files if (folder / name).exists()]
    if there and not force:
        raise Failure(f"{', '.join(there)}: already there. Use --force to overwrite, or --stdout to print the files")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
            echo(f"wrote {folder / name}")
    except OSError as error:
        raise Failure(f"{error.filename} cannot be written: {error.strerror}") from error
    return ExitCode.OK
