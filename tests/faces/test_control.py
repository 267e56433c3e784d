"""set_agent, set_limit, remove_limit, set_kill_switch."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from .conftest import Tools

LIMIT = {"max": 10, "metric": "cost_usd", "window": "day", "agent": "bot"}


async def test_an_agent_is_described_and_cleared_again(tools: Tools) -> None:
    answer = await tools("set_agent", agent="bot", name="Bot", tier="gold", owner="team", parent="ann")
    assert answer == {
        "message": "Agent 'bot': name 'Bot', tier 'gold', owner 'team', parent 'ann'.",
        "agent": "bot",
        "name": "Bot",
        "tier": "gold",
        "owner": "team",
        "parent": "ann",
    }
    answer = await tools("set_agent", agent="bot", tier=None, parent=None)
    assert (answer["name"], answer["tier"], answer["parent"]) == ("Bot", None, None)
    assert "nothing to change" in await tools.refused("set_agent", agent="bot")


async def test_an_agent_cannot_descend_from_itself(tools: Tools) -> None:
    await tools("set_agent", agent="kid", parent="bot")
    assert "parent: " in await tools.refused("set_agent", agent="bot", parent="kid")
    assert "parent: " in await tools.refused("set_agent", agent="bot", parent="bot")


async def test_a_limit_is_created_changed_and_left_as_it_is(tools: Tools) -> None:
    created = await tools("set_limit", **LIMIT)
    assert created["status"] == "created"
    assert created["limit"] == {
        "limit_id": created["limit"]["limit_id"],
        "subject": "agent bot",
        "service": None,
        "metric": "cost_usd",
        "window": "day",
        "max": 10,
        "action": "reject",
        "timezone": "UTC",
        "thresholds": [50, 80, 100],
    }
    assert created["message"].startswith("Created: at most $10 per day for agent 'bot'; more is refused.")
    changed = await tools("set_limit", **LIMIT | {"max": 0.5, "action": "warn", "thresholds": [90, 10]})
    assert (changed["status"], changed["limit"]["max"], changed["limit"]["thresholds"]) == (
        "changed",
        0.5,
        [10, 90],
    )
    assert changed["limit"]["limit_id"] == created["limit"]["limit_id"]
    again = await tools("set_limit", **LIMIT | {"max": 0.5})
    assert (again["status"], again["limit"]["action"]) == ("unchanged", "warn")


async def test_a_new_limit_counts_what_the_window_already_holds(tools: Tools) -> None:
    await tools("record_usage", agent="bot", service="openai", cost_usd=4)
    answer = await tools("set_limit", **LIMIT)
    assert (answer["state"]["used"], answer["state"]["remaining"]) == (4, 6)
    assert "Now: $4 of $10 used today (40 %)." in answer["message"]


@pytest.mark.parametrize(
    ("limit", "subject", "said"),
    [
        ({}, "everyone", "for everyone together"),
        ({"agent": "*"}, "agent *", "for each agent"),
        ({"tier": "gold"}, "tier gold", "for each agent of tier 'gold'"),
        ({"project": "*"}, "project *", "for each project"),
        ({"session": "s"}, "session s", "for session 's'"),
        ({"service": "exa"}, "everyone", "for everyone together at 'exa'"),
        ({"metric": "tokens", "max": 1200}, "everyone", "at most 1,200 tokens per day"),
        ({"metric": "units", "max": 0.000001}, "everyone", "at most 0.000001 units per day"),
        ({"metric": "requests", "max": 1, "window": "90s"}, "everyone", "at most 1 request in any 90s"),
        ({"window": "total"}, "everyone", "at most $10 in total"),
        ({"timezone": "Europe/Madrid"}, "everyone", "at most $10 per day (Europe/Madrid)"),
    ],
)
async def test_a_limit_can_be_for_anybody_of_anything_over_any_window(
    tools: Tools, limit: dict[str, Any], subject: str, said: str
) -> None:
    answer = await tools("set_limit", **{"max": 10, "metric": "cost_usd", "window": "day", **limit})
    assert answer["limit"]["subject"] == subject
    assert said in answer["message"]


async def test_a_limit_is_removed_by_id_or_by_what_it_is(tools: Tools) -> None:
    made = await tools("set_limit", **LIMIT)
    removed = await tools("remove_limit", limit_id=made["limit"]["limit_id"])
    assert removed["removed"] == made["limit"]
    assert removed["message"].startswith("Removed: at most $10 per day for agent 'bot'.")
    await tools("set_limit", **LIMIT)
    assert await tools("remove_limit", agent="bot", metric="cost_usd", window="day")
    assert (await tools("list_limits"))["limits"] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "metric: is required"),
        ({"metric": "tokens"}, "window: is required"),
        ({"limit_id": "x", "agent": "bot"}, "agent: leave it out"),
        ({"limit_id": "no-such"}, "there is no such limit"),
        ({"metric": "tokens", "window": "day"}, "there is no such limit"),
        ({"metric": "tokens", "window": "day", "agent": "a", "tier": "b"}, "tier: give at most one"),
    ],
)
async def test_what_cannot_be_removed_says_why(tools: Tools, arguments: dict[str, Any], said: str) -> None:
    await tools("set_limit", **LIMIT)
    assert said in await tools.refused("remove_limit", **arguments)
    assert len((await tools("list_limits"))["limits"]) == 1


@pytest.mark.parametrize(
    ("target", "kind", "name"),
    [
        ({"agent": "bot"}, "agent", "bot"),
        ({"service": "openai"}, "service", "openai"),
        ({"everything": True}, "everything", None),
    ],
)
async def test_a_kill_switch_is_engaged_and_released(
    tools: Tools, target: dict[str, Any], kind: str, name: str | None
) -> None:
    ask = {"agent": "bot", "service": "openai"}
    engaged = await tools("set_kill_switch", engaged=True, reason="it loops", **target)
    assert {key: value for key, value in engaged.items() if key not in ("message", "engaged_at")} == {
        "engaged": True,
        "changed": True,
        "kind": kind,
        "name": name,
        "reason": "it loops",
        "engaged_by": "olga via test-client",
    }
    assert (await tools("check_budget", **ask))["allowed"] is False
    again = await tools("set_kill_switch", engaged=True, reason="still", **target)
    assert (again["changed"], again["reason"]) == (False, "it loops")
    released = await tools("set_kill_switch", engaged=False, **target)
    assert (released["engaged"], released["changed"]) == (False, True)
    assert (await tools("check_budget", **ask))["allowed"] is True
    idle = await tools("set_kill_switch", engaged=False, **target)
    assert (idle["changed"], idle["reason"], idle["engaged_at"]) == (False, None, None)


@pytest.mark.parametrize(("kind", "known"), [("agent", "bot"), ("service", "openai")])
async def test_who_stops_a_name_that_nobody_has_heard_of_is_asked_if_it_is_right(
    tools: Tools, kind: str, known: str
) -> None:
    """A mistyped name stops nobody, and the one that was meant goes on."""
    await tools("record_usage", agent="bot", service="openai")
    engage = partial(tools, "set_kill_switch", engaged=True, reason="it loops")
    doubt = f"No usage of this {kind} is known yet: is the name right?"
    assert (await engage(**{kind: known[:-1]}))["message"].endswith(doubt)
    assert doubt not in (await engage(**{kind: known}))["message"]


async def test_who_is_released_is_told_what_stops_it_still(tools: Tools) -> None:
    await tools("record_usage", agent="child", parent="boss", service="s")
    await tools("set_kill_switch", engaged=True, agent="boss", reason="drill")
    still = "It stays stopped all the same: agent 'boss' was stopped by 'olga via test-client': drill."
    idle = await tools("set_kill_switch", engaged=False, agent="child")
    assert idle["message"] == f"Agent 'child' was not stopped by its name; nothing changed. {still}"
    await tools("set_kill_switch", engaged=True, agent="child", reason="x")
    released = await tools("set_kill_switch", engaged=False, agent="child")
    assert released["message"] == f"Agent 'child' is released. {still}"
    await tools("set_kill_switch", engaged=True, everything=True, reason="fire")
    for target in ({"agent": "boss"}, {"service": "s"}):
        told = await tools("set_kill_switch", engaged=False, **target)
        assert "It stays stopped all the same: everything was stopped by" in told["message"]
    everything = await tools("set_kill_switch", engaged=False, everything=True)
    assert everything["message"] == "Everything is released."
    assert (await tools("check_budget", agent="child", service="s"))["allowed"] is True


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"engaged": True, "agent": "bot"}, "reason: say why"),
        ({"engaged": True, "reason": "x"}, "name exactly one"),
        ({"engaged": True, "reason": "x", "everything": False}, "name exactly one"),
        ({"engaged": True, "reason": "x", "agent": "a", "service": "b"}, "service: name exactly one"),
        ({"engaged": True, "reason": "x", "agent": "a", "everything": True}, "everything: name exactly one"),
        ({"engaged": True, "reason": "x", "agent": "*"}, 'agent: "*" is nobody\'s name: to stop everybody'),
        ({"engaged": True, "reason": "x", "service": "*"}, 'service: "*" is nobody\'s name'),
        ({"engaged": "yes", "reason": "x", "agent": "a"}, "engaged: must be true or false"),
        ({"reason": "x", "agent": "a"}, "engaged: is required"),
        ({"engaged": True, "reason": "x" * 501, "agent": "a"}, "reason: is 501 characters long"),
    ],
)
async def test_a_kill_switch_that_is_not_clear_changes_nothing(
    tools: Tools, arguments: dict[str, Any], said: str
) -> None:
    assert said in await tools.refused("set_kill_switch", **arguments)
    assert (await tools("check_budget", agent="a", service="b"))["allowed"] is True
