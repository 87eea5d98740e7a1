"""The command: which figures, how thoroughly, and where the results go."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict
from pathlib import Path

from benchmarks import harness, machine, remote, report, scaling
from benchmarks.figures import FIGURES, FULL, QUICK, Effort, Figure
from benchmarks.peers import PEERS

PARTIAL = report.LATEST.with_name("partial.json")
_KEYS = [figure.key for figure in FIGURES] + ["scaling"]


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    is_full = not (options.quick or options.only or options.peers)
    options.out = options.out or (report.LATEST if is_full or options.render else PARTIAL)
    if options.render:
        return _render(report.read_json(options.out))
    remote.adopt_orphans()
    results = _measure(options.only or _KEYS, options.peers or list(PEERS), QUICK if options.quick else FULL)
    results["command"] = " ".join(["python -m benchmarks", *arguments])
    report.write_json(results, options.out)
    print(report.markdown(report.read_json(options.out)))
    _say(f"written to {options.out.name}")
    if options.out == report.LATEST:
        _render(report.read_json(options.out))
    return _failures(results)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="run one round with fewer samples and sizes; takes minutes"
    )
    parser.add_argument(
        "--only", nargs="+", choices=_KEYS, metavar="FIGURE", help=f"figures to measure: {', '.join(_KEYS)}"
    )
    parser.add_argument(
        "--peers", nargs="+", choices=PEERS, metavar="PEER", help=f"peers to measure: {', '.join(PEERS)}"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=None,
        help="JSON file for the results (default: benchmarks/results/latest.json for a full run, which also updates "
        "the docs, and benchmarks/results/partial.json for any other run)",
    )
    parser.add_argument(
        "--render", action="store_true", help="update the docs from the JSON file, without a measurement"
    )
    return parser


def _measure(keys: list[str], names: list[str], effort: Effort) -> report.Results:
    started, facts = time.monotonic(), machine.facts()
    figures = {
        figure.key: harness.summary(figure, harness.measure(figure, effort, _of(figure, names, effort), _say))
        for figure in FIGURES
        if figure.key in keys
    }
    followed = [name for name in effort.scaled if name in names]
    modes: list[scaling.Mode] = ["idle", "running"] if "scaling" in keys else []
    grown = {
        mode: {name: [asdict(one) for one in points] for name, points in found.items()}
        for mode in modes
        for found in [scaling.run(effort, mode, followed, _say)]
    }
    return {
        "machine": facts,
        "effort": effort.name,
        "minutes": (time.monotonic() - started) / 60,
        "figures": figures,
        "scaling": grown,
    }


def _of(figure: Figure, names: list[str], effort: Effort) -> list[str]:
    return [name for name in figure.peers if name in names and (effort.slow_peers or not PEERS[name].slow)]


def _render(results: report.Results) -> int:
    from benchmarks import plot  # matplotlib takes a second to import

    report.update_page(results)
    plot.draw(results)
    _say(f"rendered {report.PAGE.name} and {plot.PICTURE.name}")
    return 0


def _failures(results: report.Results) -> int:
    """A peer that cannot do something is a result; Greenroom failing is not."""
    failed = [
        f"{key}: {by_peer['greenroom']['cannot']}"
        for key, by_peer in results["figures"].items()
        if "cannot" in by_peer.get("greenroom", {})
    ]
    for line in failed:
        _say(f"Greenroom failed: {line}")
    return 1 if failed else 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
