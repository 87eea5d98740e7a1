"""What `greenroom init` writes: read back as systemd, Docker and Kubernetes would, and tried where that is possible."""

from __future__ import annotations

import asyncio
import configparser
import json
import os
import re
import shlex
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import commands
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from support import DEADLINE, eventually

from greenroom import PoolOptions
from greenroom.cli import deployment
from greenroom.errors import OptionError
from greenroom.settings import LogOptions, ServerOptions, Settings
from greenroom.settings.worker_options import MARGIN, longest_stop

MakeApp = Callable[[str], str]

ANY_SECONDS = st.floats(min_value=0.001, max_value=1e6)
ANY_APP = st.text(st.characters(exclude_categories=["C", "Z"], include_characters=" "), min_size=1)


async def _run(*arguments: str, cwd: Path | None = None) -> tuple[int, str, str]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*arguments, stdout=pipe, stderr=pipe, cwd=cwd)
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def _greenroom(*arguments: str, cwd: Path) -> tuple[int, str, str]:
    process = await commands.start(*arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=cwd)
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


def _plan(app: str = "agent.py", drain_timeout: float = 60.0, **pool: Any) -> deployment.Plan:
    server = ServerOptions(drain_timeout=drain_timeout)
    return deployment.Plan(app=app, name="agent", settings=Settings(pool=PoolOptions(**pool), server=server))


def _unit(text: str) -> dict[str, str]:
    parser = configparser.RawConfigParser(strict=True)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(text)
    return dict(parser["Service"])


def _manifests(files: dict[str, str]) -> dict[str, Any]:
    documents = [yaml.safe_load(text) for text in files.values()]
    return {document["kind"]: document for document in documents}


def _worker_of(manifests: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    pod = manifests["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    return pod, container


# --- grace periods ---------------------------------------------------------------------------------


@given(drain=ANY_SECONDS, shutdown=ANY_SECONDS, cleanup=ANY_SECONDS)
def test_whoever_stops_the_worker_waits_for_the_longest_drain(drain: float, shutdown: float, cleanup: float) -> None:
    plan = _plan(drain_timeout=drain, shutdown_timeout=shutdown, cleanup_timeout=cleanup)
    longest = longest_stop(plan.pool, plan.server.drain_timeout)
    assert longest >= drain + shutdown + cleanup + MARGIN
    unit = _unit(deployment.systemd(plan, deployment.Systemd(), 1)["agent.service"])
    assert int(unit["TimeoutStopSec"]) >= longest
    pod, container = _worker_of(_manifests(deployment.kubernetes(plan, deployment.Kubernetes())))
    _, prestop = container["lifecycle"]["preStop"]["exec"]["command"]
    assert pod["terminationGracePeriodSeconds"] >= longest + int(prestop)
    dockerfile = deployment.docker(plan, deployment.Docker())["Dockerfile"]
    assert int(re.findall(r"--stop-timeout (\d+)", dockerfile)[0]) >= longest
    # And it is this drain timeout that the worker is started with.
    for arguments in (plan.arguments(), container["args"]):
        assert float(arguments[arguments.index("--drain-timeout") + 1]) == pytest.approx(drain)


@given(preload=ANY_SECONDS, prewarm=ANY_SECONDS)
def test_whoever_starts_the_worker_waits_for_its_app(preload: float, prewarm: float) -> None:
    plan = _plan(preload_timeout=preload, prewarm_timeout=prewarm)
    unit = _unit(deployment.systemd(plan, deployment.Systemd(), 1)["agent.service"])
    assert int(unit["TimeoutStartSec"]) > preload + prewarm
    _, container = _worker_of(_manifests(deployment.kubernetes(plan, deployment.Kubernetes())))
    probe = container["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] > preload + prewarm


# --- quoting ---------------------------------------------------------------------------------------


@given(app=ANY_APP)
def test_an_app_of_any_name_comes_through(app: str) -> None:
    plan = _plan(app)
    _, container = _worker_of(_manifests(deployment.kubernetes(plan, deployment.Kubernetes())))
    assert container["args"][1].replace("$$(", "$(") == app.replace("$$(", "$(")
    dockerfile = deployment.docker(plan, deployment.Docker())["Dockerfile"]
    command = json.loads(re.findall(r"^CMD (.*)$", dockerfile, re.M)[0])
    assert command[1] == app
    line = _unit(deployment.systemd(plan, deployment.Systemd(), 1)["agent.service"])["ExecStart"]
    assert shlex.split(line)[2].replace("%%", "%").replace("$$", "$") == app


def _encrypted() -> deployment.Plan:
    return deployment.Plan(app="a.py", name="a", settings=Settings(server=ServerOptions(tls_cert="/etc/a.pem")))


def test_what_would_make_nonsense_is_refused() -> None:
    for make in (
        lambda: _plan("agent.py\nExecStartPre=/bin/rm"),
        lambda: _plan(""),
        lambda: deployment.Plan(app="a.py", name="A b"),
        lambda: deployment.Plan(app="a.py", name="a", settings=Settings(server=ServerOptions(port=0))),
        lambda: deployment.systemd(_plan(), deployment.Systemd(user="x\ny"), 1),
        lambda: deployment.docker(_plan(), deployment.Docker(user="x; rm")),
        lambda: deployment.kubernetes(_plan(), deployment.Kubernetes(replicas=0)),
        lambda: deployment.kubernetes(_plan(), deployment.Kubernetes(claims_per_second=0.0)),
        lambda: deployment.docker(_encrypted(), deployment.Docker()),
        lambda: deployment.kubernetes(_encrypted(), deployment.Kubernetes()),
    ):
        with pytest.raises(OptionError):
            make()


def test_every_setting_comes_through_but_for_secrets() -> None:
    pool = PoolOptions(job_timeout=900.0, stall_timeout=None)
    server = ServerOptions(token="a-secret-of-no-one", host="0.0.0.0")
    changed = Settings(pool=pool, server=server, log=LogOptions(log_format="json"))
    arguments = deployment.Plan(app="a.py", name="a", settings=changed).arguments_in_container()
    assert dict(zip(arguments[2::2], arguments[3::2], strict=True)) == {
        "--job-timeout": "900",
        "--stall-timeout": "off",
        "--host": "0.0.0.0",
        "--port": "8700",
        "--drain-timeout": "60",
        "--log-format": "json",
    }


# --- systemd ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [252, 253, 254])
def test_a_unit_says_what_its_systemd_knows(version: int) -> None:
    unit = _unit(deployment.systemd(_plan(), deployment.Systemd(systemd_version=version), 1)["agent.service"])
    assert unit["Type"] == ("notify" if version < 253 else "notify-reload")
    assert ("ExecReload" in unit) == (version < 253)
    assert ("DelegateSubgroup" in unit) == (version >= 254)
    assert (unit["KillMode"], unit["Delegate"], unit["OOMPolicy"]) == ("mixed", "yes", "continue")


def _token_mounts(pod: dict[str, Any], container: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """Where the worker is told that its token is, and the secret and key that are mounted there."""
    (variable,) = (one for one in container["env"] if one["name"] == "GREENROOM_TOKEN_FILE")
    assert variable["name"] == "GREENROOM_TOKEN_FILE"
    folder, _, name = variable["value"].rpartition("/")
    (mount,) = (each for each in container["volumeMounts"] if each["mountPath"] == folder)
    assert mount["readOnly"] is True
    assert "subPath" not in mount  # which would not follow a change
    (secret,) = (each["secret"] for each in pod["volumes"] if each["name"] == mount["name"])
    (item,) = secret["items"]
    assert item["path"] == name
    return variable["value"], {"name": secret["secretName"], "key": item["key"]}


def _with_token_file(path: str) -> deployment.Plan:
    server = ServerOptions(token_file=path, host="0.0.0.0")
    return deployment.Plan(app="agent.py", name="agent", settings=Settings(server=server))


def test_a_token_s_file_comes_to_the_worker() -> None:
    plan = _with_token_file("/etc/greenroom/a%b.token")
    for version, told in ((255, "%d/token"), (249, "/run/credentials/agent.service/token")):
        unit = _unit(deployment.systemd(plan, deployment.Systemd(systemd_version=version), 1)["agent.service"])
        assert unit["LoadCredential"] == "token:/etc/greenroom/a%%b.token"
        assert unit["Environment"] == f"GREENROOM_TOKEN_FILE={told}"
        assert "token" not in unit["ExecStart"]
    without = _unit(deployment.systemd(_plan(), deployment.Systemd(), 1)["agent.service"])
    assert not {"LoadCredential", "Environment"} & set(without)
    pod, container = _worker_of(_manifests(deployment.kubernetes(plan, deployment.Kubernetes())))
    assert _token_mounts(pod, container)[0] == "/etc/greenroom/a%b.token"
    assert "--token-file" not in container["args"]
    image = deployment.docker(_with_token_file("/run/token/token"), deployment.Docker())["Dockerfile"]
    assert '"--token-file", "/run/token/token"' in image
    assert '-v "$PWD/token:/run/token:ro"' in image
    assert "-e GREENROOM_TOKEN " not in image
    for make in (
        lambda plan: deployment.systemd(plan, deployment.Systemd(), 1),
        lambda plan: deployment.docker(plan, deployment.Docker()),
        lambda plan: deployment.kubernetes(plan, deployment.Kubernetes()),
    ):
        for path in ("token", "./token", "/", "/etc/a token", "/token"):
            with pytest.raises(OptionError, match="token_file is"):
                make(_with_token_file(path))


async def test_systemd_finds_nothing_wrong_with_the_unit(make_app: MakeApp, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze here (Debian's package systemd has it)")
    _, said, _ = await _run("systemd-analyze", "--version")
    version = re.findall(r"systemd (\d+)", said)[0]
    options = ("--systemd-version", version, "--user", "daemon", "--directory", str(tmp_path), "--memory-mb", "4096")
    options += ("--token-file", "/etc/greenroom/agent.token")
    app = make_app("")
    code, out, err = await _greenroom("init", "systemd", app, "--name", "agent", *options, cwd=tmp_path)
    assert (code, out, err) == (0, "wrote agent.service\n", "")
    code, out, err = await _run("systemd-analyze", "verify", "--man=no", str(tmp_path / "agent.service"))
    assert code == 0, err
    assert "agent.service" not in err, err


async def test_the_unit_s_command_serves_and_the_image_s_health_check_finds_it(
    make_app: MakeApp, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = str(sock.getsockname()[1])
    app = make_app("@app.entrypoint\nasync def entrypoint(ctx): pass\n")
    options = (app, "--port", port, "--num-idle-processes", "1", "--name", "agent")
    assert (await _greenroom("init", "systemd", *options, cwd=tmp_path))[0] == 0
    assert (await _greenroom("init", "docker", *options, cwd=tmp_path))[0] == 0
    command = shlex.split(_unit((tmp_path / "agent.service").read_text())["ExecStart"])
    check = json.loads(re.findall(r"^    CMD (.*)$", (tmp_path / "Dockerfile").read_text(), re.M)[0])
    assert (await _run(sys.executable, *check[1:]))[0] == 1, "nothing serves yet"

    pipe = asyncio.subprocess.PIPE
    worker = await asyncio.create_subprocess_exec(*command, stderr=pipe)
    try:
        assert worker.stderr is not None
        async with asyncio.timeout(DEADLINE):
            while b"serving" not in await worker.stderr.readline():
                assert worker.returncode is None
        assert await _run(sys.executable, *check[1:]) == (0, "", "")
        worker.send_signal(signal.SIGTERM)
        async with asyncio.timeout(DEADLINE):
            await worker.communicate()
            assert await worker.wait() == 0
    finally:
        if worker.returncode is None:
            worker.kill()
            await worker.wait()
    await eventually(lambda: worker.returncode == 0)


# --- Docker and Kubernetes -------------------------------------------------------------------------


def test_the_image_runs_the_worker_as_pid_1_and_not_as_root() -> None:
    text = deployment.docker(_plan(), deployment.Docker(memory_mb=2048))["Dockerfile"]
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    words = dict(line.split(" ", 1) for line in lines if line and not line.startswith(" "))
    assert json.loads(words["ENTRYPOINT"]) == ["greenroom"]
    assert words["STOPSIGNAL"] == "SIGTERM"
    assert words["USER"] == "greenroom"
    assert "tini" not in text
    assert "--memory 2048m" in text
    assert json.loads(words["CMD"])[-2:] == ["--host", "0.0.0.0"]


def test_the_manifests_belong_together() -> None:
    files = deployment.kubernetes(_plan(max_jobs=40), deployment.Kubernetes(memory_mb=4096, replicas=3))
    manifests = _manifests(files)
    kinds = {"Deployment", "Service", "PodDisruptionBudget", "PodMonitor", "PrometheusRule", "ScaledObject"}
    assert set(manifests) == kinds
    spec = manifests["Deployment"]["spec"]
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"] == labels == manifests["Service"]["spec"]["selector"]
    for kind in ("PodDisruptionBudget", "PodMonitor"):
        assert manifests[kind]["spec"]["selector"]["matchLabels"] == labels
    (endpoint,) = manifests["PodMonitor"]["spec"]["podMetricsEndpoints"]
    assert manifests["ScaledObject"]["spec"]["scaleTargetRef"]["name"] == manifests["Deployment"]["metadata"]["name"]
    pod, container = _worker_of(manifests)
    paths = {name: container[name]["httpGet"]["path"] for name in container if name.endswith("Probe")}
    assert paths == {"readinessProbe": "/readyz", "livenessProbe": "/livez", "startupProbe": "/readyz"}
    secret = endpoint["authorization"]["credentials"]
    assert _token_mounts(pod, container) == ("/run/secrets/greenroom/token", secret)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["resources"]["limits"] == {"memory": "4096Mi"}
    port = container["args"][container["args"].index("--port") + 1]
    assert container["ports"][0]["containerPort"] == int(port)
    queries = " ".join(trigger["metadata"]["query"] for trigger in manifests["ScaledObject"]["spec"]["triggers"])
    for metric in ("greenroom_claims_total", "greenroom_warm_deficit", "greenroom_idle_target", "(40 * 0.7)"):
        assert metric in queries


# --- the command -----------------------------------------------------------------------------------


async def test_files_that_are_there_are_not_overwritten(tmp_path: Path) -> None:
    for kind, name in (("systemd", "my-agent.service"), ("docker", "Dockerfile"), ("k8s", "k8s/pdb.yaml")):
        command = ("init", kind, "src/my_agent.py:app")
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
        code, out, err = await _greenroom(*command, cwd=tmp_path)
        assert (code, out) == (1, "")
        assert f"{name}: already there" in err
        assert path.read_text() == "mine"
        code, out, _ = await _greenroom(*command, "--stdout", cwd=tmp_path)
        assert code == 0
        assert path.read_text() == "mine"
        code, _, _ = await _greenroom(*command, "--force", cwd=tmp_path)
        assert code == 0
        assert path.read_text() in out
    assert sorted(os.listdir(tmp_path)) == [".dockerignore", "Dockerfile", "k8s", "my-agent.service"]


async def test_a_setting_that_makes_no_sense_writes_nothing(tmp_path: Path) -> None:
    code, _, err = await _greenroom("init", "k8s", "agent.py", "--max-jobs", "0", cwd=tmp_path)
    assert code == 2
    assert "max_jobs" in err
    assert not os.listdir(tmp_path)
