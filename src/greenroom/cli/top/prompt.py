"""Line of text that the user types. Pure."""

from __future__ import annotations

__all__ = ["Prompt"]

LONGEST = 500
"""Most characters. Longer searches do not fit into the line of a request, in which a character takes up to 12 bytes."""


class Prompt:
    """Text that keys change at its end."""

    def __init__(self, text: str) -> None:
        self.text = text

    def press(self, key: str) -> None:
        """Process a key. A key that has no meaning here changes nothing."""
        if key == "backspace":
            self.text = self.text[:-1]
        elif key == "ctrl-u":
            self.text = ""
        elif len(key) == 1 and key.isprintable() and len(self.text) < LONGEST:
            self.text += key
