"""Write the lock files: requirements/NAME.lock for each entry of `tool.greenroom.locks` in pyproject.toml.

A lock file names one version and all hashes of each package, for every Python from `requires-python` on. It names no
registry, so it serves whatever registry or mirror pip is set up with. Locked versions stay unless pyproject.toml
forbids them. `make lock ARGS=--upgrade` takes the newest ones.
"""

import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [
    *(sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--generate-hashes"),
    *("--custom-compile-command", "make lock"),
]


def arguments(name: str, content: dict[str, Any], python: str) -> Iterator[str]:
    """The arguments of `uv pip compile` for one lock file."""
    yield from ("--python-version", python, "--output-file", f"requirements/{name}.lock", *content.get("options", []))
    for extra in content.get("extras", []):
        yield from ("--extra", extra)
    for group in content.get("groups", []):
        yield from ("--group", group)
    if content.get("project", True):
        yield "pyproject.toml"


def main(options: list[str]) -> int:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    python = project["project"]["requires-python"].removeprefix(">=")
    agreed: list[str] = []
    for name, content in project["tool"]["greenroom"]["locks"].items():
        command = [*COMMAND, *options, *arguments(name, content, python), *agreed]
        if code := subprocess.run(command, cwd=ROOT, check=False).returncode:
            print(f"error: requirements/{name}.lock was not written: uv failed with status {code}.", file=sys.stderr)
            return 1
        # The first file holds most packages. The others take their versions from it.
        agreed = agreed or ["--constraint", f"requirements/{name}.lock"]
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
