"""One event by a process that does nothing else."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import agent_meter_mcp
from agent_meter_mcp import oneshot
from agent_meter_mcp.core.errors import Conflict, Forbidden, InvalidInput
from agent_meter_mcp.core.models import LimitKey, Subject, Usage, Who
from agent_meter_mcp.core.queries import EventsQuery, UsageFilter
from agent_meter_mcp.intake import Report
from agent_meter_mcp.runtime import open_ledger, open_store, process_caller
from agent_meter_mcp.settings import Settings

ROOT = Path(__file__).parents[2]
SLOW = {"asyncio", "dataclasses", "typing", "re", "json", "enum", "inspect", "contextlib", "pathlib"}
HEAVY = {"anyio", "genai_prices", "pydantic", "mcp", "sqlite_utils"}
UNUSED = {"agent_meter_mcp.prices", "agent_meter_mcp.ledger"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(db=str(tmp_path / "meter.db"), prices=str(tmp_path / "prices.toml"))


def stored(settings: Settings) -> list[str]:
    store = open_store(settings)
    try:
        return [event.event.id for event in store.events(EventsQuery(UsageFilter())).events]
    finally:
        store.close()


def a_report(**fields: object) -> Report:
    return Report(Who("bot", "openai"), Usage(), **fields)  # pyright: ignore[reportArgumentType]  the test says which


def test_one_event_is_recorded_once(settings: Settings) -> None:
    me = process_caller(settings)
    first = oneshot.record(settings, a_report(id="one"), me)
    again = oneshot.record(settings, a_report(id="one"), me)
    assert (first.status, again.status, again.seq) == ("recorded", "duplicate", first.seq)
    with pytest.raises(Conflict, match="operation"):
        oneshot.record(settings, a_report(id="one", operation="another"), me)
    assert stored(settings) == ["one"]


@pytest.mark.parametrize("collects", [True, False])
def test_whoever_goes_on_collects_garbage_as_before(settings: Settings, collects: bool) -> None:
    (gc.enable if collects else gc.disable)()
    try:
        oneshot.record(settings, a_report(), process_caller(settings))
        assert gc.isenabled() == collects
        with pytest.raises(InvalidInput):
            oneshot.record(settings, a_report(duration_ms=-1), process_caller(settings))
        assert gc.isenabled() == collects
    finally:
        gc.enable()


async def test_the_answer_is_the_ledgers(settings: Settings) -> None:
    me = process_caller(settings)
    async with open_ledger(settings) as ledger:
        await ledger.set_limit(me, LimitKey(Subject("agent", "bot"), None, "requests", "day"), 1)
        await ledger.record(me, a_report())
        expected = await ledger.record(me, a_report())
        got = oneshot.record(settings, a_report(), me)
    assert (
        (got.outcome, got.cost_source)
        == (expected.outcome, expected.cost_source)
        == ("over_limit", "unpriced")
    )
    assert [state.used for state in got.limits] == [3]
    assert got.retry_after_us is not None


def test_what_is_wrong_is_not_written(settings: Settings) -> None:
    with pytest.raises(InvalidInput, match="duration_ms"):
        oneshot.record(settings, a_report(duration_ms=-1), process_caller(settings))
    with pytest.raises(Forbidden, match="bound to agent 'other'"):
        oneshot.record(settings, a_report(), process_caller(settings.replace(agent="other")))
    assert stored(settings) == []


def test_a_child_is_known_by_its_line(settings: Settings) -> None:
    bot = process_caller(settings.replace(agent="bot"))
    child = Report(Who("child", "openai", parent="bot"), Usage(), id="1")
    oneshot.record(settings, child, bot)
    oneshot.record(settings, child.replace(who=Who("child", "openai"), id="2"), bot)
    assert stored(settings) == ["2", "1"]


def test_costs_are_reported_computed_or_unknown(settings: Settings, tmp_path: Path) -> None:
    me = process_caller(settings)

    def cost(usage: Usage) -> tuple[int | None, str]:
        recorded = oneshot.record(settings, Report(Who("bot", "openai"), usage), me)
        return recorded.cost_nano_usd, recorded.cost_source

    assert cost(Usage()) == (None, "unpriced")
    assert cost(Usage(cost_nano_usd=5)) == (5, "reported")
    assert cost(Usage(cost_nano_usd=5, model="gpt-4o", output_tokens=1)) == (5, "reported")
    assert cost(Usage(model="gpt-4o", output_tokens=1_000_000)) == (10_000_000_000, "computed")
    (tmp_path / "prices.toml").write_text("[services.openai]\nusd_per_request = 0.5\n")
    assert cost(Usage()) == (500_000_000, "computed")


def test_the_process_imports_nothing_slow(settings: Settings) -> None:
    oneshot.record(settings, a_report(), process_caller(settings))  # makes the file, with sqlite-utils
    program = (
        "import sys\n"
        "from agent_meter_mcp import oneshot\n"
        "from agent_meter_mcp.core.models import Usage, Who\n"
        "from agent_meter_mcp.intake import Report\n"
        "from agent_meter_mcp.runtime import process_caller\n"
        "from agent_meter_mcp.settings import load_settings\n"
        "settings = load_settings()\n"
        "report = Report(Who('bot', 'openai'), Usage(cost_nano_usd=1), id='from there')\n"
        "print(oneshot.record(settings, report, process_caller(settings)).status)\n"
        "print(*sys.modules)\n"
    )
    result = subprocess.run(
        [sys.executable, "-S", "-c", program],
        env={
            "AGENT_METER_DB": settings.db,
            "AGENT_METER_PRICES": settings.prices,
            "PYTHONPATH": os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")]),
        },
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    status, loaded = result.stdout.splitlines()
    assert status == "recorded"
    assert (SLOW | HEAVY | UNUSED).intersection(loaded.split()) == set()
    assert "from there" in stored(settings)


def test_the_public_names_are_there_when_they_are_used() -> None:
    program = (
        "import sys, agent_meter_mcp\nprint(*(n for n in sys.modules if n.startswith('agent_meter_mcp')))"
    )
    loaded = subprocess.run(
        [sys.executable, "-S", "-c", program],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    ).stdout
    assert loaded.split() == ["agent_meter_mcp"]
    for name in agent_meter_mcp.__all__:
        assert getattr(agent_meter_mcp, name) is not None
        assert name in dir(agent_meter_mcp)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = agent_meter_mcp.nonsense
