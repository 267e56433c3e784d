"""The other processes of a benchmark: `python -m benchmarks.worker ROLE JSON`.

A worker says "ready" when it has opened everything, does as it is told by each line of its input, answers
each with a line of JSON, and ends at the end of its input.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parent.parent
ANSWER_S = 120
LEAD_S = 0.2
"""So much later than now they begin, so that all begin together."""


Job = tuple[str, dict[str, Any]]
"""A role and its arguments."""


class Workers:
    """`with Workers([(role, arguments), ...]) as workers`: processes that are ready."""

    def __init__(self, jobs: list[Job]) -> None:
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.worker", role, json.dumps(arguments)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for role, arguments in jobs
        ]

    def __enter__(self) -> Self:
        for process in self._processes:
            if self._line(process) != "ready":
                raise RuntimeError(f"a worker did not start: {process.args}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.close()
        for process in self._processes:
            if kind is not None:
                process.kill()
            process.wait(ANSWER_S)
            if process.stdout is not None:
                process.stdout.close()

    def run(self, seconds: float) -> list[dict[str, float]]:
        """All begin at one moment and go on for so long."""
        begin = time.monotonic() + LEAD_S
        for process in self._processes:
            self._tell(process, {"begin": begin, "end": begin + seconds})
        return [json.loads(self._line(process)) for process in self._processes]

    def step(self) -> None:
        """Each does its work once."""
        for process in self._processes:
            self._tell(process, {})
        for process in self._processes:
            self._line(process)

    def _tell(self, process: subprocess.Popen[str], order: dict[str, float]) -> None:
        if process.stdin is None:
            raise RuntimeError("a worker has no input")
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()

    def _line(self, process: subprocess.Popen[str]) -> str:
        line = "" if process.stdout is None else process.stdout.readline()
        if not line:
            raise RuntimeError(f"a worker ended early: {process.args}")
        return line.rstrip("\n")


def _answer(**figures: float) -> None:
    print(json.dumps(figures), flush=True)


def _ready() -> None:
    print("ready", flush=True)


def _wait_until(moment: float) -> None:
    time.sleep(max(moment - time.monotonic(), 0))


def write(
    path: str, seed: int, synchronous: str, prepared: int, at_us: int | None = None, *, turns: bool = True
) -> None:
    """Single events without a pause, or one for each order without a time. `at_us` stops the clock. Without
    `turns` it waits by SQLite's busy handler alone."""
    from agent_meter_mcp.runtime import system_clock_us
    from agent_meter_mcp.store.sqlite import open_store

    from .workload import Workload

    store = open_store(path, synchronous=synchronous, busy_timeout_s=60)
    if not turns:
        store._writer.connection.execute("PRAGMA busy_timeout=60000")  # pyright: ignore[reportPrivateUsage]  no setting
        store._turnstile.close()  # pyright: ignore[reportPrivateUsage]  no setting
    records = iter(Workload(seed=seed).records(prepared))
    _ready()
    for line in sys.stdin:
        order = json.loads(line)
        if not order:
            store.apply((next(records),), at_us or system_clock_us())
            _answer()
            continue
        _wait_until(order["begin"])
        written, longest, before = 0, 0.0, time.monotonic()
        while before < order["end"]:
            store.apply((next(records),), system_clock_us())
            now = time.monotonic()
            longest = max(longest, now - before)
            written += now <= order["end"]
            before = now
        _answer(written=written, longest=longest)
    store.close()


def spin() -> None:
    """Takes the processor and nothing else."""
    _ready()
    for line in sys.stdin:
        order = json.loads(line)
        _wait_until(order["begin"])
        turns = 0
        while time.monotonic() < order["end"]:
            turns += 1
        _answer(turns=turns)


def reserve(path: str, agent: str) -> None:
    """Asks for what it is denied, again and again, through the ledger."""
    asyncio.run(_reserve(path, agent))


async def _reserve(path: str, agent: str) -> None:
    from agent_meter_mcp.core.models import Usage, Who
    from agent_meter_mcp.core.roles import Caller
    from agent_meter_mcp.intake import Report
    from agent_meter_mcp.runtime import open_ledger
    from agent_meter_mcp.settings import load_settings

    report = Report(Who(agent, "openai"), Usage())
    caller = Caller("operator", "benchmark")
    async with open_ledger(load_settings({"AGENT_METER_DB": path})) as ledger:
        await ledger.reserve(caller, report)
        _ready()
        while line := await asyncio.to_thread(sys.stdin.readline):
            order = json.loads(line)
            await asyncio.sleep(max(order["begin"] - time.monotonic(), 0))
            denied = 0
            while time.monotonic() < order["end"]:
                answer = await ledger.reserve(caller, report)
                denied += answer.status == "denied"
            _answer(denied=denied)


ROLES = {"write": write, "spin": spin, "reserve": reserve}

if __name__ == "__main__":
    ROLES[sys.argv[1]](**json.loads(sys.argv[2]))
