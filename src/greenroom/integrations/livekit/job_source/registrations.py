"""Servers and agents of a worker, from the settings, the environment and the app's manifest. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from .... import __version__
from ....errors import GreenroomError
from ..options import LiveKitOptions

__all__ = ["ConfigError", "Registration", "Server", "registrations", "time_for_session_end"]

_DEPLOYMENT = "LIVEKIT_AGENT_DEPLOYMENT"
_LONGEST_DEPLOYMENT = 64
_KINDS = ("room", "publisher", "participant")
_DEFAULT_PERMISSIONS = {
    "can_publish": True,
    "can_subscribe": True,
    "can_publish_data": True,
    "can_update_metadata": True,
}
_SCHEMES = {"ws": "http", "wss": "https", "http": "http", "https": "https"}


class ConfigError(GreenroomError):
    """Error of a configuration that lacks a server, a key or an agent, or has an invalid one."""


@dataclass(frozen=True, slots=True)
class Server:
    """LiveKit server, with its API key."""

    url: str
    """URL (ws or wss) with which agents join rooms."""
    api_key: str
    api_secret: str = field(repr=False)
    proxy: str | None = field(default=None, repr=False)
    """URL of the proxy to the server, before any proxy of the environment. The URL may hold a password."""

    @property
    def http_url(self) -> str:
        """URL (http or https) of the server's API and of its WebSockets."""
        parts = urlsplit(self.url)
        return urlunsplit((_SCHEMES[parts.scheme], parts.netloc, parts.path.rstrip("/"), "", ""))

    @property
    def agent_url(self) -> str:
        return f"{self.http_url}/agent"


@dataclass(frozen=True, slots=True)
class Registration:
    """One agent on one server. Each registration has a connection of its own."""

    server: Server
    agent_name: str
    """Name of the agent; empty for an agent that the server dispatches to each new room."""
    kind: str
    """``room``, ``publisher`` or ``participant``."""
    permissions: Mapping[str, Any]
    deployment: str = ""
    """Deployment of the worker. The server sends a deployment's jobs to its workers alone, and these get no others."""
    version: str = __version__
    """Version that the server shows: livekit-agents', if the app uses it, or else Greenroom's."""

    @property
    def ids(self) -> dict[str, str]:
        """Fields of all log lines about this registration."""
        return {"server": self.server.url, "agent": self.agent_name}

    def __str__(self) -> str:
        agent = f"agent {self.agent_name!r}" if self.agent_name else "the agent without a name"
        if self.deployment:
            agent += f", deployment {self.deployment!r},"
        return f"{agent} at {self.server.url}"


def registrations(
    options: LiveKitOptions, manifest: Mapping[str, Any], environment: Mapping[str, str]
) -> list[Registration]:
    """Return the registrations. The settings come first, then LiveKit's environment variables, then the manifest.

    Raises :class:`ConfigError`.
    """
    kind = manifest.get("worker_type") or "room" if options.livekit_type == "app" else options.livekit_type
    if kind not in _KINDS:
        raise ConfigError(f"the app's worker type is {kind!r}; it can be {', '.join(_KINDS)}")
    permissions = {**_DEFAULT_PERMISSIONS, **(manifest.get("permissions") or {})}
    servers = _servers(options, manifest, environment)
    names = _names(options, manifest)
    deployment = _deployment(manifest, environment)
    version = manifest.get("livekit_agents_version") or __version__
    return [Registration(server, name, kind, permissions, deployment, version) for server in servers for name in names]


def time_for_session_end(manifest: Mapping[str, Any], shutdown_timeout: float) -> str | None:
    """Return a warning if ``on_session_end`` may run longer than ``shutdown_timeout``; otherwise ``None``."""
    seconds = manifest.get("session_end_seconds") or 0.0
    if seconds <= shutdown_timeout:
        return None
    return (
        f"on_session_end may run for {seconds:g} s (session_end_timeout). If a drain or a deleted dispatch ends the "
        f"job, it is cut off after {shutdown_timeout:g} s. Set shutdown_timeout to the time that it needs"
    )


def _deployment(manifest: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    """Return the deployment from the environment, or else from the app, which may have read it from a .env file."""
    name = environment.get(_DEPLOYMENT) or manifest.get("deployment") or ""
    # For any other name, a server closes the connection without a message.
    if len(name.encode()) > _LONGEST_DEPLOYMENT or "_" in name or not name.isprintable() or any(map(str.isspace, name)):
        raise ConfigError(
            f"{_DEPLOYMENT} is {name!r}; it must have at most {_LONGEST_DEPLOYMENT} bytes, without blanks and without _"
        )
    return name


def _names(options: LiveKitOptions, manifest: Mapping[str, Any]) -> list[str]:
    text = options.livekit_agent_name
    if text is None:
        text = manifest.get("agent_name") or ""
    return list(dict.fromkeys(name.strip() for name in text.split(",")))


def _servers(options: LiveKitOptions, manifest: Mapping[str, Any], environment: Mapping[str, str]) -> list[Server]:
    urls = _split(_first(options.livekit_url, environment.get("LIVEKIT_URL"), manifest.get("ws_url")))
    key = _first(options.livekit_api_key, environment.get("LIVEKIT_API_KEY"), manifest.get("api_key"))
    secret = _first(options.livekit_api_secret, environment.get("LIVEKIT_API_SECRET"), manifest.get("api_secret"))
    missing = [
        f"{name} (LIVEKIT_{name.removeprefix('livekit_').upper()})"
        for name, values in (("livekit_url", urls), ("livekit_api_key", key), ("livekit_api_secret", secret))
        if not values
    ]
    if missing:
        raise ConfigError(f"the app has a LiveKit agent, but these settings are missing: {', '.join(missing)}")
    for name, values in (("livekit_url", urls), ("livekit_api_key", [key]), ("livekit_api_secret", [secret])):
        _check_characters(name, values)
    for url in urls:
        _check(url)
    every = zip(urls, _for_each(key, len(urls)), _for_each(secret, len(urls)), strict=True)
    proxy = _proxy(manifest, environment)
    return [Server(_ws(url), key, secret, proxy) for url, key, secret in every]


def _proxy(manifest: Mapping[str, Any], environment: Mapping[str, str]) -> str | None:
    """Return the app's own proxy; ``None`` for one that LiveKit has copied from the environment.

    aiohttp reads the environment's proxies itself, and obeys ``NO_PROXY``.
    """
    proxy = manifest.get("http_proxy") or None
    return proxy if proxy != (environment.get("HTTPS_PROXY") or environment.get("HTTP_PROXY")) else None


def _for_each(text: str | None, count: int) -> list[str]:
    """Return one part for each server if the numbers agree; or else the whole text, with its commas, for each."""
    parts = _split(text)
    return parts if len(parts) == count > 1 else [text or ""] * count


def _split(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _first(*texts: str | None) -> str:
    """Return the first text that is not blank, without blanks around it: secrets often end in a line feed."""
    return next((stripped for text in texts if (stripped := (text or "").strip())), "")


def _check_characters(name: str, values: list[str]) -> None:
    if any(not value.isprintable() for value in values):
        variable = f"LIVEKIT_{name.removeprefix('livekit_').upper()}"
        raise ConfigError(f"{name} ({variable}) contains a line break or another control character. Set it again")


def _check(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES or not parts.hostname or any(map(str.isspace, url)):
        raise ConfigError(f"livekit_url is {url!r}; it must be like wss://livekit.example.com or ws://127.0.0.1:7880")


def _ws(url: str) -> str:
    return url.replace("http", "ws", 1) if url.startswith("http") else url
