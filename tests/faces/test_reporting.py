"""get_usage_summary, list_usage_events, list_agents, list_limits."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import Meter, Tools, text_of

ZERO = {
    "events": 0, "requests": 0, "units": 0, "tokens": 0, "input_tokens": 0, "output_tokens": 0,
    "cache_read_tokens": 0, "cache_write_tokens": 0, "cache_write_1h_tokens": 0, "cost_usd": 0,
    "unpriced": 0, "over_limit": 0, "rejected": 0,
}  # fmt: skip


async def spend(tools: Tools) -> None:
    """Three agents at two services, yesterday and today."""
    await tools("set_agent", agent="kid", parent="bot")
    for usage in (
        {"agent": "bot", "service": "openai", "cost_usd": 1, "occurred_at": "2026-11-23T22:30:00Z"},
        {"agent": "bot", "service": "openai", "cost_usd": 2, "model": "m-1", "input_tokens": 10},
        {"agent": "kid", "service": "exa", "cost_usd": 4, "units": 0.5, "project": "p"},
        {"agent": "ann", "service": "exa", "output_tokens": 7, "model": "m-2", "session": "s"},
    ):
        await tools("record_usage", **usage)


async def test_what_has_no_price_is_nowhere_told_to_cost_nothing(tools: Tools) -> None:
    await tools("record_usage", agent="bot", service="s", model="nobodys", input_tokens=5)
    for tool, arguments in (("get_usage_summary", {"group_by": ["agent"]}), ("list_agents", {})):
        text = text_of(await tools.call(tool, arguments))
        assert ("cost unknown" in text, "$0" in text) == (True, False), text
    await tools("record_usage", agent="bot", service="s", cost_usd=0)
    text = text_of(await tools.call("list_agents", {}))
    assert "$0, 2 requests" in text


async def test_who_asks_about_a_mistyped_name_is_asked_whether_it_is_right(tools: Tools) -> None:
    await tools("record_usage", agent="research-bot", service="openai")
    await tools("record_usage", agent="worker-7", service="openai")
    asked = "No usage of agent 'reserch-bot' is known yet: did you mean 'research-bot'?"
    for tool in ("check_budget", "get_usage_summary", "list_usage_events", "list_limits"):
        assert asked in (await tools(tool, agent="reserch-bot"))["message"]
        assert "did you mean 'openai'?" in (await tools(tool, agent="worker-7", service="openia"))["message"]
        for right in ("research-bot", "worker-8", "nobody"):
            assert "did you mean" not in (await tools(tool, agent=right))["message"]


async def test_nothing_used_is_a_summary_of_zeros(tools: Tools) -> None:
    answer = await tools("get_usage_summary")
    assert answer == {
        "message": "From 2026-11-24T00:00:00Z to 2026-11-25T00:00:00Z: 0 events, $0, 0 tokens.",
        "since": "2026-11-24T00:00:00Z",
        "until": "2026-11-25T00:00:00Z",
        "total": ZERO,
        "groups": [],
        "groups_left_out": 0,
    }


async def test_a_summary_of_today_says_who_spent_what(tools: Tools) -> None:
    await spend(tools)
    answer = await tools("get_usage_summary", group_by=["agent"])
    assert answer["total"] == {
        **ZERO, "events": 3, "requests": 3, "units": 0.5, "tokens": 17, "input_tokens": 10,
        "output_tokens": 7, "cost_usd": 6, "unpriced": 1,
    }  # fmt: skip
    assert [(group["key"]["agent"], group["cost_usd"]) for group in answer["groups"]] == [
        ("kid", 4),
        ("bot", 2),
        ("ann", 0),
    ]
    assert answer["message"] == (
        "From 2026-11-24T00:00:00Z to 2026-11-25T00:00:00Z: "
        "3 events, $6, 17 tokens, 1 without a known price (not in the cost). "
        "First of 3 groups: agent 'kid' with $4."
    )


async def test_groups_that_do_not_fit_are_said_to_be_left_out(tools: Tools) -> None:
    await spend(tools)
    answer = await tools("get_usage_summary", group_by=["agent", "service"], limit=1, order_by="key")
    assert [group["key"] for group in answer["groups"]] == [{"agent": "ann", "service": "exa"}]
    assert answer["groups_left_out"] == 2
    assert "2 more groups left out" in answer["message"]


@pytest.mark.parametrize(
    ("window", "events", "since", "told"),
    [
        ("day", 3, "2026-11-24T00:00:00Z", "From 2026-11-24T00:00:00Z to 2026-11-25T00:00:00Z: "),
        ("week", 4, "2026-11-23T00:00:00Z", "From 2026-11-23T00:00:00Z to 2026-11-30T00:00:00Z: "),
        ("total", 4, None, "Over all time: "),
        ("24h", 4, "2026-11-23T12:00:00.000001Z", "From 2026-11-23T12:00:00Z"),
        ("1h", 3, "2026-11-24T11:00:00.000001Z", "From 2026-11-24T11:00:00Z"),
    ],
)
async def test_a_summary_can_be_of_any_window(
    tools: Tools, window: str, events: int, since: str | None, told: str
) -> None:
    """The text says which: who named none must not take today's usage for all there ever was."""
    await spend(tools)
    answer = await tools("get_usage_summary", window=window)
    assert (answer["total"]["events"], answer["since"]) == (events, since)
    assert answer["message"].startswith(told)


async def test_a_summary_can_be_of_any_time_range(tools: Tools) -> None:
    await spend(tools)
    answer = await tools(
        "get_usage_summary", since="2026-11-23T23:00:00+01:00", until="2026-11-23T22:30:00.000001Z"
    )
    assert (answer["total"]["events"], answer["total"]["cost_usd"]) == (1, 1)


async def test_days_are_those_of_the_time_zone(tools: Tools) -> None:
    await spend(tools)
    answer = await tools(
        "get_usage_summary", group_by=["day"], window="week", timezone="Europe/Madrid", order_by="key"
    )
    assert [(group["key"]["day"], group["events"]) for group in answer["groups"]] == [
        ("2026-11-23T00:00:00+01:00", 1),
        ("2026-11-24T00:00:00+01:00", 3),
    ]
    assert answer["message"].endswith("First of 2 groups: day 2026-11-23T00:00:00+01:00 with $1.")


async def test_the_servers_time_zone_is_that_of_reports_that_name_none(meter: Meter) -> None:
    async with meter.tools(timezone="Asia/Tokyo") as tools:
        answer = await tools("get_usage_summary")
    assert answer["since"] == "2026-11-23T15:00:00Z"


@pytest.mark.parametrize(
    ("chosen", "costs"),
    [
        ({"agent": "bot"}, [2]),
        ({"agent": "bot", "include_children": True}, [4, 2]),
        ({"service": "exa"}, [0, 4]),
        ({"model": "m-1"}, [2]),
        ({"project": "p"}, [4]),
        ({"session": "s"}, [0]),
        ({"source": "sdk"}, []),
        ({"outcome": "accepted"}, [0, 4, 2]),
        ({"operation": "chat"}, []),
        ({"tier": "gold"}, []),
    ],
)
async def test_summaries_and_events_have_the_same_filters(
    tools: Tools, chosen: dict[str, Any], costs: list[int]
) -> None:
    await spend(tools)
    summary = await tools("get_usage_summary", **chosen)
    events = await tools("list_usage_events", since="2026-11-24T00:00:00Z", **chosen)
    assert summary["total"]["events"] == len(costs)
    assert [event["cost_usd"] or 0 for event in events["events"]] == costs


async def test_events_come_newest_first_page_by_page(tools: Tools) -> None:
    await spend(tools)
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = await tools("list_usage_events", limit=3, cursor=cursor)
        seen += [event["agent"] for event in page["events"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        assert f"pass cursor='{cursor}'" in page["message"]
    assert seen == ["ann", "kid", "bot", "bot"]


async def test_refusals_are_listed_with_the_limit_that_refused(tools: Tools) -> None:
    limit = await tools("set_limit", agent="bot", max=1, metric="cost_usd", window="day")
    for _ in range(3):
        await tools("reserve_budget", agent="bot", service="openai", cost_usd=2)
    (event,) = (await tools("list_usage_events", outcome="rejected"))["events"]
    assert (event["count"], event["limit_id"], event["cost_usd"]) == (3, limit["limit"]["limit_id"], 2)
    assert (await tools("get_usage_summary"))["total"] == {**ZERO, "rejected": 3}


async def test_agents_are_listed_with_how_they_stand(tools: Tools, meter: Meter) -> None:
    await spend(tools)
    await tools("set_limit", agent="bot", max=6, metric="cost_usd", window="day")
    await tools("set_kill_switch", agent="ann", engaged=True, reason="enough")
    meter.clock.advance(301)
    answer = await tools("list_agents")
    assert [(agent["agent"], agent["status"]) for agent in answer["agents"]] == [
        ("ann", "stopped"),
        ("bot", "over_limit"),
        ("kid", "over_limit"),
    ]
    bot = answer["agents"][1]
    assert (bot["spent"]["cost_usd"], bot["tightest"]["used"], bot["tightest"]["percent"]) == (3, 6, 100)
    assert answer["agents"][2]["parent"] == "bot"
    assert "stopped: 'ann'; over a limit: 'bot', 'kid'" in answer["message"]


async def test_agents_are_filtered_and_paged(tools: Tools) -> None:
    await spend(tools)
    await tools("set_agent", agent="bot", tier="gold", owner="team")
    assert [agent["agent"] for agent in (await tools("list_agents", tier="gold"))["agents"]] == ["bot"]
    assert [agent["agent"] for agent in (await tools("list_agents", owner="team"))["agents"]] == ["bot"]
    assert (await tools("list_agents", status="stopped"))["agents"] == []
    page = await tools("list_agents", limit=2)
    assert ([agent["agent"] for agent in page["agents"]], page["next_cursor"]) == (["ann", "bot"], "bot")
    rest = await tools("list_agents", limit=2, cursor="bot")
    assert ([agent["agent"] for agent in rest["agents"]], rest["next_cursor"]) == (["kid"], None)


async def test_limits_of_an_agent_say_which_bind_and_which_were_replaced(tools: Tools) -> None:
    each = await tools("set_limit", agent="*", max=5, metric="cost_usd", window="day")
    own = await tools("set_limit", agent="bot", max=9, metric="cost_usd", window="day")
    await tools("set_limit", agent="ann", max=1, metric="cost_usd", window="day")
    answer = await tools("list_limits", agent="bot")
    assert [(limit["max"], limit["binds"], limit["replaced_by"]) for limit in answer["limits"]] == [
        (5, False, own["limit"]["limit_id"]),
        (9, True, None),
    ]
    assert "1 of them replaced by a more specific one" in answer["message"]
    everything = await tools("list_limits")
    assert [(limit["max"], limit["binds"]) for limit in everything["limits"]] == [
        (5, None),
        (9, None),
        (1, None),
    ]
    assert everything["limits"][0] == {
        "limit_id": each["limit"]["limit_id"],
        "subject": "agent *",
        "scope": None,
        "service": None,
        "metric": "cost_usd",
        "window": "day",
        "max": 5,
        "used": 0,
        "held": 0,
        "remaining": 5,
        "percent": 0,
        "action": "reject",
        "exceeded": False,
        "resets_at": None,
        "frees_at": None,
        "burn_per_hour": 0,
        "runs_out_at": None,
        "timezone": "UTC",
        "thresholds": [50, 80, 100],
        "since": None,
        "created_at": "2026-11-24T12:00:00Z",
        "binds": None,
        "replaced_by": None,
    }


async def test_a_limit_for_each_agent_says_whose_counter_is_shown(tools: Tools) -> None:
    await tools("set_limit", agent="*", max=5, metric="cost_usd", window="day")
    await spend(tools)
    (limit,) = (await tools("list_limits"))["limits"]
    assert (limit["subject"], limit["scope"], limit["used"]) == ("agent *", "kid", 4)


async def test_limits_that_count_elsewhere_are_left_out(tools: Tools) -> None:
    for limit in ({"service": "exa"}, {"service": "openai"}, {"project": "p"}, {"session": "*"}, {}):
        await tools("set_limit", max=5, metric="requests", window="hour", **limit)

    async def subjects(**chosen: str) -> list[str | None]:
        listed = (await tools("list_limits", **chosen))["limits"]
        return [limit["service"] or limit["subject"] for limit in listed]

    assert await subjects(service="exa") == ["exa", "project p", "session *", "everyone"]
    assert await subjects(project="q") == ["exa", "openai", "session *", "everyone"]
    assert await subjects(session="s") == ["exa", "openai", "project p", "session *", "everyone"]
