"""`python -m benchmarks [names...] [--quick] [--full] [--json FILE] [--rounds N] [--cache FOLDER]`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from agent_meter_mcp.store.sqlite import driver

from .measure import Options, Row

BENCHMARKS: dict[str, tuple[str, str]] = {
    "batch": ("recording", "run_batches"),
    "single": ("recording", "run_single"),
    "callers": ("concurrency", "run_callers"),
    "check": ("reading", "run_check"),
    "summary": ("reading", "run_summary"),
    "calls": ("serving", "run_calls"),
    "start": ("serving", "run_start"),
    "fairness": ("processes", "run_fairness"),
    "denials": ("processes", "run_denials"),
    "oneshot": ("oneshot", "run_oneshot"),
    "space": ("space", "run_space"),
    "ingest": ("ingest", "run_ingest"),
    "middleware": ("middleware", "run_middleware"),
    "dashboard": ("dashboard", "run_dashboard"),
    "dashboard-soak": ("dashboard", "run_soak"),
}
WIDTH = 74


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "sqlite": driver.SQLITE_VERSION,
        "sqlite_library": driver.LIBRARY,
        "load": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
    }


def main() -> int:
    """1 when a goal was missed."""
    # What is installed is compiled. Without this a program that was changed would be compiled at each start.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    wanted = _arguments()
    names = wanted.names or list(BENCHMARKS)
    facts = machine()
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    print(f"\n    {'what':{WIDTH}}{'ours':>12}{'floor':>12}  {'median [min..max]':30}{'goal':>9}")
    rows: list[Row] = []
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="agent-meter-benchmark-") as folder:
        for name in names:
            began = time.monotonic()
            place = Path(folder) / name
            place.mkdir()
            for row in _benchmark(name)(
                Options(place, wanted.cache, wanted.quick, wanted.full, wanted.rounds)
            ):
                rows.append(row)
                print(_line(row), flush=True)
            seconds[name] = round(time.monotonic() - began, 1)
    missed = [row for row in rows if row.verdict == "MISSED"]
    print(f"\n{len(rows)} figures, {len(missed)} goals missed, {sum(seconds.values()):.0f} s")
    if wanted.json is not None:
        report = {"machine": facts, "seconds": seconds, "rows": [_as_json(row) for row in rows]}
        wanted.json.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return 1 if missed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__import__("benchmarks").__doc__
    )
    parser.add_argument("names", nargs="*", choices=[[], *BENCHMARKS], help=f"which: {', '.join(BENCHMARKS)}")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: about two minutes for all")
    parser.add_argument("--full", action="store_true", help="with a ledger of 10 million events, made once")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there too")
    parser.add_argument("--rounds", type=int, metavar="N", help="so many rounds of everything")
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="FOLDER",
        default=Path(tempfile.gettempdir()) / "agent-meter-benchmarks",
        help="where the large ledgers are kept (default: %(default)s)",
    )
    return parser.parse_args()


def _benchmark(name: str) -> Callable[[Options], Iterator[Row]]:
    module, function = BENCHMARKS[name]
    found = getattr(import_module(f".{module}", __package__), function)
    return cast("Callable[[Options], Iterator[Row]]", found)


def _line(row: Row) -> str:
    spread = f"{_figure(row.median)} [{_figure(min(row.rounds))}..{_figure(max(row.rounds))}] {row.unit}"
    goal = "" if row.goal is None else f"{'≥' if row.goal.at_least else '≤'} {_figure(row.goal.limit)}"
    return (
        f"{row.item}   {row.what:{WIDTH}}{row.ours:>12}{row.floor:>12}  {spread:30}{goal:>9}  {row.verdict}"
    )


def _figure(value: float) -> str:
    return f"{value:.4f}" if value < 0.01 else f"{value:.3g}"


def _as_json(row: Row) -> dict[str, Any]:
    return {
        "item": row.item,
        "what": row.what,
        "ours": row.ours,
        "floor": row.floor,
        "unit": row.unit,
        "median": row.median,
        "min": min(row.rounds),
        "max": max(row.rounds),
        "rounds": row.rounds,
        "goal": None if row.goal is None else [">=" if row.goal.at_least else "<=", row.goal.limit],
        "verdict": row.verdict or None,
    }


if __name__ == "__main__":
    sys.exit(main())
