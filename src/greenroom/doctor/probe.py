"""``python -X importtime -m greenroom.doctor.probe FD LIFELINE_FD``: one real load of an app, as the zygote does it.

This program reads a JSON object from stdin, writes one to FD, and ends all processes that the app has started. Marks on
stderr separate the imports of the app from the program's own imports.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import time
from typing import Any

from ..app_facts import packed
from ..errors import ErrorInfo
from ..integrations import Watchers
from ..system import lifeline, mark, prctl, proc, stackdump

# All modules that the zygote has imported before it loads the app, so that they do not count as costs of the app.
from ..zygote import deaths, fork_safety, zygote
from ..zygote.import_hooks import BEFORE_FORK, LOADING, change_defaults, watched_imports
from ..zygote.inherited_files import InheritedFiles, open_fds
from ..zygote.loader import load_app, refuse_forks_of_numba, refuse_replaced_library

__all__ = ["BEGIN", "END"]

BEGIN = "greenroom doctor: the app's imports begin"
END = "greenroom doctor: the app's imports have ended"

assert zygote


def main() -> None:
    fd, lifeline_fd = map(int, sys.argv[1:3])
    del sys.argv[1:]
    lifeline.arm(lifeline_fd)
    os.set_inheritable(lifeline_fd, False)
    faulthandler.register(stackdump.SIGNAL, file=2, all_threads=True)
    prctl.set_child_subreaper()  # processes that the app starts stay below this one, and are ended with it
    os.set_inheritable(fd, False)
    request = json.loads(sys.stdin.readline())
    mark.put(request["token"])
    sys.path[:] = request["sys_path"]
    try:
        watched = BEFORE_FORK if request["start_method"] == "zygote" else LOADING
        answer = _load(request, watched)
    except BaseException as error:  # also SystemExit: any exception of user code is the answer
        found = ErrorInfo.of(error, limit=6000)
        answer = {"error": {"type": found.type, "message": found.message, "traceback": found.traceback}}
    deaths.end_all_children()
    with open(fd, "w") as pipe:
        json.dump(answer, pipe)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # any other exit would wait for threads that the app has left


def _load(request: dict[str, Any], watched: Watchers) -> dict[str, Any]:
    before = open_fds()
    change_defaults()
    _mark(BEGIN)
    begin = time.monotonic()
    with watched_imports(watched):
        app = load_app(request["app"], request["arguments"], request["handed"])
        imported = time.monotonic()
        if app.preload_fn is not None:
            app.preload_fn()
        preloaded = time.monotonic()
    refuse_replaced_library()
    if watched is BEFORE_FORK:
        refuse_forks_of_numba()
    _mark(END)
    permit = fork_safety.Permit(app.allow_threads.union(request["allow_threads"]), app.prewarm_name)
    fork_safety.refusal(permit)  # waits for threads that are about to end
    return {
        "import_seconds": imported - begin,
        "preload_seconds": preloaded - imported,
        "threads": [str(thread) for thread in fork_safety.extra_threads() if not thread.is_restarted],
        "allowed_threads": sorted(permit.allowed),
        "prewarm_name": app.prewarm_name,
        "remedies": fork_safety.remedies(fork_safety.extra_threads()),
        "fds": InheritedFiles(before).warnings,
        "children": [_described(pid) for pid in proc.children(os.getpid())],
        "has_preload": app.preload_fn is not None,
        "has_prewarm": app.prewarm_fn is not None,
        "settings": packed(app.settings),
    }


def _mark(text: str) -> None:
    os.write(2, f"\n{text}\n".encode())  # the interpreter writes here, even if the app has replaced sys.stderr


def _described(pid: int) -> str:
    """Return the command line of a process, or its name if there is no command line (yet)."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as words, open(f"/proc/{pid}/comm") as name:
            command = words.read(200).replace(b"\0", b" ").decode("utf-8", "replace").strip() or name.read().strip()
    except OSError:
        command = "already ended"
    return f"{command} (pid {pid})"


if __name__ == "__main__":
    main()
