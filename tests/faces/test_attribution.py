"""Whose usage it is when a call does not say: what the client told us, never instead of an argument."""

from __future__ import annotations

from typing import Any

import pytest
from mcp.types import Implementation

from .conftest import BOT, Meter, Tools

ENVIRON = {"CLAUDE_CODE_SESSION_ID": "684568a8", "CLAUDE_PROJECT_DIR": "/srv/proj"}
ERAS = pytest.mark.parametrize("mode", ["legacy", "auto", "2026-07-28"])


async def last(tools: Tools) -> tuple[str, str | None, str | None]:
    event = (await tools("list_usage_events"))["events"][0]
    return event["agent"], event["session"], event["project"]


def named(name: str) -> Implementation:
    return Implementation(name=name, version="1")


@ERAS
async def test_who_says_nothing_is_who_the_client_says_it_is(meter: Meter, mode: Any) -> None:
    async with meter.tools(mode=mode, client=named("claude-code"), environ=ENVIRON) as tools:
        await tools("record_usage", service="anthropic")
        assert await last(tools) == ("claude-code", "684568a8", "/srv/proj")


@ERAS
async def test_arguments_come_before_all_else(meter: Meter, mode: Any) -> None:
    async with meter.tools(mode=mode, client=named("claude-code"), environ=ENVIRON) as tools:
        await tools("record_usage", service="anthropic", agent="a", session="s", project="p")
        assert await last(tools) == ("a", "s", "p")


@ERAS
async def test_a_bound_agent_comes_before_the_clients_name(meter: Meter, mode: Any) -> None:
    async with meter.tools(BOT, mode=mode, client=named("claude-code"), environ=ENVIRON) as tools:
        await tools("record_usage", service="anthropic")
        assert await last(tools) == ("bot", "684568a8", "/srv/proj")


@pytest.mark.parametrize("name", ["", "*", " padded", "a\nb", "x" * 129])
async def test_a_client_whose_name_is_no_name_is_asked_for_one(meter: Meter, name: str) -> None:
    async with meter.tools(mode="legacy", client=named(name)) as tools:
        text = await tools.refused("record_usage", service="anthropic")
        assert text.startswith("record_usage: agent: is required here")
        await tools("record_usage", service="anthropic", agent="a")


async def test_an_environment_that_says_nothing_useful_is_no_error(meter: Meter) -> None:
    environ = {"CLAUDE_CODE_SESSION_ID": "", "CLAUDE_PROJECT_DIR": "/" + "x" * 300}
    async with meter.tools(environ=environ) as tools:
        await tools("record_usage", service="anthropic")
        assert await last(tools) == ("test-client", None, None)


async def test_a_hold_and_its_usage_are_attributed_alike(meter: Meter) -> None:
    async with meter.tools(client=named("codex"), environ=ENVIRON) as tools:
        held = await tools("reserve_budget", service="openai", cost_usd=1)
        await tools("settle_reservation", reservation_id=held["reservation_id"])
        assert await last(tools) == ("codex", "684568a8", "/srv/proj")


async def test_limits_of_the_session_and_the_project_bind(meter: Meter) -> None:
    async with meter.tools(environ=ENVIRON) as tools:
        await tools("set_limit", session="684568a8", max=0, metric="requests", window="total")
        await tools("set_limit", project="*", max=0, metric="cost_usd", window="day")
        answer = await tools("check_budget", cost_usd=1)
        assert len(answer["reasons"]) == 2
        assert (await tools("check_budget", session="other", project="other"))["limits"][0][
            "scope"
        ] == "other"


async def test_reading_is_not_narrowed_to_the_client(meter: Meter) -> None:
    async with meter.tools(client=named("claude-code")) as tools:
        await tools("record_usage", service="openai", agent="ann", cost_usd=1)
        assert (await tools("get_usage_summary"))["total"]["cost_usd"] == 1


async def test_the_audit_log_says_who_and_with_what(meter: Meter) -> None:
    async with meter.tools(client=named("claude-code")) as tools:
        await tools("set_limit", max=1, metric="requests", window="day")
    (entry,) = await meter.ledger.audit(BOT.replace(role="viewer", bound_to=None))
    assert entry.actor == "olga via claude-code"
