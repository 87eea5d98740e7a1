"""How a command fails that was understood."""

from __future__ import annotations

from ..errors import GreenroomError
from ..exit_codes import ExitCode

__all__ = ["Failure"]


class Failure(GreenroomError):
    """Ends the command: the message goes to stderr as one line, and the process exits with the code."""

    def __init__(self, message: str, code: ExitCode = ExitCode.NEGATIVE) -> None:
        super().__init__(message)
        self.code = code
