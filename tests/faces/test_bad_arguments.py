"""Whatever a model sends: a mistake is answered with the name of the field, and nothing has changed."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from pydantic import ValidationError

from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.faces.wire.arguments import RecordUsage, SetLimit

from .conftest import NOON_US, OPERATOR, Tools

BELL = "a\x07b"
LONG = "x" * 129
RECORD = {"service": "openai", "agent": "bot"}
LIMIT = {"max": 1, "metric": "cost_usd", "window": "day"}

COUNTS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "requests")
DECIMALS = ("units", "cost_usd")
NAMES = ("agent", "service", "parent", "session", "project", "operation", "model", "unit_type")
NO_COUNTS: list[Any] = [-1, 10**13, 10**30, 1.5, "5", True, [], {}]
NO_DECIMALS: list[Any] = [-0.01, -1, 10**10, 1e300, "1", True, [], {}]
NO_NAMES: list[Any] = ["", " a", "a ", BELL, "a\nb", "\u202e", "\ud800", "x" * 257, 1, True, [], {}]
BAD = {
    **dict.fromkeys(COUNTS, NO_COUNTS),
    **dict.fromkeys(DECIMALS, NO_DECIMALS),
    **dict.fromkeys(NAMES, NO_NAMES),
    **{field: [*NO_NAMES, "*"] for field in ("agent", "parent", "session", "project")},
}


async def state_of(tools: Tools) -> list[Any]:
    return [
        (await tools("get_usage_summary", window="total"))["total"],
        (await tools("list_limits"))["limits"],
        (await tools("list_agents"))["agents"],
        (await tools("check_budget", agent="bot"))["reasons"],
    ]


async def refuses(tools: Tools, tool: str, field: str, **arguments: Any) -> str:
    """The tool refuses and names the field."""
    text = await tools.refused(tool, **arguments)
    assert text.startswith(f"{tool}: {field}: "), (arguments, text)
    assert len(text) < 500
    return text


@pytest.fixture
async def unchanging(tools: Tools) -> AsyncGenerator[Tools]:
    """Tools that are refused, all of them."""
    await tools("record_usage", service="openai", agent="bot", cost_usd=1)
    before = await state_of(tools)
    yield tools
    assert await state_of(tools) == before


@pytest.mark.parametrize("field", BAD)
async def test_a_value_that_cannot_be_is_refused_by_its_name(unchanging: Tools, field: str) -> None:
    for tool in ("record_usage", "reserve_budget", "check_budget"):
        for value in BAD[field]:
            if (tool, field) != ("check_budget", "operation"):
                await refuses(unchanging, tool, field, **{**RECORD, field: value})


RECORDED: list[tuple[str, Any]] = [
    ("occurred_at", "2026-11-24T12:05:00.000001Z"),
    ("occurred_at", "2026-11-24T12:00:00"),
    ("occurred_at", "yesterday"),
    ("occurred_at", ""),
    ("occurred_at", "0001-01-01T00:00:00+14:00"),
    ("occurred_at", "9999-12-31T23:59:59-14:00"),
    ("occurred_at", "2026-02-30T00:00:00Z"),
    ("occurred_at", "2" * 70),
    ("occurred_at", 1_795_521_600),
    ("status_code", 70_000),
    ("status_code", -1),
    ("duration_ms", -1),
    ("duration_ms", 10**15),
    ("metadata", "not json"),
    ("metadata", "[1]"),
    ("metadata", []),
    ("metadata", {"a": "\ud800"}),
    ("metadata", {"a": "x" * 8193}),
    ("source", "guess"),
    ("id", "x" * 257),
    ("id", ""),
    ("cost_usd", 1_000_000.01),
]

BOUNDS: list[tuple[str, dict[str, Any], str]] = [
    ("reserve_budget", {**RECORD, "ttl": "61m"}, "ttl"),
    ("reserve_budget", {**RECORD, "ttl": "forever"}, "ttl"),
    ("reserve_budget", {**RECORD, "ttl": 60}, "ttl"),
    ("settle_reservation", {}, "reservation_id"),
    ("settle_reservation", {"reservation_id": ""}, "reservation_id"),
    ("settle_reservation", {"reservation_id": "x" * 257}, "reservation_id"),
    ("settle_reservation", {"reservation_id": "x", "action": "void"}, "action"),
    ("gate", {"event": "Stop"}, "harness"),
    ("gate", {"harness": "cursor", "event": "Stop"}, "harness"),
    ("gate", {"harness": "codex"}, "event"),
    ("gate", {"harness": "codex", "event": BELL}, "event"),
    ("gate", {"harness": "codex", "event": "Stop", "cwd": "/" * 4097}, "cwd"),
    ("gate", {"harness": "codex", "event": "Stop", "transcript_path": "/" * 4097}, "transcript_path"),
    ("get_usage_summary", {"group_by": ["agent", "agent"]}, "group_by"),
    ("get_usage_summary", {"group_by": ["colour"]}, "group_by.0"),
    ("get_usage_summary", {"group_by": "agent"}, "group_by"),
    ("get_usage_summary", {"window": "fortnight"}, "window"),
    ("get_usage_summary", {"window": "day", "since": "2026-11-24T00:00:00Z"}, "window"),
    ("get_usage_summary", {"since": "2026-11-24"}, "since"),
    ("get_usage_summary", {"since": "2026-11-24T00:00:00Z", "until": "2026-11-24T00:00:00Z"}, "until"),
    ("get_usage_summary", {"timezone": "Mars/Phobos"}, "timezone"),
    ("get_usage_summary", {"timezone": "../etc/passwd"}, "timezone"),
    ("get_usage_summary", {"limit": 0}, "limit"),
    ("get_usage_summary", {"limit": 1001}, "limit"),
    ("get_usage_summary", {"order_by": "luck"}, "order_by"),
    ("get_usage_summary", {"source": "guess"}, "source"),
    ("get_usage_summary", {"outcome": "fine"}, "outcome"),
    ("get_usage_summary", {"include_children": True}, "include_children"),
    ("get_usage_summary", {"agent": "\ud800"}, "agent"),
    ("list_usage_events", {"limit": 501}, "limit"),
    ("list_usage_events", {"cursor": "x"}, "cursor"),
    ("list_usage_events", {"cursor": "9" * 30}, "cursor"),
    ("list_usage_events", {"cursor": "٣"}, "cursor"),
    ("list_usage_events", {"project": ""}, "project"),
    ("list_agents", {"status": "asleep"}, "status"),
    ("list_agents", {"limit": -1}, "limit"),
    ("list_agents", {"tier": BELL}, "tier"),
    ("list_agents", {"cursor": LONG}, "cursor"),
    ("list_limits", {"agent": ""}, "agent"),
    ("list_limits", {"service": BELL}, "service"),
    ("list_limits", {"agent": "a", "session": "x" * 257}, "session"),
    ("set_agent", {"agent": "bot"}, "name"),
    ("set_agent", {"name": "Bot"}, "agent"),
    ("set_agent", {"agent": "*", "name": "Bot"}, "agent"),
    ("set_agent", {"agent": "bot", "name": BELL}, "name"),
    ("set_agent", {"agent": "bot", "tier": ""}, "tier"),
    ("set_agent", {"agent": "bot", "owner": LONG}, "owner"),
    ("set_agent", {"agent": "bot", "parent": 5}, "parent"),
    ("set_limit", {**LIMIT, "max": -1}, "max"),
    ("set_limit", {**LIMIT, "max": 10**30}, "max"),
    ("set_limit", {**LIMIT, "metric": "units", "max": 1e-7}, "max"),
    ("set_limit", {**LIMIT, "max": "10"}, "max"),
    ("set_limit", {**LIMIT, "max": 1.5, "metric": "tokens"}, "max"),
    ("set_limit", {**LIMIT, "metric": "kudos"}, "metric"),
    ("set_limit", {**LIMIT, "window": "367d"}, "window"),
    ("set_limit", {**LIMIT, "window": "0s"}, "window"),
    ("set_limit", {**LIMIT, "window": "1w"}, "window"),
    ("set_limit", {**LIMIT, "action": "shout"}, "action"),
    ("set_limit", {**LIMIT, "timezone": "Nowhere"}, "timezone"),
    ("set_limit", {**LIMIT, "timezone": "Europe/Madrid", "window": "24h"}, "timezone"),
    ("set_limit", {**LIMIT, "thresholds": [0]}, "thresholds"),
    ("set_limit", {**LIMIT, "thresholds": list(range(1, 12))}, "thresholds"),
    ("set_limit", {**LIMIT, "thresholds": ["high"]}, "thresholds.0"),
    ("set_limit", {**LIMIT, "agent": "a", "project": "p"}, "project"),
    ("set_limit", {**LIMIT, "tier": "*"}, "tier"),
    ("set_limit", {**LIMIT, "service": "*"}, "service"),
    ("set_limit", {**LIMIT, "agent": ""}, "agent"),
    ("set_kill_switch", {"engaged": True, "reason": BELL, "agent": "bot"}, "reason"),
    ("set_kill_switch", {"engaged": True, "reason": "x", "agent": ""}, "agent"),
    ("set_kill_switch", {"engaged": True, "reason": "x", "service": LONG}, "service"),
]


async def test_what_is_reported_has_its_bounds(unchanging: Tools) -> None:
    for field, value in RECORDED:
        await refuses(unchanging, "record_usage", field, **{**RECORD, field: value})


@pytest.mark.parametrize("tool", sorted({tool for tool, _, _ in BOUNDS}))
async def test_every_argument_has_its_bounds(unchanging: Tools, tool: str) -> None:
    for arguments, field in [(arguments, field) for name, arguments, field in BOUNDS if name == tool]:
        await refuses(unchanging, tool, field, **arguments)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_finite_number_is_refused(value: float) -> None:
    """Clients send it as `NaN`, which is no JSON, or `1e400`, which is; the one in memory makes it null."""
    for field in DECIMALS:
        with pytest.raises(InvalidInput, match=f"{field}: must be a finite number"):
            RecordUsage.model_validate({**RECORD, field: value}).usage()
    with pytest.raises(InvalidInput, match="max: must be a finite number"):
        SetLimit.model_validate({**LIMIT, "max": value}).maximum()
    with pytest.raises(InvalidInput, match="metadata: must be JSON"):
        RecordUsage.model_validate({**RECORD, "metadata": {"a": value}}).report(OPERATOR)
    for field in COUNTS:
        with pytest.raises(ValidationError, match="must be a whole number"):
            RecordUsage.model_validate({**RECORD, field: value})


async def test_an_unknown_argument_is_refused_with_the_one_that_was_meant(unchanging: Tools) -> None:
    text = await refuses(unchanging, "record_usage", "input_token", **RECORD, input_token=5)
    assert text == (
        "record_usage: input_token: is not an argument of this tool (use input_tokens). Nothing was changed."
    )
    text = await refuses(unchanging, "set_agent", "zzz", agent="bot", zzz=1)
    assert "(it takes agent, name, tier, owner, parent)" in text


@pytest.mark.parametrize(
    ("sent", "meant"),
    [("prompt_tokens", "use input_tokens"), ("completion_tokens", "use output_tokens"),
     ("total_tokens", "use input_tokens and output_tokens"), ("agent_id", "use agent"),
     ("inputTokens", "use input_tokens"), ("cost", "use cost_usd"), ("usage", "it takes ")],
)  # fmt: skip
async def test_what_others_call_an_argument_is_not_taken_for_another(
    tools: Tools, sent: str, meant: str
) -> None:
    text = await tools.refused("record_usage", service="s", agent="bot", **{sent: 5})
    assert f"{sent}: is not an argument of this tool ({meant}" in text


async def test_a_number_where_text_belongs_is_told_how_it_is_written(tools: Tools) -> None:
    text = await tools.refused("reserve_budget", service="s", agent="bot", ttl=60)
    assert 'ttl: must be text such as "60s"' in text
    text = await tools.refused("record_usage", service="s", agent="bot", occurred_at=1764288000)
    assert 'occurred_at: must be text such as "2026-01-31T18:00:00Z"' in text


async def test_of_many_mistakes_the_first_three_are_told(tools: Tools) -> None:
    text = await tools.refused("record_usage", **{f"q{number}": 1 for number in range(50)})
    assert text.startswith("record_usage: service: is required; q0: ")
    assert "; and 48 more. Nothing was changed." in text
    assert len(text) < 1200


async def test_a_hostile_argument_name_is_shown_harmless_and_short(tools: Tools) -> None:
    text = await tools.refused("list_agents", **{"\x1b[2J\u202e" + "x" * 1000: 1})
    assert text.isprintable()
    assert len(text) < 300


async def test_the_rejected_value_is_not_repeated(tools: Tools) -> None:
    secret = "sk-" + "7" * 40
    for arguments in ({"harness": secret, "event": "x"}, {"harness": "codex", "event": {secret: 1}}):
        assert secret not in await tools.refused("gate", **arguments)


async def test_what_a_tool_is_not_given_right_it_says_in_words(tools: Tools) -> None:
    assert await tools.refused("gate", harness="vim", event=5) == (
        "gate: harness: must be 'claude-code', 'codex' or 'gemini'; event: must be text. Nothing was changed."
    )


async def test_an_unknown_tool_is_an_error(tools: Tools) -> None:
    assert await tools.refused("record_usag") == "Unknown tool: record_usag"


def test_the_clock_of_these_tests_stands_at_noon() -> None:
    """`occurred_at` above is five minutes and a microsecond later."""
    assert NOON_US % 86_400_000_000 == 43_200_000_000
