"""``python -X importtime -m greenroom.doctor.probe FD LIFELINE_FD``: one real load of an app, as the zygote does it.

Reads an order from stdin, writes one JSON object to FD, and ends everything that was started. The marks on
stderr tell the app's imports from what this program imports itself.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import time
from typing import Any

from ..app_setting import packed
from ..errors import ErrorInfo
from ..system import lifeline, mark, prctl, proc, stackdump

# Everything that the zygote has imported when it begins to load: it is not the app's to pay for.
from ..zygote import census, template, undertaker
from ..zygote.import_hooks import BEFORE_FORK, LOADING, change_defaults, watched_imports
from ..zygote.inherited_files import InheritedFiles, open_fds
from ..zygote.integrations import Watchers
from ..zygote.loader import load_app, refuse_forks_of_numba, refuse_replaced_library

__all__ = ["BEGIN", "END"]

BEGIN = "greenroom doctor: the app's imports begin"
END = "greenroom doctor: the app's imports have ended"

assert template


def main() -> None:
    fd, lifeline_fd = map(int, sys.argv[1:3])
    del sys.argv[1:]
    lifeline.arm(lifeline_fd)
    os.set_inheritable(lifeline_fd, False)
    faulthandler.register(stackdump.SIGNAL, file=2, all_threads=True)
    prctl.set_child_subreaper()  # what the app starts stays below this process, and is ended with it
    os.set_inheritable(fd, False)
    order = json.loads(sys.stdin.readline())
    mark.put(order["token"])
    sys.path[:] = order["sys_path"]
    try:
        watched = BEFORE_FORK if order["start_method"] == "zygote" else LOADING
        told = _load(order["app"], order["handed"], watched, order["allow_threads"])
    except BaseException as error:  # SystemExit too: whatever user code raises is the answer
        found = ErrorInfo.of(error, limit=6000)
        told = {"error": {"type": found.type, "message": found.message, "traceback": found.traceback}}
    undertaker.end_all_children()
    with open(fd, "w") as answer:
        json.dump(told, answer)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # a thread that the app has left would hold up any other exit


def _load(reference: str, handed: dict[str, Any] | None, watched: Watchers, allow_threads: list[str]) -> dict[str, Any]:
    before = open_fds()
    change_defaults()
    _mark(BEGIN)
    begin = time.monotonic()
    with watched_imports(watched):
        app = load_app(reference, ["start"], handed)
        imported = time.monotonic()
        if app.preload_fn is not None:
            app.preload_fn()
        preloaded = time.monotonic()
    refuse_replaced_library()
    if watched is BEFORE_FORK:
        refuse_forks_of_numba()
    _mark(END)
    permit = census.Permit(app.allow_threads.union(allow_threads), app.prewarm_name)
    census.refusal(permit)  # has the patience for threads that are on their way out
    return {
        "import_seconds": imported - begin,
        "preload_seconds": preloaded - imported,
        "threads": [str(thread) for thread in census.extra_threads() if not thread.is_restarted],
        "allowed_threads": sorted(permit.allowed),
        "prewarm_name": app.prewarm_name,
        "remedies": census.remedies(census.extra_threads()),
        "fds": InheritedFiles(before).warnings,
        "children": [_described(pid) for pid in proc.children(os.getpid())],
        "has_preload": app.preload_fn is not None,
        "has_prewarm": app.prewarm_fn is not None,
        "settings": packed(app.settings),
    }


def _mark(text: str) -> None:
    os.write(2, f"\n{text}\n".encode())  # where the interpreter writes, whatever the app has made of sys.stderr


def _described(pid: int) -> str:
    """Its command line; its name, where it has none or not yet."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as words, open(f"/proc/{pid}/comm") as name:
            command = words.read(200).replace(b"\0", b" ").decode("utf-8", "replace").strip() or name.read().strip()
    except OSError:
        command = "ended since"
    return f"{command} (pid {pid})"


if __name__ == "__main__":
    main()
