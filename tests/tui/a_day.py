"""A ledger of one day, the same to the microsecond each time: a team of agents, one of which runs wild."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import pytest

from agent_meter_mcp import Caller, Ledger, LimitKey, Report, Settings, Subject, Usage, Who, open_ledger

if TYPE_CHECKING:
    from agent_meter_mcp.core.models import Metric

OLGA = Caller("operator", "olga")
CENT = 10_000_000
NOW_US = 1_781_532_000_000_000
"""15 June 2026, 14:00 UTC, a Monday."""
MINUTE_US = 60_000_000


class Clock:
    """The system's clock and new ids, as the ledger and the dashboard ask for them."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now_us = NOW_US
        numbers = count(1)
        patch.setattr("time.time_ns", lambda: self.now_us * 1000)

        def next_id(_: int) -> str:
            return f"id-{next(numbers):04}"

        patch.setattr("agent_meter_mcp.runtime.new_id", next_id)


async def fill(settings: Settings, clock: Clock) -> None:
    async with open_ledger(settings) as ledger:
        clock.now_us = NOW_US - 14 * 60 * MINUTE_US
        await _set_up(ledger)
        for number in range(160):
            clock.now_us = NOW_US - (160 - number) * 5 * MINUTE_US
            await _work(ledger, number)
        clock.now_us = NOW_US - 4 * MINUTE_US
        for _ in range(14):
            clock.now_us += 1_000_000
            await ledger.reserve(OLGA, _report("rogue-bot", "search", 0))
        await ledger.set_switch(OLGA, "agent", "nightly-batch", True, "wrong prices since the update")
        await ledger.set_switch(OLGA, "service", "scraper", True, "their terms forbid it")
        clock.now_us = NOW_US - MINUTE_US
        await ledger.reserve(OLGA, _report("planner", "anthropic", 40).replace(operation="plan"))
        await ledger.reserve(OLGA, _report("nightly-batch", "anthropic", 1))
    clock.now_us = NOW_US


async def _set_up(ledger: Ledger) -> None:
    limits: list[tuple[Subject, Metric, str, int]] = [
        (Subject(), "cost_usd", "month", 30_000 * CENT // 10),
        (Subject("agent", "*"), "cost_usd", "day", 1_000 * CENT),
        (Subject("agent", "rogue-bot"), "requests", "24h", 40),
        (Subject("agent", "coder-a"), "cost_usd", "day", 600 * CENT),
        (Subject("tier", "trial"), "tokens", "day", 200_000),
    ]
    for subject, metric, window, most in limits:
        await ledger.set_limit(OLGA, LimitKey(subject, None, metric, window), most)
    for name, tier, owner, parent in (
        ("planner", "team", "olga", None),
        ("coder-a", "team", "olga", "planner"),
        ("coder-b", "team", "olga", "planner"),
        ("triage", "trial", "ben", None),
        ("nightly-batch", None, "ben", None),
        ("rogue-bot", "trial", None, None),
        ("数据-爬虫", "trial", "ben", None),
    ):
        changes = {"tier": tier, "owner": owner, "parent": parent}
        await ledger.record(OLGA, _report(name, "anthropic", 1))
        await ledger.set_agent(OLGA, name, {field: word for field, word in changes.items() if word})


async def _work(ledger: Ledger, number: int) -> None:
    agent = ("coder-a", "planner", "coder-a", "coder-b", "triage", "rogue-bot", "数据-爬虫", "coder-a")[
        number % 8
    ]
    if agent == "rogue-bot" and number > 100:
        agent = "nightly-batch"
    cents = 5 + number * 7 % 17
    service = ("anthropic", "search", "anthropic", "openai")[number % 4]
    report = _report(agent, service, cents).replace(source="proxy" if number % 3 else "self")
    await ledger.record(OLGA, report.replace(operation=("chat", "embed")[number % 5 == 0]))
    if number == 90:
        for _ in range(30):
            await ledger.record(OLGA, _report("rogue-bot", "search", 0))


def _report(agent: str, service: str, cents: int) -> Report:
    project, session = ("site", "refactor") if agent.startswith("coder") else ("ops", None)
    usage = Usage(
        input_tokens=900 * cents,
        output_tokens=110 * cents,
        cache_read_tokens=300 * cents,
        model="claude-sonnet-5" if service == "anthropic" else None,
        cost_nano_usd=cents * CENT if service != "search" or cents else None,
        cost_source="reported" if service != "search" or cents else "unpriced",
    )
    return Report(Who(agent, service, session=session, project=project), usage, operation="chat")
