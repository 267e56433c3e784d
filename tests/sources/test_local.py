"""A source that has looked before shows what one shows that looks for the first time, and reads less."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from agent_meter_mcp import Caller, Ledger, Report, Usage, Who, load_settings, open_ledger
from agent_meter_mcp import runtime as composition
from agent_meter_mcp.core.commands import Record, Refusal, Refuse, SetSwitch
from agent_meter_mcp.core.errors import MeterError
from agent_meter_mcp.core.models import UsageEvent
from agent_meter_mcp.core.queries import SummaryQuery, UsageFilter
from agent_meter_mcp.ledger import Looking
from agent_meter_mcp.sources import local
from agent_meter_mcp.sources.base import RANGES, Range, Snapshot
from agent_meter_mcp.sources.local import LocalSource
from agent_meter_mcp.store.sqlite import open_store, reading, told

from .ledgers import OPERATOR, START_US, Clock, Step, steps, usages, whos

if TYPE_CHECKING:
    from agent_meter_mcp import Settings

ROOT = Path(__file__).parent.parent.parent
UNWANTED = "mcp", "pydantic", "starlette", "uvicorn", "httpx2", "genai_prices", "sqlite_utils"


@st.composite
def _grows(draw: st.DrawFn) -> list[Step]:
    """Usage that is told of in parts: what is said later corrects what was said first."""
    usage = draw(usages)
    report = Report(draw(whos), usage, id=f"streamed {draw(st.integers(0, 9))}", operation="chat")
    more = usage.replace(requests=usage.requests + 1, output_tokens=(usage.output_tokens or 0) + 5)
    return [
        lambda ledger, _: ledger.record(OPERATOR, report),
        lambda ledger, _: ledger.record(OPERATOR, report.replace(usage=more)),
    ]


does_all = st.lists(
    st.tuples(_grows() | steps.map(lambda does: does[:8]), st.sampled_from([1003, 1003, 20_000_000])),
    max_size=6,
).map(lambda parts: [(step, pause_us) for does, pause_us in parts for step in does])


@settings(
    max_examples=40,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    does_all, st.lists(st.sampled_from(RANGES), min_size=1, max_size=3), st.sampled_from([0, 0, -61_000_000])
)
def test_what_is_kept_from_look_to_look_is_what_a_first_look_finds(
    monkeypatch: pytest.MonkeyPatch, does: list[tuple[Step, int]], ranges: list[Range], back_us: int
) -> None:
    clock = Clock()
    monkeypatch.setattr(composition, "system_clock_us", clock)
    with tempfile.TemporaryDirectory() as folder:
        chosen = load_settings({"AGENT_METER_DB": f"{folder}/meter.db", "AGENT_METER_PRICES": f"{folder}/p"})
        anyio.run(_compare, chosen, clock, does, ranges, back_us)


async def _compare(
    chosen: Settings, clock: Clock, does: list[tuple[Step, int]], ranges: list[Range], back_us: int
) -> None:
    async with open_ledger(chosen) as ledger:
        kept = LocalSource(chosen, OPERATOR, "Europe/Berlin")
        for number, (step, pause_us) in enumerate(does):
            clock.now_us += pause_us if number % 5 else -back_us
            with suppress(MeterError):
                await step(ledger, clock)
            wanted = ranges[number % len(ranges)]
            assert await kept.snapshot(wanted) == await _first_look(chosen, wanted)
        await kept.close()


async def _first_look(chosen: Settings, wanted: Range) -> Snapshot:
    source = LocalSource(chosen, OPERATOR, "Europe/Berlin")
    try:
        return await source.snapshot(wanted)
    finally:
        await source.close()


def test_what_changes_old_figures_is_seen_as_soon_as_what_is_new(tmp_path: Path) -> None:
    path, query = str(tmp_path / "m.db"), SummaryQuery(UsageFilter(0), ("agent",))
    who, second = Who("ann", "api"), 1_000_000
    writer, reader = open_store(path), open_store(path)

    def seen() -> tuple[int, int, int]:
        total = reader.summary(query, START_US).total
        assert reader.summary(query.replace(group_by=("tier",)), START_US).total == total  # not remembered
        return total.events, total.requests, total.rejected

    def streamed(requests: int) -> Record:
        return Record(UsageEvent("streamed", who, Usage(requests=requests)))

    refusals = Refuse((Refusal(who, None, "self", Usage(), None, START_US),))
    writer.apply([streamed(1), refusals], START_US)
    assert seen() == (1, 1, 1)
    writer.apply([streamed(5)], START_US + second)
    assert seen() == (1, 5, 1)
    writer.apply([refusals], START_US + second)
    assert seen() == (1, 5, 2)
    writer.apply([refusals, SetSwitch("agent", "bob", True, "why", "olga")], START_US + 20 * second)
    assert seen() == (1, 5, 3)
    assert seen() == (1, 5, 3)
    writer.apply([refusals], START_US + 40 * second)
    assert seen() == (1, 5, 4)
    writer.close()
    reader.close()


@pytest.mark.parametrize("told_most", [told.GROUPS_MAX, 0], ids=["many", "more than are remembered"])
async def test_of_many_agents_those_are_read_that_have_news_and_the_others_in_turn(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, told_most: int
) -> None:
    clock = Clock()
    monkeypatch.setattr(told, "GROUPS_MAX", told_most)
    monkeypatch.setattr(composition, "system_clock_us", clock)
    monkeypatch.setattr(local, "AT_ONCE", 1)
    chosen = load_settings({"AGENT_METER_DB": str(tmp_path / "m.db")})
    cost = Usage(cost_nano_usd=10**9, cost_source="reported")
    async with open_ledger(chosen) as ledger:

        async def use(agent: str) -> None:
            clock.now_us += 1000
            await ledger.record(OPERATOR, Report(Who(agent, "api"), cost))

        for agent in ("ann", "bob", "cyd", "dan"):
            await use(agent)
        await ledger.set_agent(OPERATOR, "cyd", {"parent": "bob"})
        source = LocalSource(chosen, OPERATOR, "UTC")
        before = await source.snapshot(RANGES[1])
        await use("cyd")
        await use("new")
        now = await source.snapshot(RANGES[1])
        fresh = await _first_look(chosen, RANGES[1])
        assert now.replace(agents=fresh.agents) == fresh
        assert [view.agent.agent_id for view in now.agents] == ["ann", "bob", "cyd", "dan", "new"]
        assert now.agents[3] is before.agents[3]
        assert [*now.agents[:3], now.agents[4]] == [*fresh.agents[:3], fresh.agents[4]]  # bob's covers cyd
        assert before.used["cyd"].cost_nano_usd == 10**9, "what was shown before is not changed"

        clock.now_us += 11 * 60_000_000
        for idle in range(1, 6):
            now = await source.snapshot(RANGES[1])
            assert sum(view.status == "idle" for view in now.agents) == idle
        await ledger.reserve(OPERATOR, Report(Who("who only holds", "api"), Usage()))
        for _ in range(6):
            now = await source.snapshot(RANGES[1])
        assert now.agents == (await _first_look(chosen, RANGES[1])).agents
        await ledger.set_switch(OPERATOR, "agent", "ann", True, "enough")
        assert (await source.snapshot(RANGES[1])).agents[0].status == "stopped"
        await source.close()


async def test_more_usage_between_two_looks_than_is_listed_is_seen_of_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(local, "AT_ONCE", 1)
    monkeypatch.setattr(local, "EVENTS_SHOWN", 2)
    chosen = load_settings({"AGENT_METER_DB": str(tmp_path / "m.db")})
    async with open_ledger(chosen) as ledger:
        names = [f"agent {number}" for number in range(9)]
        for name in names:
            await ledger.record(OPERATOR, Report(Who(name, "api"), Usage()))
        source = LocalSource(chosen, OPERATOR, "UTC")
        await source.snapshot(RANGES[1])
        for name in names:
            await ledger.record(OPERATOR, Report(Who(name, "api"), Usage()))
        assert {view.totals.requests for view in (await source.snapshot(RANGES[1])).agents} == {2}
        await source.close()


@pytest.mark.parametrize(
    ("home", "path", "where"),
    [
        ("/people/ann", "/people/ann/x/meter.db", "~/x/meter.db"),
        ("/people/ann", "/people/anna/meter.db", "/people/anna/meter.db"),
        ("/people/ann", "/backup/people/ann/meter.db", "/backup/people/ann/meter.db"),
        ("/", "/srv/meter.db", "~/srv/meter.db"),
    ],
)
def test_where_it_is_can_be_typed(monkeypatch: pytest.MonkeyPatch, home: str, path: str, where: str) -> None:
    """The home of a container's user is often the root: there it named another file."""
    monkeypatch.setenv("HOME", home)
    source = LocalSource(load_settings({"AGENT_METER_DB": path}), OPERATOR, "UTC")
    assert source.where == where


def test_a_dashboard_on_a_file_imports_no_server_and_no_price_list(tmp_path: Path) -> None:
    program = f"""
import anyio, sys
from agent_meter_mcp import load_settings
from agent_meter_mcp.cli.dashboard import tui
from agent_meter_mcp.core.roles import Caller
from agent_meter_mcp.sources.base import RANGES
from agent_meter_mcp.sources.local import LocalSource
tui("app")
async def look():
    chosen = load_settings({{"AGENT_METER_DB": {str(tmp_path / "m.db")!r}}})
    source = LocalSource(chosen, Caller("operator", "o"), "UTC")
    await source.snapshot(RANGES[1])
    await source.close()
anyio.run(look)
print(*(name for name in {UNWANTED!r} if name in sys.modules))
"""
    open_store(str(tmp_path / "m.db")).close()
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=ROOT, check=False
    )
    assert (ran.returncode, ran.stdout.split()) == (0, []), ran.stderr


async def test_a_file_that_nobody_writes_to_is_not_asked_and_one_commit_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings({"AGENT_METER_DB": str(tmp_path / "meter.db")})
    source = LocalSource(settings, OPERATOR, "UTC")
    async with open_ledger(settings) as ledger:
        asked: list[object] = []
        changed = Ledger.changed

        async def counted(self: Ledger, caller: Caller) -> int:
            asked.append(caller)
            return await changed(self, caller)

        monkeypatch.setattr(Ledger, "changed", counted)
        for number in range(20):
            await ledger.record(OPERATOR, Report(Who("ann", "api"), Usage(), id=str(number)))
            assert await source.changed()
            for ending in ("", "-wal"):  # as if it was written a while ago
                os.utime(f"{settings.db}{ending}", ns=(1_000_000_000 + number, 1_000_000_000 + number))
            assert not await source.changed()
            count = len(asked)
            assert not await source.changed()
            assert len(asked) == count
        await source.close()


async def test_of_looks_that_begin_at_once_none_leaves_the_file_open(tmp_path: Path) -> None:
    """A page asks for what it shows while the next look is due. What was opened twice was closed once."""
    config = load_settings({"AGENT_METER_DB": str(tmp_path / "meter.db")})
    async with open_ledger(config):
        pass
    before = threading.enumerate()
    source = LocalSource(config, OPERATOR, "UTC")
    async with anyio.create_task_group() as tasks:
        for look in (source.limits, source.audit, source.changed):
            tasks.start_soon(look)
    await source.close()
    left = [thread.name for thread in threading.enumerate() if thread not in before]
    assert not [name for name in left if name.startswith("agent-meter")]


async def test_looks_that_begin_at_once_are_read_by_one_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each that reads remembers what it has read, some 25 MB of a month: with hasty keys there were four."""
    settings = load_settings({"AGENT_METER_DB": str(tmp_path / "meter.db")})
    async with open_ledger(settings) as ledger:
        await ledger.record(OPERATOR, Report(Who("coder", "api"), Usage()))
    made: list[object] = []
    connect = reading.Reader.__init__

    def noted(self: reading.Reader, connection: Any) -> None:
        made.append(self)
        connect(self, connection)

    monkeypatch.setattr(reading.Reader, "__init__", noted)
    source = LocalSource(settings, OPERATOR, "UTC")
    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(source.usage, "24h", "agent", "service")
            tasks.start_soon(source.snapshot, RANGES[0])
    assert len(made) == 1
    begun, may_end = threading.Event(), threading.Event()

    def read(_: Looking) -> None:
        begun.set()
        may_end.wait(30)

    given_up = asyncio.create_task(source._look(read))  # pyright: ignore[reportPrivateUsage] - what each look is
    await anyio.to_thread.run_sync(begun.wait, 30)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    following = asyncio.create_task(source.usage("24h", "agent"))
    left = asyncio.create_task(source.usage("24h", "agent"))
    await anyio.sleep(0.05)
    left.cancel()
    may_end.set()
    assert (await following).total.requests == 1
    await source.close()
    assert len(made) == 1
