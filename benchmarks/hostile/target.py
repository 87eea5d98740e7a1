"""What an attack knows of the worker, and how it reaches it: loopback sockets, from addresses of the attackers' own."""

from __future__ import annotations

import http.client
import json
import random
import socket
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any

# The worker bounds requests by address. The honest clients have 127.0.0.1, as if behind another line.
ADDRESSES = tuple(f"127.0.0.{number}" for number in range(10, 18))
INSIDER = "127.0.0.9"
_printing = threading.Lock()


def report(**facts: Any) -> None:
    """Send facts to the main process."""
    with _printing:
        print(json.dumps(facts), flush=True)


@dataclass
class Target:
    host: str
    port: int
    pid: int
    token: str | None
    rate: float = 1.0
    """Multiplies how often each attack strikes."""
    random: random.Random = field(default_factory=random.Random)

    def connect(self, timeout: float = 5.0, source: str | None = None) -> socket.socket:
        """Open a connection from one of the attackers' addresses."""
        return socket.create_connection(
            (self.host, self.port), timeout, source_address=(source or self.random.choice(ADDRESSES), 0)
        )

    def head(self, line: str, *headers: str) -> bytes:
        return "\r\n".join([f"{line} HTTP/1.1", f"Host: {self.host}", *headers, "", ""]).encode()

    def post(self, *headers: str) -> bytes:
        """The head of a request that would start a session."""
        return self.head("POST /v1/jobs", "Content-Type: application/json", *headers)

    @property
    def authorization(self) -> tuple[str, ...]:
        return (f"Authorization: Bearer {self.token}",) if self.token else ()

    def ask(self, method: str, path: str, body: object = None, timeout: float = 20.0) -> tuple[int, Any]:
        """Ask as somebody who has the token. Raises OSError if there is no answer."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout, source_address=(INSIDER, 0))
        headers = {"Content-Type": "application/json"} | (
            {"Authorization": f"Bearer {self.token}"} if self.token else {}
        )
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        except (http.client.HTTPException, ValueError) as error:
            raise OSError(f"the answer is not valid: {error!r}") from error
        finally:
            connection.close()

    def start(self, attack: str, wants: str, **metadata: Any) -> str | None:
        """Start a session that attacks from inside; returns its id if it was accepted."""
        job_id = f"{attack}-{self.random.getrandbits(40):010x}"
        begin = time.monotonic()
        try:
            status, answer = self.ask("POST", "/v1/jobs", {"id": job_id, "metadata": metadata, "timeout": 5})
        except OSError as error:
            status, answer = 0, {"error": {"reason": f"no answer ({type(error).__name__})"}}
        error = answer.get("error") or {}
        outcome = "accepted" if status == 201 else str(error.get("reason") or error.get("type"))
        seconds = round(time.monotonic() - begin, 3)
        report(session={"id": job_id, "kind": attack, "wants": wants, "answer": outcome, "seconds": seconds})
        return job_id if status == 201 else None

    def pool(self) -> dict[str, Any]:
        return dict(self.ask("GET", "/v1/pool")[1])

    def is_over(self, job_id: str) -> bool:
        status, answer = self.ask("GET", "/v1/jobs?state=ended&limit=200")
        return status == 200 and any(job["id"] == job_id for job in answer["jobs"])


def settings() -> dict[str, Any]:
    """Return the settings, which the main process sends first as one line of JSON."""
    return dict(json.loads(sys.stdin.readline()))
