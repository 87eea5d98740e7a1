"""Access tokens for LiveKit servers, signed with HS256, the only algorithm that the servers accept. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

__all__ = ["Signer", "claims_of"]

WORKER_SECONDS = 600
"""Seconds. The server checks a worker's token at the opening of the connection only."""
JOB_SECONDS = 3600
API_SECONDS = 60
_CLOCK_SLACK = 30


class Signer:
    """Signer of tokens with one key. ``now`` is Unix time, in seconds."""

    def __init__(self, api_key: str, api_secret: str) -> None:
        self._key = api_key
        self._secret = api_secret.encode()

    def worker(self, now: float) -> str:
        """Return a token for a worker's registration."""
        return self.sign({"sub": "", "video": {"agent": True}}, now, WORKER_SECONDS)

    def api(self, now: float, **grants: Any) -> str:
        """Return a token for one call of the server's API.

        ``grants`` are such as ``roomList=True`` or ``roomAdmin=True, room=...``.
        """
        return self.sign({"sub": "greenroom", "video": grants}, now, API_SECONDS)

    def again(self, token: str, now: float) -> str:
        """Return a token with the grants of an earlier one, which may have expired. Raises ``ValueError``."""
        claims = {name: value for name, value in claims_of(token).items() if name not in ("iat", "jti")}
        return self.sign(claims, now, JOB_SECONDS)

    def sign(self, claims: Mapping[str, Any], now: float, seconds: int) -> str:
        times = {"iss": self._key, "nbf": int(now) - _CLOCK_SLACK, "exp": int(now) + seconds}
        text = f"{_part({'alg': 'HS256', 'typ': 'JWT'})}.{_part({**claims, **times})}"
        signature = hmac.new(self._secret, text.encode(), hashlib.sha256).digest()
        return f"{text}.{_base64(signature)}"


def claims_of(token: str) -> dict[str, Any]:
    """Return the claims of a token, without a check of its signature. Raises ``ValueError`` if it is no token."""
    parts = token.split(".")
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (IndexError, binascii.Error, ValueError) as error:
        raise ValueError(f"not a token: {error}") from None
    if not isinstance(claims, dict):
        raise ValueError("not a token: its claims are no object")
    return claims


def _part(value: Mapping[str, Any]) -> str:
    return _base64(json.dumps(value, separators=(",", ":")).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
