"""What is known of the walls around sessions: which stand, and why another one does not."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ...clean_text import clean
from ...log_fields import log_fields
from ...system import prctl
from ...wire.messages import WALLS

__all__ = ["KnownWalls"]

_logger = logging.getLogger("greenroom")

SUPERVISOR = "supervisor"
"""Name of the wall around the supervisor, which no process of the same user can look into."""


class KnownWalls:
    """Walls of a pool. Each zygote and each spawned process tries its walls, and reports the result here."""

    def __init__(self) -> None:
        self.standing: tuple[str, ...] = ()
        """Names of the walls that stand; empty before the first result."""
        self.missing: dict[str, str] = {}
        """Cause for each wall that does not stand."""
        self._of_supervisor: tuple[str, ...] = ()
        self._problem_of_supervisor: dict[str, str] = {}
        self._is_known = False

    def close_supervisor(self) -> None:
        """Have the kernel refuse other processes of the same user a look into this process."""
        try:
            prctl.set_dumpable(False)
        except OSError as error:
            self._problem_of_supervisor = {SUPERVISOR: str(error)}
        else:
            self._of_supervisor = (SUPERVISOR,)

    def note(self, missing: Mapping[str, Any] | None) -> None:
        """Take over the result of a trial; ``None`` if there was none. Log it if it differs from the one before."""
        if missing is None:
            return
        known = {name: clean(str(missing[name])) for name in WALLS if name in missing}
        standing = (*(name for name in WALLS if name not in known), *self._of_supervisor)
        known |= self._problem_of_supervisor
        if self._is_known and (standing, known) == (self.standing, self.missing):
            return
        self._is_known, self.standing, self.missing = True, standing, known
        self._log()

    def _log(self) -> None:
        stand = f"these stand: {', '.join(self.standing)}" if self.standing else "none stands"
        lack = "; ".join(f"{name} is missing: {cause}" for name, cause in self.missing.items())
        extra = log_fields("walls", standing=list(self.standing), missing=self.missing)
        _logger.info("walls around sessions: %s%s", stand, f"; {lack}" if lack else "", extra=extra)
