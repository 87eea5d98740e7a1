"""Print the path of the LiveKit server that the tests run; the first time it is built with the Go toolchain.

LiveKit publishes its server as a Go module; no package index that the tests use carries the binary. Building it
takes some minutes, so it is done once for a user and kept in ``$XDG_CACHE_HOME/greenroom`` (``~/.cache/greenroom``).
Exit codes: 0 the path is on stdout, 1 the build failed, 2 wrong usage, 3 it is not built and there is no Go.
Standard library only: this may run before anything is installed.
"""

import argparse
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

VERSION = "v1.13.5"
MODULE = f"github.com/livekit/livekit-server/cmd/server@{VERSION}"
BUILD_SECONDS = 900
BUILD_FAILED = 1
NO_GO = 3


class NotBuilt(Exception):
    """Error that names the reason why there is no server. ``code`` is the exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def cached() -> Path:
    """Where the server is kept, whether it is there or not."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "greenroom" / f"livekit-server-{VERSION}"


def is_built() -> bool:
    return os.access(cached(), os.X_OK)


def can_build() -> bool:
    return shutil.which("go") is not None


def ensure() -> Path:
    """The server's path, after building it if need be; raises ``NotBuilt``."""
    if is_built():
        return cached()
    if not can_build():
        raise NotBuilt(f"{cached()} does not exist, and `go` is not in PATH to build it", NO_GO)
    cached().parent.mkdir(parents=True, exist_ok=True)
    with cached().with_name(f"{cached().name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released with the file, also when this process is killed
        if not is_built():  # by the one that held the lock
            _build()
    return cached()


def _build() -> None:
    print(f"Building {MODULE}, once; this takes some minutes ...", file=sys.stderr, flush=True)
    # Beside its final place: a rename within one file system is atomic, so a half-written server is never found.
    with tempfile.TemporaryDirectory(dir=cached().parent, prefix="build-") as gobin:
        _go_install(gobin)
        os.replace(Path(gobin) / "server", cached())


def _go_install(gobin: str) -> None:
    # Without cgo no C compiler is needed, and the server runs whatever libc the machine has.
    env = {**os.environ, "GOBIN": gobin, "CGO_ENABLED": "0"}
    command = ["go", "install", "-trimpath", "-ldflags=-s -w", MODULE]
    try:
        done = subprocess.run(
            command,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=BUILD_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotBuilt(f"`{' '.join(command)}` took longer than {BUILD_SECONDS} s", BUILD_FAILED) from None
    if done.returncode:
        output = "\n".join(done.stdout.strip().splitlines()[-20:])
        raise NotBuilt(f"`{' '.join(command)}` failed with exit code {done.returncode}:\n{output}", BUILD_FAILED)


def main() -> int:
    parser = argparse.ArgumentParser(description="Print the path of the LiveKit server for tests; build it if needed.")
    parser.parse_args()
    try:
        print(ensure())
    except NotBuilt as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
