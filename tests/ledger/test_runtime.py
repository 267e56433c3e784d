"""A process's own ledger: its clock, its ids, its file, its caller."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from agent_meter_mcp.core.errors import StoreReadOnly, StoreUnusable
from agent_meter_mcp.core.models import Usage, Who
from agent_meter_mcp.core.queries import SummaryQuery, UsageFilter
from agent_meter_mcp.intake import Report
from agent_meter_mcp.runtime import new_id, open_ledger, open_store, process_caller, system_clock_us
from agent_meter_mcp.settings import Settings, load_settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(db=str(tmp_path / "meter.db"), prices=str(tmp_path / "prices.toml"))


def test_the_clock_counts_microseconds() -> None:
    before = time.time()
    now_us = system_clock_us()
    assert before - 1 < now_us / 1_000_000 < time.time() + 1


def test_ids_are_uuids_of_version_7_that_sort_by_time() -> None:
    now_us = 1_790_000_000_123_456
    made = [new_id(now_us + later_us) for later_us in (0, 1, 2, 500, 999, 1000, 10**6, 10**12)]
    assert made == sorted(made)
    for text in made:
        parsed = uuid.UUID(text)
        assert str(parsed) == text
        assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert uuid.UUID(made[0]).int >> 80 == now_us // 1000


def test_ids_of_the_same_moment_differ() -> None:
    assert len({new_id(0) for _ in range(10_000)}) == 10_000


async def test_a_ledger_is_opened_and_found_again(settings: Settings) -> None:
    me = process_caller(settings)
    async with open_ledger(settings) as ledger:
        recorded = await ledger.record(
            me, Report(Who("bot", "openai"), Usage(output_tokens=1, model="gpt-4o"))
        )
        assert recorded.cost_source == "computed"
        assert uuid.UUID(recorded.event_id).version == 7
    async with open_ledger(settings) as ledger:
        assert (await ledger.summary(me, SummaryQuery(UsageFilter()))).total.events == 1


async def test_opening_does_not_block_the_event_loop(settings: Settings, nothing_blocks: None) -> None:
    async with open_ledger(settings) as ledger:
        usage = Usage(input_tokens=10, model="claude-sonnet-4-5")
        assert (await ledger.check(process_caller(settings), Who("bot", "anthropic"), usage)).allowed
        me = process_caller(settings)
        assert (await ledger.record(me, Report(Who("bot", "anthropic"), usage))).cost_source == "computed"


async def test_a_file_that_cannot_be_a_ledger_is_said_to_be_none(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "meter.db").write_text("a letter, not a ledger" * 100)
    with pytest.raises(StoreUnusable, match=r"meter\.db"):
        async with open_ledger(settings):
            pass
    with pytest.raises(StoreUnusable, match="folder"):
        open_store(settings.replace(db=str(tmp_path / "nowhere" / "meter.db")))


def test_the_default_folder_is_made_for_its_owner_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    open_store(load_settings({})).close()
    folder = tmp_path / ".agent-meter"
    assert (folder / "meter.db").is_file()
    if os.name == "posix":
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_default_folder_that_cannot_be_made_is_an_error_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(StoreReadOnly, match="AGENT_METER_DB"):
        open_store(load_settings({}))


def test_the_owner_of_the_process_is_the_operator(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USER", "alice\x1b[31m")
    caller = process_caller(settings)
    assert (caller.role, caller.bound_to) == ("operator", None)
    assert caller.name == "alice\\x1b[31m"
    monkeypatch.delenv("USER")
    monkeypatch.delenv("USERNAME", raising=False)
    assert process_caller(settings).name == "operator"


def test_a_process_for_one_agent_is_that_agent(settings: Settings) -> None:
    caller = process_caller(settings.replace(agent="research-bot"))
    assert (caller.role, caller.bound_to, caller.default_agent) == ("agent", "research-bot", "research-bot")
    assert caller.name == "agent research-bot"


GARBAGE = """
import gc, weakref
from agent_meter_mcp.runtime import GARBAGE_AFTER, collect_seldom

class Ring:
    def __init__(self):
        self.itself = self

gc.disable()
collect_seldom()
assert gc.isenabled() and gc.get_freeze_count() > 0
rings = [weakref.ref(Ring()) for _ in range(2 * GARBAGE_AFTER)]
print(sum(ring() is None for ring in rings) > 0)
"""


def test_a_process_that_stays_still_drops_what_nobody_holds() -> None:
    done = subprocess.run([sys.executable, "-c", GARBAGE], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("True\n", "")
