"""Make a virtual environment that has pip, also where the system's Python lacks `ensurepip`.

Debian and Ubuntu package `ensurepip` apart (python3-venv), so `python3 -m venv` fails on a machine that has
Python and pip alone. Standard library only: this runs before anything is installed.
"""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

PIP_LOCK = Path(__file__).resolve().parent.parent / "requirements" / "pip.lock"
HELP = """\
error: no virtual environment could be made with {python}:
{reasons}
Install what is missing (on Debian: apt-get install python3-venv) or name another Python: make PYTHON=..."""


def attempts(venv: Path) -> list[tuple[str, list[list[str]]]]:
    """What to try, in order: the modules that it needs, and its commands."""
    inner = str(venv / "bin" / "python")
    # An environment that runs is only completed: uv makes them without pip.
    clear = ["--clear"] if failure([inner, "-c", ""]) else []
    python = [sys.executable, "-m"]
    pip = [*python, "pip", "--disable-pip-version-check", "--python", inner]
    return [
        ("venv ensurepip", [[*python, "venv", *clear, str(venv)]]),
        (
            "venv pip",
            [
                [*python, "venv", *clear, "--without-pip", str(venv)],
                [*pip, "install", "--quiet", "--require-hashes", "-r", str(PIP_LOCK)],
            ],
        ),
        ("virtualenv", [[*python, "virtualenv", "--quiet", *clear, str(venv)]]),
    ]


def has_pip(venv: Path) -> bool:
    return failure([str(venv / "bin" / "python"), "-m", "pip", "--version"]) is None


def failure(command: list[str]) -> str | None:
    """Return the last line that a failing command prints."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    if done.returncode == 0:
        return None
    lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit status {done.returncode}"]
    return lines[-1]


def main(venv: Path) -> int:
    if has_pip(venv):
        return 0
    reasons = []
    for needs, commands in attempts(venv):
        missing = [name for name in needs.split() if find_spec(name) is None]
        if missing:
            reasons.append(f"  {needs}: {', '.join(missing)} not installed")
            continue
        # `next` stops at the first command that fails.
        reason = next((why for command in commands if (why := failure(command))), None)
        if reason is None and has_pip(venv):
            return 0
        reasons.append(f"  {needs}: {reason or 'the environment has no pip'}")
    print(HELP.format(python=sys.executable, reasons="\n".join(reasons)), file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
