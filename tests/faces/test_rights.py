"""Who may do what with the tools. What a caller may not do names the role it needs, and changes nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from agent_meter_mcp.core.roles import Caller

from .conftest import BOT, SERVICE, VIEWER, Meter

CALLS: dict[str, dict[str, Any]] = {
    "record_usage": {"service": "openai", "agent": "bot"},
    "check_budget": {"service": "openai", "agent": "bot"},
    "reserve_budget": {"service": "openai", "agent": "bot"},
    "settle_reservation": {"reservation_id": "held"},
    "gate": {"harness": "codex", "event": "Stop", "agent": "bot"},
    "get_usage_summary": {},
    "list_usage_events": {},
    "list_agents": {},
    "list_limits": {},
    "set_agent": {"agent": "bot", "name": "Bot"},
    "set_limit": {"max": 1, "metric": "requests", "window": "day"},
    "remove_limit": {"metric": "requests", "window": "day"},
    "set_kill_switch": {"engaged": True, "agent": "ann", "reason": "x"},
}
READING = {"get_usage_summary", "list_usage_events", "list_agents", "list_limits"}
USING = {"record_usage", "check_budget", "reserve_budget", "settle_reservation", "gate"}
MAY = {VIEWER: READING, BOT: READING | USING, SERVICE: USING - {"gate"}}
"""The credential of a service is for one service; `gate` is asked for no service, so it cannot say."""


@pytest.fixture
async def seeded(meter: Meter) -> AsyncGenerator[Meter]:
    """`bot` with a child, and `ann` who is nobody's; usage and limits of all three; an open hold of `bot`."""
    async with meter.tools() as tools:
        await tools("set_agent", agent="kid", parent="bot")
        for agent in ("bot", "kid", "ann"):
            await tools("record_usage", agent=agent, service="openai", cost_usd=1)
            await tools("set_limit", agent=agent, max=5, metric="cost_usd", window="day")
        await tools("set_limit", max=9, metric="cost_usd", window="day")
    yield meter


@pytest.mark.parametrize("caller", MAY, ids=lambda caller: caller.role)
async def test_each_role_may_do_what_it_may(seeded: Meter, caller: Caller) -> None:
    async with seeded.tools(caller) as tools, seeded.tools() as operator:
        held = await operator("reserve_budget", agent="bot", service="openai", cost_usd=1)
        for tool, arguments in CALLS.items():
            if tool == "settle_reservation":
                arguments = {"reservation_id": held["reservation_id"]}
            if tool in MAY[caller]:
                await tools(tool, **arguments)
                continue
            before = await operator("get_usage_summary"), await operator("list_limits")
            text = await tools.refused(tool, **arguments)
            assert caller.role in text or "bound to" in text
            assert "Nothing was changed" in text
            assert (await operator("get_usage_summary"), await operator("list_limits")) == before


async def test_an_agent_acts_for_itself_and_its_children_only(seeded: Meter) -> None:
    async with seeded.tools(BOT) as tools:
        for tool in USING - {"settle_reservation"}:
            own = {name: value for name, value in CALLS[tool].items() if name != "agent"}
            await tools(tool, **own)
            await tools(tool, agent="kid", **own)
            await tools(tool, agent="newborn", parent="bot", **own)
            assert "bound to agent 'bot'" in await tools.refused(tool, agent="ann", **own)


async def test_an_agent_does_not_settle_for_others(seeded: Meter) -> None:
    async with seeded.tools(BOT) as tools, seeded.tools() as operator:
        held = await operator("reserve_budget", agent="ann", service="openai", cost_usd=1)
        for action in ("settle", "release", "extend"):
            text = await tools.refused(
                "settle_reservation", reservation_id=held["reservation_id"], action=action
            )
            assert "bound to agent 'bot'" in text
        kept = await operator("list_limits", agent="ann")
        assert kept["limits"][0]["held"] == 1


async def test_an_agent_sees_itself_and_its_children_only(seeded: Meter) -> None:
    async with seeded.tools(BOT) as tools:
        assert (await tools("get_usage_summary"))["total"]["cost_usd"] == 2
        assert {event["agent"] for event in (await tools("list_usage_events"))["events"]} == {"bot", "kid"}
        assert [agent["agent"] for agent in (await tools("list_agents"))["agents"]] == ["bot", "kid"]
        subjects = [limit["subject"] for limit in (await tools("list_limits"))["limits"]]
        assert subjects == ["agent bot", "everyone"]
        for tool in ("get_usage_summary", "list_usage_events", "list_limits"):
            await tools(tool, agent="kid")
            assert "bound to agent 'bot'" in await tools.refused(tool, agent="ann")


async def test_an_agent_stops_itself_and_cannot_start_again(seeded: Meter) -> None:
    async with seeded.tools(BOT) as tools, seeded.tools() as operator:
        for target in ({"agent": "ann"}, {"agent": "kid"}, {"service": "openai"}, {"everything": True}):
            assert "yourself" in await tools.refused("set_kill_switch", engaged=True, reason="x", **target)
        stopped = await tools("set_kill_switch", engaged=True, agent="bot", reason="I loop")
        assert stopped["engaged_by"].startswith("agent bot")
        assert (await tools("check_budget"))["allowed"] is False
        text = await tools.refused("set_kill_switch", engaged=False, agent="bot")
        assert "only an operator releases" in text
        assert (await operator("set_kill_switch", engaged=False, agent="bot"))["changed"] is True


async def test_an_agent_that_stops_itself_is_not_asked_if_that_is_its_name(meter: Meter) -> None:
    async with meter.tools(BOT) as tools:
        stopped = await tools("set_kill_switch", engaged=True, agent="bot", reason="I loop")
        assert stopped["message"].endswith("until an operator releases it.")


async def test_a_service_records_at_itself_only(seeded: Meter) -> None:
    async with seeded.tools(SERVICE) as tools:
        await tools("record_usage", service="openai", agent="ann")
        for tool in ("record_usage", "reserve_budget", "check_budget"):
            assert "bound to service 'openai'" in await tools.refused(tool, service="exa", agent="ann")


async def test_an_agent_cannot_say_that_somebody_else_measured_it(seeded: Meter) -> None:
    async with seeded.tools(BOT) as tools:
        assert "source: " in await tools.refused("record_usage", service="openai", source="proxy")


async def test_an_agent_cannot_report_its_way_out_of_a_limit(seeded: Meter) -> None:
    async with seeded.tools(BOT) as tools:
        answer = await tools("record_usage", service="openai", cost_usd=9, occurred_at="2026-11-01T00:00:00Z")
        assert answer["outcome"] == "over_limit"
