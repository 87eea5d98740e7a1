"""The attacks, by name."""

from __future__ import annotations

from . import bodies, connections, processes, readers, requests, sessions
from .base import Attack

ATTACKS: dict[str, type[Attack]] = {
    attack.name: attack
    for module in (bodies, connections, requests, processes, sessions, readers)
    for attack in vars(module).values()
    if isinstance(attack, type) and issubclass(attack, Attack) and attack.name
}
DEFAULT = tuple(name for name, attack in ATTACKS.items() if attack.by_default)
