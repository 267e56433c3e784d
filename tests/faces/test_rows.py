"""The rows of a list in the text of its result: many clients show their model nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from agent_meter_mcp.faces.wire.rows import TEXT_MAX, told

from .conftest import Meter, Tools, text_of


async def rows(tools: Tools, tool: str, **arguments: Any) -> list[str]:
    """What stands below the message."""
    return text_of(await tools.call(tool, arguments)).split("\n")[1:]


async def spend(tools: Tools, meter: Meter) -> tuple[str, str]:
    """Some usage and a refusal. The id of the event with a model, and of the limit that refused."""
    await tools("set_agent", agent="kid", parent="bot", tier="trusted")
    limit = await tools("set_limit", agent="bot", max=5, metric="cost_usd", window="day")
    await tools("record_usage", agent="bot", service="exa", operation="find", units=0.5, unit_type="page")
    meter.clock.advance(1)
    sent: dict[str, Any] = {"model": "m-1", "input_tokens": 1500, "cost_usd": 4.25}
    event = await tools("record_usage", agent="kid", service="openai", **sent)
    meter.clock.advance(1)
    for _ in range(2):
        await tools("reserve_budget", agent="kid", service="openai", cost_usd=1)
    return event["id"], limit["limit"]["limit_id"]


async def test_events_are_in_the_text(tools: Tools, meter: Meter) -> None:
    event_id, limit_id = await spend(tools, meter)
    refused, spent, found = await rows(tools, "list_usage_events")
    assert refused == (f"2026-11-24T12:00:02Z rejected 2 times: 'kid' at 'openai', by limit_id {limit_id}")
    assert spent == (
        f"2026-11-24T12:00:01Z accepted: 'kid' at 'openai', 1,500 tokens, 'm-1', $4.25, id {event_id}"
    )
    assert found.startswith(
        "2026-11-24T12:00:00Z accepted: 'bot' at 'exa', 'find', 0.5 units ('page'), cost unknown, id "
    )


async def test_groups_are_in_the_text(tools: Tools, meter: Meter) -> None:
    await spend(tools, meter)
    assert await rows(tools, "get_usage_summary", group_by=["agent", "model"]) == [
        "agent 'kid', model 'm-1': $4.25, 1 request, 1,500 tokens",
        "agent 'bot', model (none): cost unknown, 1 request, 0.5 units, 1 unpriced",
        "agent 'kid', model (none): $0, 0 requests, 2 refused",
    ]
    assert await rows(tools, "get_usage_summary") == []


async def test_agents_are_in_the_text(tools: Tools, meter: Meter) -> None:
    await spend(tools, meter)
    stands = "tightest limit, for agent 'bot': $4.25 of $5 used today (85 %)"
    assert await rows(tools, "list_agents") == [
        "'bot' active, last seen 2026-11-24T12:00:00Z:"
        f" cost unknown, 1 request, 0.5 units, 1 unpriced; {stands}",
        "'kid' active, tier 'trusted', parent 'bot', last seen 2026-11-24T12:00:02Z:"
        f" $4.25, 1 request, 1,500 tokens, 2 refused; {stands}",
    ]


async def test_limits_are_in_the_text(tools: Tools, meter: Meter) -> None:
    _, own = await spend(tools, meter)
    each = await tools("set_limit", agent="*", max=50, metric="cost_usd", window="day", action="warn")
    idle = await tools("set_limit", session="*", max=9, metric="requests", window="1h")
    each_id, idle_id = each["limit"]["limit_id"], idle["limit"]["limit_id"]
    midnight = "resets 2026-11-25T00:00:00Z"
    assert await rows(tools, "list_limits") == [
        f"agent 'bot': $4.25 of $5 used today (85 %), {midnight}, limit_id {own}",
        "each agent (fullest: 'kid'): $4.25 of $50 used today (8.5 %),"
        f" {midnight}, only warns, limit_id {each_id}",
        f"each session: at most 9 requests in any 1h, nothing used yet, limit_id {idle_id}",
    ]
    replaced = (await rows(tools, "list_limits", agent="bot"))[1]
    assert f"does not bind: replaced by {own}" in replaced


async def test_what_an_agent_chose_stays_one_row(tools: Tools) -> None:
    """Nothing that it says begins a line of its own, or passes for one of the figures."""
    sent: dict[str, Any] = {
        "agent": "a, b",
        "service": "it's; $99",
        "operation": "chat, $0.00, id 7" + "x" * 200,
        "model": "m-1, $0.00",
        "id": "i" * 256,
    }
    await tools("record_usage", **sent)
    (row,) = await rows(tools, "list_usage_events")
    assert row.isprintable()
    assert "i" * 256 in row and "x" * 65 not in row
    assert ", 'chat, $0.00, id 7x" in row and ", 'm-1, $0.00'," in row


@pytest.mark.parametrize("length", [10, 300])
def test_text_has_a_bound_and_says_what_is_missing(length: int) -> None:
    text = told("Many.", ["r" * length] * 1000)
    *_, last = lines = text.split("\n")
    shown = len(lines) - 2
    assert len(text) <= TEXT_MAX + 100
    assert (
        last == f"({1000 - shown:,} more rows are not in this text: narrow it, or ask for {shown} at a time.)"
    )
    assert told("Few.", ["one", "two"]) == "Few.\none\ntwo"
