"""Files that `greenroom init` writes: templates, filled in from the settings. Pure, except that templates are read."""

from __future__ import annotations

import itertools
import json
import math
import re
import sys
from dataclasses import dataclass
from importlib import resources
from pathlib import PurePosixPath
from string import Template
from typing import Any

from ..errors import OptionError
from ..settings import DEFAULTS, PoolOptions, ServerOptions, Settings
from ..settings.fields import Setting, all_settings
from ..settings.values import as_text
from ..settings.worker_options import longest_stop
from . import monitoring

__all__ = ["Docker", "Kubernetes", "Plan", "Systemd", "docker", "fill", "kubernetes", "systemd"]

PRESTOP = 5.0
"""Seconds until Kubernetes sends no more connections to a pod that ends, with a margin."""
STARTUP = 15.0
"""Seconds beyond preload and prewarm: for the interpreter, the image, and a busy machine."""
TASKS_PER_PROCESS = 64
NOTIFY_RELOAD_SINCE, SUBGROUP_SINCE = 253, 254
"""Versions of systemd."""
_ALWAYS = ("port", "drain_timeout")
ANYWHERE = "0.0.0.0"
"""Address to listen on in a container, since all clients are outside the container."""
MOUNTED_TOKEN = "/run/secrets/greenroom/token"
CREDENTIALS_FOLDER_SINCE = 250
"""First version of systemd in which %d stands for the folder of a unit's credentials."""
LEAST_FILES = 524288
"""Least limit on open files in a unit: the hard limit that systemd sets by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Systemd:
    """Options of the systemd unit."""

    user: str = "greenroom"
    """User that the worker runs as."""
    directory: str = "/srv/greenroom"
    """Working directory, in which APP is found."""
    venv: str = sys.prefix
    """Virtual environment with Greenroom and the app."""
    memory_mb: int | None = None
    """Memory of the worker and all jobs together, in MiB."""
    systemd_version: int = SUBGROUP_SINCE
    """Version of systemd on the machine (systemctl --version). Older versions lack some features."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Docker:
    """Options of the image."""

    user: str = "greenroom"
    """User that the worker runs as, with the id 10001."""
    python: str = f"{sys.version_info.major}.{sys.version_info.minor}"
    """Version of Python."""
    memory_mb: int | None = None
    """Memory of the container in MiB, for the command that runs it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kubernetes:
    """Options of the Kubernetes manifests."""

    image: str = "greenroom:latest"
    """Image, built from the files of `greenroom init docker`."""
    replicas: int = 2
    """Number of pods. With the autoscaler, the least number of pods."""
    max_replicas: int = 20
    """Most pods, with the autoscaler."""
    memory_mb: int | None = None
    """Memory of a pod in MiB: the request, and the limit."""
    claims_per_second: float = 1.0
    """Jobs that one pod starts per second before the autoscaler adds another pod."""
    prometheus: str = "http://prometheus-server.monitoring:80"
    """Address of the Prometheus server that the autoscaler queries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Worker to be deployed: its app, name and settings."""

    app: str
    name: str
    settings: Settings = DEFAULTS["start"]

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,48}[a-z0-9])?", self.name):
            raise OptionError(f"name is {self.name!r}; it must have 1 to 50 characters: a-z, 0-9 and, inside, hyphens")
        if self.server.port == 0:
            raise OptionError("port is 0; a deployment needs a fixed port")
        if not _is_plain(self.app):
            raise OptionError(f"APP is {self.app!r}; it cannot be empty or have control characters")

    @property
    def pool(self) -> PoolOptions:
        return self.settings.pool

    @property
    def server(self) -> ServerOptions:
        return self.settings.server

    @property
    def stop_seconds(self) -> int:
        return math.ceil(longest_stop(self.pool, self.server.drain_timeout))

    @property
    def start_seconds(self) -> int:
        return math.ceil(self.pool.preload_timeout + self.pool.prewarm_timeout + STARTUP)

    @property
    def processes(self) -> int:
        return self.pool.max_jobs + self.pool.idle_ceiling + self.pool.max_concurrent_prewarms

    def arguments(self, *, leave_out: str = "") -> list[str]:
        """Return the arguments of the `greenroom` command.

        Drain timeout and port are always included, since other parts of the files rely on them. ``leave_out`` names a
        setting that the worker gets in another way.
        """
        chosen = [
            setting for setting in all_settings().values() if self._is_written(setting) and setting.name != leave_out
        ]
        return ["start", self.app, *itertools.chain.from_iterable(map(self._flag, chosen))]

    def _flag(self, setting: Setting) -> list[str]:
        value = setting.of(self.settings)
        if isinstance(value, bool):
            return [setting.flag if value else f"--no-{setting.flag[2:]}"]
        return [setting.flag, as_text(setting, value)]

    def _is_written(self, setting: Setting) -> bool:
        if setting.is_secret:  # all users of a machine can read its command lines
            return False
        return setting.name in _ALWAYS or setting.of(self.settings) != setting.default("start")

    def arguments_in_container(self, *, leave_out: str = "") -> list[str]:
        host = self.server.host
        if host not in (DEFAULTS["start"].server.host, ANYWHERE):
            raise OptionError(f"host is {host!r}; a worker in a container must listen on {ANYWHERE}")
        if self.server.tls_cert is not None:
            raise OptionError(
                "tls_cert is set; the health checks of these files speak no TLS. Leave it out, and add it to the files "
                "by hand, with the mounts of the certificates"
            )
        given = self.arguments(leave_out=leave_out)
        return given if host == ANYWHERE else [*given, "--host", ANYWHERE]

    def token_file(self, default: str = "") -> PurePosixPath | None:
        """Return the path of the token's file, or ``None``. The file is in a folder, which can be mounted."""
        text = self.server.token_file or default
        if text and not re.fullmatch(r"(/[\w@%+=,.-]+){2,}", text, re.ASCII):
            raise OptionError(f"token_file is {text!r}; a deployment needs a path such as /etc/greenroom/token")
        return PurePosixPath(text) if text else None

    def values(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "port": self.server.port,
            "drain_timeout": f"{self.server.drain_timeout:g}",
            "stop_seconds": self.stop_seconds,
            "start_seconds": self.start_seconds,
        }


def systemd(plan: Plan, unit: Systemd, fds_needed: int) -> dict[str, str]:
    """Return the files, by name. ``fds_needed`` is the number of open files that the worker may need."""
    for name in ("user", "directory", "venv"):
        if not _is_plain(getattr(unit, name)):
            raise OptionError(f"{name} is {getattr(unit, name)!r}; it cannot be empty or have control characters")
    command = [str(PurePosixPath(unit.venv, "bin", "greenroom")), *plan.arguments(leave_out="token_file")]
    if unit.systemd_version >= NOTIFY_RELOAD_SINCE:
        service_type = "Type=notify-reload"
    else:
        service_type = "Type=notify\nExecReload=/bin/kill -HUP $MAINPID"
    memory = [] if unit.memory_mb is None else [f"MemoryMax={unit.memory_mb}M"]
    if unit.systemd_version >= SUBGROUP_SINCE:
        memory.insert(0, "DelegateSubgroup=worker")
    values = {
        "app_plain": plan.app.replace("%", "%%"),
        "user": unit.user,
        "directory": unit.directory.replace("%", "%%"),
        "service_type": service_type,
        "command": " ".join(map(_unit_word, command)),
        "token": _credential(plan, unit),
        "memory": "\n".join(memory) or "# With systemd 254 or later: DelegateSubgroup=worker",
        "files": max(fds_needed, LEAST_FILES),
        "tasks": plan.processes * TASKS_PER_PROCESS,
    }
    return {f"{plan.name}.service": fill("systemd.service", plan.values() | values)}


def _credential(plan: Plan, unit: Systemd) -> str:
    file = plan.token_file()
    if file is None:
        return f"# With --token-file /etc/greenroom/{plan.name}.token, `greenroom init` makes the token a credential."
    folder = "%d" if unit.systemd_version >= CREDENTIALS_FOLDER_SINCE else f"/run/credentials/{plan.name}.service"
    path = str(file).replace("%", "%%")
    return (
        "# The token, in a file that only root can read. systemd gives the worker a copy each time it starts.\n"
        f"LoadCredential=token:{path}\n"
        f"Environment=GREENROOM_TOKEN_FILE={folder}/token"
    )


def docker(plan: Plan, image: Docker) -> dict[str, str]:
    for name, pattern in (("user", r"[a-z_][a-z0-9_-]{0,31}"), ("python", r"[0-9]+(\.[0-9]+)*")):
        if not re.fullmatch(pattern, getattr(image, name)):
            raise OptionError(f"{name} is {getattr(image, name)!r}; it must match {pattern}")
    file = plan.token_file()
    values = {
        "token": "-e GREENROOM_TOKEN" if file is None else f'-v "$PWD/token:{file.parent}:ro"',
        "token_hint": "put one into GREENROOM_TOKEN" if file is None else f"put one into the file token/{file.name}",
        "user": image.user,
        "python": image.python,
        "memory": "" if image.memory_mb is None else f"--memory {image.memory_mb}m ",
        "entrypoint": _json(["greenroom"]),
        "arguments": _json(plan.arguments_in_container()),
    }
    filled = fill("Dockerfile", plan.values() | values)
    return {"Dockerfile": filled, ".dockerignore": fill("dockerignore", {})}


def kubernetes(plan: Plan, pods: Kubernetes) -> dict[str, str]:
    if pods.replicas < 1 or pods.max_replicas < pods.replicas:
        raise OptionError(
            f"replicas is {pods.replicas} and max_replicas is {pods.max_replicas}; replicas must be at least 1, and "
            f"max_replicas must not be smaller"
        )
    if not pods.claims_per_second > 0:
        raise OptionError(f"claims_per_second is {pods.claims_per_second:g}; it must be above 0")
    token_file = plan.token_file(MOUNTED_TOKEN)
    assert token_file is not None  # there is a default
    values = {
        "token_file": _json(str(token_file)),
        "token_folder": _json(str(token_file.parent)),
        "token_name": _json(token_file.name),
        "image": _json(pods.image),
        "replicas": pods.replicas,
        "max_replicas": pods.max_replicas,
        "claims_per_second": f"{pods.claims_per_second:g}",
        "prometheus": _json(pods.prometheus),
        "arguments": _json([_without_expansion(each) for each in plan.arguments_in_container(leave_out="token_file")]),
        "grace_seconds": plan.stop_seconds + math.ceil(PRESTOP),
        "prestop_seconds": f"{PRESTOP:g}",
        "startup_failures": math.ceil(plan.start_seconds / 2),
        "resources": _resources(pods.memory_mb),
        "max_jobs": plan.pool.max_jobs,
        "idle_processes": max(plan.pool.num_idle_processes, 1),
    }
    names = ("deployment.yaml", "service.yaml", "pdb.yaml", "podmonitor.yaml", "scaledobject.yaml")
    files = {name: fill(name, plan.values() | values) for name in names}
    return files | {"prometheusrule.yaml": monitoring.prometheus_rule(plan.name)}


def _resources(memory_mb: int | None) -> str:
    if memory_mb is None:
        return (
            "          # Measure the memory of a pod (`greenroom doctor` shows how many sessions fit), and set it:\n"
            "          # resources: {requests: {memory: 4Gi}, limits: {memory: 4Gi}}"
        )
    memory = f"{{memory: {memory_mb}Mi}}"
    return f"          resources: {{requests: {memory}, limits: {memory}}}"


def _unit_word(word: str) -> str:
    """Return a word of a command line, quoted by the rules of systemd.service(5)."""
    word = word.replace("%", "%%").replace("$", "$$")
    if re.fullmatch(r"[\w@%+=:,./$-]+", word, re.ASCII):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _without_expansion(argument: str) -> str:
    """Escape ``$(NAME)`` in an argument, since Kubernetes would replace it with a variable's value."""
    return argument.replace("$(", "$$(")


def _json(value: object) -> str:
    """Return JSON, which YAML and Docker accept as a list or a quoted string."""
    return json.dumps(value, ensure_ascii=False)


def _is_plain(text: str) -> bool:
    return bool(text) and all(char.isprintable() for char in text)


def fill(template: str, values: dict[str, Any]) -> str:
    """Return a template with these values."""
    text = (resources.files(__package__) / "templates" / template).read_text(encoding="utf-8")
    return Template(text).substitute(values)
