"""Table of a launcher's life: ``waiting → preparing → starting → loading → up → closing → lost``.

A launcher is a zygote or, if processes are spawned, a spawner. A zygote is a process of its own, and the parent of its
children. :mod:`.states` explains all states and events.

If the launcher of the serving generation is lost, another launcher takes its place: see :func:`replace_missing`. The
processes of the lost launcher live on, as children of the supervisor.
"""

from __future__ import annotations

from ...errors import AppLoadError, PrewarmError
from ..events import ZygoteLost
from . import accounts
from .generation import learn, make, make_launcher, reason_not_to_load
from .records import Generation, Launcher, Pool
from .state_machine import Machine, Row, quiet, register, step
from .states import Bound, GenerationEvent, GenerationState, JobQueueState, ProcessEvent
from .states import LauncherEvent as E
from .states import LauncherState as S
from .vocabulary import (
    ERROR,
    WARNING,
    CloseLauncher,
    DumpLauncher,
    ForgetLauncher,
    KillLauncher,
    LauncherBroke,
    LauncherDumped,
    LauncherFailed,
    LauncherLoaded,
    LauncherLost,
    LauncherSpawned,
    Log,
    StartLauncher,
)

__all__ = ["FINAL", "TABLE", "UNBOUNDED", "broke", "failed", "loaded", "replace_missing", "reported"]

CLOSE_TIMEOUT = 3.0
"""Seconds for a launcher to exit when it is not needed any more and has no children."""
KILL_TIMEOUT = 5.0
"""Seconds from SIGKILL until SIGKILL is sent again."""
GIVE_UP_TIMEOUT = 10.0
"""Seconds from the second SIGKILL until the launcher is given up, and treated as lost."""
DUMP_TIMEOUT = 15.0
"""Seconds to wait for the stacks of a launcher that did not load the app in time."""
SCRIPT_MARGIN = 30.0
"""Seconds to end and restart the app's script, in addition to ``preload_timeout``."""
SETTLED = 10.0
"""Seconds that a launcher must be up so that its loss is not counted together with earlier losses."""

FINAL = frozenset((S.CLOSING, S.KILLED_UP, S.KILLED, S.UNKILLED))
"""States in which the end of the launcher is certain. Reports of progress are then ignored."""
_REPLACES = (JobQueueState.OPEN, JobQueueState.DRAINING)
"""States of the pool in which a lost launcher is replaced. In a drain, this is done only for a waiting job."""


def _start(pool: Pool, launcher: Launcher, data: object) -> None:
    pool.emit(StartLauncher(launcher.number, launcher.generation.number, launcher.script))


def _note_pid(pool: Pool, launcher: Launcher, spawned: LauncherSpawned) -> None:
    launcher.pid = spawned.pid


def _note_load(pool: Pool, launcher: Launcher, message: LauncherLoaded) -> None:
    launcher.loaded_at = pool.now


def _refuse(pool: Pool, launcher: Launcher, error: AppLoadError) -> None:
    """Fail the generation at once, since the app does not load."""
    _fail_generation(pool, launcher, error)


def _never_began(pool: Pool, launcher: Launcher, data: object) -> None:
    _fail_generation(pool, launcher, _late(launcher, "its interpreter had not begun to load it"))


def _late_with_stacks(pool: Pool, launcher: Launcher, dumped: LauncherDumped) -> None:
    where = f"its stack was:\n{dumped.stacks}" if dumped.stacks else "its stack is unknown"
    _fail_generation(pool, launcher, _late(launcher, where))


def _late_without_stacks(pool: Pool, launcher: Launcher, data: object) -> None:
    _fail_generation(pool, launcher, _late(launcher, "its stack is unknown"))


def _script_late(pool: Pool, launcher: Launcher, data: object) -> None:
    _fail_generation(pool, launcher, _late(launcher, "its script had not handed over the app"))


def _late(launcher: Launcher, where: str) -> AppLoadError:
    timeout = launcher.generation.options.preload_timeout
    return AppLoadError(f"the app did not load within preload_timeout ({timeout:g} s); {where}")


def _fail_generation(pool: Pool, launcher: Launcher, error: AppLoadError) -> None:
    launcher.error = error
    generation = launcher.generation
    if generation.state is GenerationState.LOADING:
        step(pool, generation, GenerationEvent.FAILED, error)
    elif generation.state is GenerationState.SERVING:
        _not_replaced(pool, generation, error)


def _not_replaced(pool: Pool, generation: Generation, error: AppLoadError) -> None:
    if pool.job_queue.state not in _REPLACES:
        return
    pool.launcher_breaker.failed(pool.now, str(error))
    generation.trouble = f"there is no zygote to fork from: {error}"
    text = f"the zygote could not be replaced; the pool tries again: {error}"
    pool.emit(Log(ERROR, text, {"event": "zygote_not_replaced", "cause": str(error)}))
    accounts.settle(pool)


def _dump(pool: Pool, launcher: Launcher, data: object) -> None:
    pool.emit(DumpLauncher(launcher.number))


def _close(pool: Pool, launcher: Launcher, data: object) -> None:
    pool.emit(CloseLauncher(launcher.number))


def _kill(pool: Pool, launcher: Launcher, data: object) -> None:
    pool.emit(KillLauncher(launcher.number))


def _kill_again(pool: Pool, launcher: Launcher, data: object) -> None:
    text = f"zygote {launcher.pid} still exists {KILL_TIMEOUT:g} s after SIGKILL; SIGKILL is sent again"
    pool.emit(Log(ERROR, text, {"event": "unkillable", "job_pid": launcher.pid}))
    pool.emit(KillLauncher(launcher.number))


def _give_up(pool: Pool, launcher: Launcher, data: object) -> None:
    """Give up a launcher that SIGKILL does not end. Its processes are supervised like those of a lost launcher."""
    text = f"zygote {launcher.pid} cannot be killed; the pool no longer waits for it"
    pool.emit(Log(ERROR, text, {"event": "unkillable", "job_pid": launcher.pid}))
    pool.emit(ForgetLauncher(launcher.number))
    _lose(pool, launcher, LauncherLost(launcher.number, "SIGKILL does not end it"))


def _lose_unstarted(pool: Pool, launcher: Launcher, data: object) -> None:
    _lose(pool, launcher, LauncherLost(launcher.number, "it was not started"))


def _lose_up(pool: Pool, launcher: Launcher, lost: LauncherLost) -> None:
    """Report the loss of a launcher that was up, and count the loss. Another launcher replaces the lost launcher."""
    generation = launcher.generation
    if generation.state is GenerationState.SERVING and pool.job_queue.state in _REPLACES:
        if pool.now - launcher.loaded_at > SETTLED:
            pool.launcher_breaker.succeeded()
        pool.launcher_breaker.failed(pool.now, f"zygote {launcher.pid} was lost")
        if pool.launcher_breaker.is_open:
            times = pool.launcher_breaker.failures
            generation.trouble = f"there is no zygote to fork from: it was lost {times} times in a row"
        live = len(generation.processes)
        pool.emit(ZygoteLost(generation.number, launcher.pid or 0, lost.ending, at=pool.wall))
        fields = {"event": "zygote_lost", "job_pid": launcher.pid, "generation": generation.number}
        text = f"zygote {launcher.pid} was lost ({lost.ending}); its {live} processes continue"
        pool.emit(Log(ERROR, text, {**fields, "cause": lost.ending}))
        accounts.settle(pool)
    _lose(pool, launcher, lost)


def _lose_loading(pool: Pool, launcher: Launcher, lost: LauncherLost) -> None:
    """Fail the generation whose launcher was lost before the app was loaded."""
    _lose(pool, launcher, lost)  # before the failure of the generation, which would close the launcher
    _fail_generation(pool, launcher, launcher.error or AppLoadError(lost.load_error or lost.ending))


def _lose(pool: Pool, launcher: Launcher, lost: LauncherLost) -> None:
    del pool.launchers[launcher.number]
    generation = launcher.generation
    if generation.launcher is launcher:
        generation.launcher = None
    children, launcher.processes = list(launcher.processes.values()), {}
    for process in children:
        step(pool, process, ProcessEvent.ORPHANED)
    if generation.state is GenerationState.PROVING:
        error = PrewarmError("the new code did not become warm: its zygote was lost")
        step(pool, generation, GenerationEvent.FAILED, error)
    pool.is_unbalanced = True


TABLE: dict[S, dict[E, Row]] = {
    S.WAITING: {
        E.OVERDUE: Row(S.PREPARING, Bound.SCRIPT, (_start,)),
        E.CLOSE: Row(S.LOST, Bound.NONE, (_lose_unstarted,)),
    },
    S.PREPARING: {
        E.SPAWNED: Row(S.STARTING, Bound.PRELOAD, (_note_pid,)),
        E.REFUSED: Row(S.KILLED, Bound.KILL, (_refuse, _kill)),
        E.OVERDUE: Row(S.KILLED, Bound.KILL, (_script_late, _kill)),
        E.CLOSE: Row(S.KILLED, Bound.KILL, (_kill,)),
        E.LOST: Row(S.LOST, Bound.NONE, (_lose_loading,)),
    },
    S.STARTING: {
        E.BEGAN: Row(S.LOADING, Bound.PRELOAD),
        E.LOADED: Row(S.UP, Bound.NONE, (_note_load,)),
        E.REFUSED: Row(S.KILLED, Bound.KILL, (_refuse, _kill)),
        E.OVERDUE: Row(S.KILLED, Bound.KILL, (_never_began, _kill)),
        E.CLOSE: Row(S.KILLED, Bound.KILL, (_kill,)),
        E.LOST: Row(S.LOST, Bound.NONE, (_lose_loading,)),
    },
    S.LOADING: {
        E.LOADED: Row(S.UP, Bound.NONE, (_note_load,)),
        E.REFUSED: Row(S.KILLED, Bound.KILL, (_refuse, _kill)),
        E.OVERDUE: Row(S.DUMPING, Bound.DUMP, (_dump,)),
        E.CLOSE: Row(S.KILLED, Bound.KILL, (_kill,)),
        E.LOST: Row(S.LOST, Bound.NONE, (_lose_loading,)),
    },
    S.DUMPING: {
        E.DUMPED: Row(S.KILLED, Bound.KILL, (_late_with_stacks, _kill)),
        E.OVERDUE: Row(S.KILLED, Bound.KILL, (_late_without_stacks, _kill)),
        E.CLOSE: Row(S.KILLED, Bound.KILL, (_kill,)),
        E.KILL: Row(S.KILLED, Bound.KILL, (_kill,)),
        E.LOST: Row(S.LOST, Bound.NONE, (_lose_loading,)),
        **quiet(S.DUMPING, E.LOADED, E.REFUSED),
    },
    S.UP: {
        E.CLOSE: Row(S.CLOSING, Bound.CLOSE, (_close,)),
        E.KILL: Row(S.KILLED_UP, Bound.KILL, (_kill,)),
        E.LOST: Row(S.LOST, Bound.NONE, (_lose_up,)),
    },
    S.CLOSING: {
        E.OVERDUE: Row(S.KILLED, Bound.KILL, (_kill,)),
        E.KILL: Row(S.KILLED, Bound.KILL, (_kill,)),
        E.LOST: Row(S.LOST, Bound.NONE, (_lose,)),
        **quiet(S.CLOSING, E.CLOSE),
    },
    S.KILLED_UP: {
        E.OVERDUE: Row(S.UNKILLED, Bound.GIVE_UP, (_kill_again,)),
        E.CLOSE: Row(S.KILLED, Bound.KEEP),
        E.LOST: Row(S.LOST, Bound.NONE, (_lose_up,)),
        **quiet(S.KILLED_UP, E.KILL),
    },
    S.KILLED: {
        E.OVERDUE: Row(S.UNKILLED, Bound.GIVE_UP, (_kill_again,)),
        E.LOST: Row(S.LOST, Bound.NONE, (_lose,)),
        **quiet(S.KILLED, E.CLOSE, E.KILL),
    },
    S.UNKILLED: {
        E.OVERDUE: Row(S.LOST, Bound.NONE, (_give_up,)),
        E.LOST: Row(S.LOST, Bound.NONE, (_lose,)),
        **quiet(S.UNKILLED, E.CLOSE, E.KILL),
    },
    S.LOST: {},
}

UNBOUNDED: dict[S, str] = {
    S.UP: "each requested fork has a deadline",
    S.LOST: "its record is dropped",
}
"""Reasons why states have no deadline."""


# --- reports of launchers ------------------------------------------------------------------------


def reported(pool: Pool, launcher: Launcher, event: E, message: object) -> None:
    """Handle a report of a launcher's progress. Ignore the report if the end of the launcher is certain."""
    if launcher.state not in FINAL:
        step(pool, launcher, event, message)


def loaded(pool: Pool, launcher: Launcher, message: LauncherLoaded) -> None:
    """Handle the load of the app by a launcher: serve the code, prove new code, or refuse the app's settings."""
    if launcher.state not in (S.STARTING, S.LOADING):
        reported(pool, launcher, E.LOADED, message)
        return
    generation = launcher.generation
    has_changed = generation.state is GenerationState.SERVING and message.digest != generation.digest
    if has_changed and pool.trial is not None:
        # Other new code is on trial already. If that code fails, another launcher is begun.
        step(pool, launcher, E.CLOSE)
        return
    if has_changed and reason_not_to_load(pool) is not None:
        # A draining pool does not prove new code, and does not serve unproven code. The attempt counts as a failure.
        # Without the count, the pool would begin the next attempt at once, without end.
        text = "the code on disk has changed, and a draining pool does not prove new code"
        _not_replaced(pool, generation, AppLoadError(text))
        step(pool, launcher, E.CLOSE)
        return
    if has_changed:
        generation = _take_for_new_code(pool, launcher, generation)
    try:
        if message.facts is not None:
            learn(pool, generation, message.facts)
    except AppLoadError as error:
        step(pool, launcher, E.REFUSED, error)
        return
    generation.digest = message.digest
    generation.import_seconds, generation.preload_seconds = message.import_seconds, message.preload_seconds
    generation.anonymous_mb, generation.huge_mb = message.anonymous_mb, message.huge_mb
    generation.arrange_seconds = message.arrange_seconds
    step(pool, launcher, E.LOADED, message)
    is_first = pool.serving is None or generation is pool.serving
    step(pool, generation, GenerationEvent.LOADED if is_first else GenerationEvent.LOADED_TO_PROVE)


def _take_for_new_code(pool: Pool, launcher: Launcher, serving: Generation) -> Generation:
    """Make a generation for a launcher that has loaded other code than the serving code."""
    text = "the code on disk has changed since it was loaded; the new code is proven before it serves"
    pool.emit(Log(WARNING, text, {"event": "code_changed", "generation": serving.number}))
    made = make(pool, launcher=launcher)
    serving.launcher = None
    return made


def failed(pool: Pool, launcher: Launcher, message: LauncherFailed) -> None:
    """Handle the failure of a launcher to load the app."""
    if message.is_gone:
        launcher.error = message.error
        step(pool, launcher, E.LOST, LauncherLost(launcher.number, str(message.error)))
    else:
        reported(pool, launcher, E.REFUSED, message.error)


def broke(pool: Pool, launcher: Launcher, message: LauncherBroke) -> None:
    """End a launcher that has broken the protocol."""
    text = f"zygote {launcher.pid} broke the protocol and is killed: {message.complaint}"
    pool.emit(Log(ERROR, text, {"event": "protocol_error", "job_pid": launcher.pid}))
    if launcher.state in (S.STARTING, S.LOADING):
        error = AppLoadError(f"the zygote broke the protocol: {message.complaint}")
        step(pool, launcher, E.REFUSED, error)
    else:
        step(pool, launcher, E.KILL)


def replace_missing(pool: Pool) -> None:
    """Begin a launcher for the serving generation, if its launcher is lost and no new code is on trial.

    The core calls this after each event that may have changed the numbers (``Pool.is_unbalanced``).
    """
    serving = pool.serving
    if serving is None or serving.launcher is not None or pool.trial is not None:
        return
    if pool.job_queue.state is JobQueueState.OPEN or (
        pool.job_queue.state is JobQueueState.DRAINING and pool.job_queue.waiting
    ):
        make_launcher(pool, serving, script="keep", delay=pool.launcher_breaker.wait(pool.now))


# --- the machine ---------------------------------------------------------------------------------


def _seconds(pool: Pool, launcher: Launcher, bound: Bound) -> float | None:
    if bound is Bound.PRELOAD:
        return pool.effective.options.preload_timeout
    if bound is Bound.SCRIPT:
        return pool.effective.options.preload_timeout + SCRIPT_MARGIN
    return _SECONDS[bound]


_SECONDS = {
    Bound.DUMP: DUMP_TIMEOUT,
    Bound.CLOSE: CLOSE_TIMEOUT,
    Bound.KILL: KILL_TIMEOUT,
    Bound.GIVE_UP: GIVE_UP_TIMEOUT,
}


def _changed(pool: Pool, launcher: Launcher, before: S) -> None:
    pool.is_unbalanced = True


machine = register(Launcher, Machine(TABLE, _seconds, _changed, lambda launcher: f"launcher {launcher.number}"))
