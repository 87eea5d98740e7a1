"""Parser for the output of ``-X importtime``. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from .facts import PackageCost

__all__ = ["costs", "modules_in"]

_LINE = re.compile(r"^import time:\s+(\d+) \|\s+(\d+) \| ( *)(\S+)$")


@dataclass(frozen=True, slots=True)
class _Import:
    module: str
    self_us: int
    total_us: int

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]


def costs(lines: Iterable[str], *, most: int) -> tuple[PackageCost, ...]:
    """Return the packages with the longest times in their own modules.

    These times add up to the whole. Times that include further imports do not.
    """
    by_package: dict[str, list[_Import]] = {}
    for one in _imports(lines):
        by_package.setdefault(one.package, []).append(one)
    found = [_cost(package, imports) for package, imports in by_package.items()]
    return tuple(sorted(found, key=lambda cost: -cost.self_seconds)[:most])


def modules_in(lines: Iterable[str]) -> int:
    return len(list(_imports(lines)))


def _cost(package: str, imports: list[_Import]) -> PackageCost:
    own = sum(one.self_us for one in imports)
    # The import of a package includes most imports of its modules. So the largest single time is the best estimate.
    total = max(own, *(one.total_us for one in imports))
    return PackageCost(package, own / 1e6, total / 1e6, len(imports))


def _imports(lines: Iterable[str]) -> Iterable[_Import]:
    for line in lines:
        match = _LINE.match(line)
        if match:
            yield _Import(match[4], int(match[1]), int(match[2]))
