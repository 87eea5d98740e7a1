"""The files that `greenroom init haproxy` writes: what is in them, and what HAProxy says to them."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import commands
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines.haproxy import check

from greenroom import PoolOptions
from greenroom.cli.deployment import Plan
from greenroom.cli.haproxy import HEADERS_BYTES, Haproxy, WorkerAddress, haproxy_files, read_worker
from greenroom.errors import OptionError
from greenroom.server.web.schema import ErrorBody
from greenroom.settings import ServerOptions, Settings

WORKERS = ("a=127.0.0.1:8701", "b=127.0.0.1:8702", "c=[::1]:8703")
TOKEN = "0123456789abcdef"


def written(
    *, pool: dict[str, Any] | None = None, server: dict[str, Any] | None = None, **front: Any
) -> dict[str, str]:
    settings = Settings(pool=PoolOptions(**(pool or {})), server=ServerOptions(**(server or {})))
    plan = Plan(app="agent.py", name="agent", settings=settings)
    workers = tuple(map(read_worker, front.pop("workers", WORKERS)))
    return haproxy_files(plan, Haproxy(workers=workers, **front))


def config(**options: Any) -> str:
    return written(**options)["haproxy.cfg"]


def section(text: str, name: str) -> list[str]:
    """Return the lines of a section, without comments."""
    (part,) = re.findall(rf"^{name} from \w+\n((?: .*\n|\n(?= ))*)", text, re.M)
    return [line.strip() for line in part.splitlines() if line.strip() and not line.strip().startswith("#")]


def number(text: str, directive: str) -> int:
    (found,) = re.findall(rf"^ +{directive} (\d+)s?$", text, re.M)
    return int(found)


# --- what is in them -----------------------------------------------------------------------------


@given(body=st.integers(min_value=1, max_value=1 << 28))
def test_a_buffer_holds_the_largest_request(body: int) -> None:
    assert number(config(server={"max_request_bytes": body}), "tune.bufsize") >= body + HEADERS_BYTES


@given(offer=st.floats(0, 1e6), start=st.floats(0.01, 1e6), request=st.floats(0.01, 1e6), launch=st.floats(0.01, 1e6))
def test_haproxy_waits_for_the_longest_start(offer: float, start: float, request: float, launch: float) -> None:
    pool = {"start_timeout": start, "request_timeout": request, "launch_timeout": launch}
    text = config(pool=pool, server={"offer_timeout": offer})
    (seconds,) = re.findall(r"^defaults greenroom_starts .*?^    timeout server (\d+)s$", text, re.M | re.S)
    assert int(seconds) > offer + request + max(start, launch)


def test_the_defaults_are_those_that_were_measured() -> None:
    text = config()
    assert "timeout server 15s" in text
    assert number(text, "tune.bufsize") == 1024 * 1024 + 32 * 1024
    assert re.findall(r"^    retries (\d+)$", text, re.M)[0] == "8"
    assert "retry-on 503 conn-failure\n" in text
    assert "check inter 500ms fastinter 200ms downinter 50ms fall 2 rise 1" in text


@pytest.mark.parametrize("count", [1, 2, 5])
def test_each_worker_is_in_each_backend_and_has_one_of_its_own(count: int) -> None:
    names = [f"w{number}" for number in range(count)]
    text = config(workers=[f"{name}=10.0.0.5:{8700 + number}" for number, name in enumerate(names)])
    for backend in ("starts", "starts_by_id", "lookups"):
        servers = [line.split()[1] for line in section(text, f"backend {backend}") if line.startswith("server ")]
        assert servers == names
    for name in names:
        (server,) = (line for line in section(text, f"backend at_{name}") if line.startswith("server "))
        assert server.split()[1] == name
        assert server.endswith(f"track lookups/{name}")
    assert re.findall(r"^    retries (\d+)$", text, re.M)[0] == str(2 * count + 2)
    assert f"nbsrv(lookups) lt {count}" in text
    assert f"-m str {' '.join(names)}\n" in text


def test_a_broken_start_is_repeated_only_if_that_is_wanted() -> None:
    assert not re.search(r"^[^#]*(empty-response|response-timeout)", config().partition("# --- lookups")[0], re.M)
    text = config(rerun_broken=True)
    assert "    retry-on 503 conn-failure empty-response response-timeout\n" in text
    answers = [written(rerun_broken=rerun)["start-503.http"] for rerun in (False, True)]
    assert ["did not begin, and will not" in answer for answer in answers] == [True, False]


def test_each_answer_has_the_form_of_the_api() -> None:
    files = written()
    named = set(re.findall(r"\b([\w-]+\.http)\b", files["haproxy.cfg"]))
    assert named == {name for name in files if name.endswith(".http")}
    kinds = {}
    for name in named:
        head, _, body = files[name].partition("\r\n\r\n")
        status, *headers = head.split("\r\n")
        fields = dict(line.split(": ") for line in headers)
        error = msgspec.json.decode(body, type=ErrorBody).error
        assert status.split()[:2] == ["HTTP/1.1", name.removesuffix(".http").rpartition("-")[2]]
        assert int(fields["Content-Length"]) == len(body.encode())
        assert fields["Content-Type"].startswith("application/json")
        assert ("Retry-After" in fields) == name.endswith("503.http")
        kinds[name.removesuffix(".http")] = error.type
    assert kinds == {
        "408": "body_timeout",
        "start-502": "start_unknown",
        "start-503": "no_worker",
        "start-504": "start_unknown",
        "lookup-502": "worker_unreachable",
        "lookup-503": "worker_unreachable",
        "lookup-504": "worker_unreachable",
    }
    for text in re.findall(r"string '([^']*)'", config(token_env="FRONT_TOKEN")):
        assert msgspec.json.decode(text, type=ErrorBody).error.type in ("not_found", "unauthorized")


def test_the_commands_for_the_workers_are_those_of_the_addresses() -> None:
    lines = [line.lstrip("# ") for line in config().splitlines() if "greenroom start" in line]
    words = [shlex.split(line)[3:] for line in lines]
    assert words[0] == ["--worker-name", "a", "--host", "127.0.0.1", "--port", "8701"]
    assert words[2] == ["--worker-name", "c", "--host", "::1", "--port", "8703"]


def test_tls_and_the_token_of_clients() -> None:
    text = config(worker_ca="/etc/ca.pem", proxy_cert="/etc/proxy.pem", token_env="FRONT_TOKEN", bind="*:443")
    servers = re.findall(r"^    server .*$", text, re.M)
    assert len(servers) == 3 * 3 + 3
    for line in servers:
        wanted = f"ssl verify required ca-file /etc/ca.pem crt /etc/proxy.pem verifyhost {line.split()[1]}"
        assert wanted in line
    assert "http-request del-header Authorization" in text
    assert "${FRONT_TOKEN}" in text
    plain = config(token_env="FRONT_TOKEN")
    assert "del-header" not in plain, "workers without TLS may have a token of their own"
    assert " ssl " not in "".join(re.findall(r"^    server .*$", plain, re.M))
    assert "secure_memcmp" not in config()


@pytest.mark.parametrize(
    "options",
    [
        {"workers": []},
        {"workers": ["a"]},
        {"workers": ["A=127.0.0.1:1"]},
        {"workers": ["a=127.0.0.1"]},
        {"workers": ["a=127.0.0.1:0"]},
        {"workers": ["a=127.0.0.1:65536"]},
        {"workers": ["a=x y:1"]},
        {"workers": [f"{'a' * 33}=127.0.0.1:1"]},
        {"workers": ["a=127.0.0.1:1", "a=127.0.0.1:2"]},
        {"workers": ["a=127.0.0.1:1", "b=127.0.0.1:1"]},
        {"bind": "8080"},
        {"bind": "127.0.0.1:0"},
        {"bind": "127.0.0.1:80 ssl"},
        {"token_env": "A-B"},
        {"token_env": "A}\nglobal"},
        {"worker_ca": "/etc/ca.pem"},
        {"proxy_cert": "/etc/proxy.pem"},
        {"worker_ca": "ca.pem", "proxy_cert": "/etc/proxy.pem"},
        {"worker_ca": "/etc/ca.pem", "proxy_cert": "/etc/my proxy.pem"},
        {"worker_ca": "/etc/ca.pem", "proxy_cert": "/etc/proxy.pem", "bind": ":8080"},
        {"worker_ca": "/etc/ca.pem", "proxy_cert": "/etc/proxy.pem", "bind": "*:8080"},
        {"worker_ca": "/etc/ca.pem", "proxy_cert": "/etc/proxy.pem", "bind": "[::]:8080"},
    ],
)
def test_what_would_make_nonsense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        written(**options)


@pytest.mark.parametrize("token", ["auto", None])
def test_nobody_beyond_this_machine_starts_jobs_without_a_token(token: str | None) -> None:
    """Workers at a loopback address ask local clients for none, and HAProxy is one."""
    open_to_all = {"bind": ":8080", "server": {"token": token}}
    with pytest.raises(OptionError, match="every client that reaches HAProxy could start jobs"):
        written(**open_to_all)
    assert written(**open_to_all, token_env="FRONT_TOKEN")
    assert written(**open_to_all | {"bind": "localhost:8080"})
    assert written(**open_to_all | {"server": {"token": TOKEN}})
    assert written(**open_to_all, workers=["a=10.0.0.5:8700"])  # these need a token of their own


@given(st.from_regex(r"[a-z0-9-]{1,32}", fullmatch=True), st.integers(1, 65535))
def test_any_name_of_a_worker_is_taken(name: str, port: int) -> None:
    assert read_worker(f"{name}=worker.example.com:{port}") == WorkerAddress(name, f"worker.example.com:{port}")


async def test_the_command_writes_the_files(tmp_path: Path) -> None:
    options = ("--worker", "a=127.0.0.1:8701", "--worker", "b=127.0.0.1:8702", "--offer-timeout", "20")
    pipe = asyncio.subprocess.PIPE
    process = await commands.start("init", "haproxy", "agent.py", *options, stdout=pipe, stderr=pipe, cwd=tmp_path)
    out, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    text = (tmp_path / "haproxy" / "haproxy.cfg").read_text()
    assert "timeout server 34s" in text
    for name in [*re.findall(r"\b[\w-]+\.http\b", text), "workers.html"]:
        assert (tmp_path / "haproxy" / name).is_file()
        assert f"wrote haproxy/{name}".encode() in out
    process = await commands.start("init", "haproxy", "agent.py", stdout=pipe, stderr=pipe, cwd=tmp_path)
    _, err = await process.communicate()
    assert process.returncode == 2
    assert b"--worker" in err


# --- what HAProxy says to them -------------------------------------------------------------------

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "one-worker": {"workers": ("a=127.0.0.1:8701",)},
    "rerun": {"rerun_broken": True},
    "token": {"token_env": "FRONT_TOKEN"},
    "any-address": {"bind": ":8080", "server": {"token": TOKEN}},
    "tls": {"token_env": "FRONT_TOKEN", "tls": True},
}


@pytest.fixture
def certificate(tmp_path: Path) -> Callable[[], tuple[str, str]]:
    """Make an authority, and the certificate of a proxy with its key in one file."""

    def make() -> tuple[str, str]:
        ca, key, proxy = tmp_path / "ca.pem", tmp_path / "key.pem", tmp_path / "proxy.pem"
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=proxy"
        assert os.system(f"{command} -keyout {key} -out {ca} 2>/dev/null") == 0
        proxy.write_text(ca.read_text() + key.read_text())
        return str(ca), str(proxy)

    return make


@pytest.mark.more
@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("case", CASES)
async def test_haproxy_accepts_the_file_without_a_warning(
    case: str, certificate: Callable[[], tuple[str, str]], tmp_path: Path
) -> None:
    options = dict(CASES[case])
    if options.pop("tls", False):
        options["worker_ca"], options["proxy_cert"] = certificate()
    for name, text in written(**options).items():
        (tmp_path / name).write_text(text)
    # The other files are found from any folder: this one is not theirs.
    code, said = await check(tmp_path / "haproxy.cfg", env={**os.environ, "FRONT_TOKEN": TOKEN})
    assert code == 0, said
    assert "WARNING" not in said


@pytest.mark.more
@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("token", [None, ""])
async def test_haproxy_does_not_start_without_the_token(token: str | None, tmp_path: Path) -> None:
    for name, text in written(token_env="FRONT_TOKEN").items():
        (tmp_path / name).write_text(text)
    env = {name: value for name, value in os.environ.items() if name != "FRONT_TOKEN"}
    code, said = await check(tmp_path / "haproxy.cfg", env=env if token is None else {**env, "FRONT_TOKEN": token})
    assert code != 0
    assert "the variable FRONT_TOKEN is empty" in said
