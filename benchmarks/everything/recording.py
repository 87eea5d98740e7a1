"""Saves the worker's flight recording of a violation, and tells whether it replays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

__all__ = ["save_recording"]

SECONDS = 60.0


def save_recording(url: str, folder: Path) -> list[str]:
    """Write the recording of the worker, or else of its crash, into a file, and replay that; return what came of it."""
    saved = folder / "incident.jsonl"
    lines = []
    for source in (("--url", url), ("--crashed",)):
        record = _greenroom("debug", "record", *source)
        if record.returncode == 0:
            saved.write_bytes(record.stdout)
            return [*lines, _replayed(saved)]
        lines.append(f"no recording by {' '.join(source)} ({record.returncode}): {_last_line(record)}")
    return lines


def _replayed(saved: Path) -> str:
    replay = _greenroom("debug", "replay", str(saved))
    verdict = "it replays" if replay.returncode == 0 else f"it does not replay (exit code {replay.returncode})"
    return f"recording: {saved}, {saved.stat().st_size} bytes; {verdict}: {_last_line(replay)}"


def _greenroom(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [str(Path(sys.executable).with_name("greenroom")), *arguments]
    try:
        return subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as late:
        complaint = f"it took longer than {SECONDS:g} s".encode()
        return subprocess.CompletedProcess(command, 124, late.stdout or b"", complaint)


def _last_line(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = [line for line in (done.stderr or done.stdout).decode(errors="replace").splitlines() if line.strip(" │╰─╯")]
    return lines[-1].strip(" │") if lines else "it printed nothing"
