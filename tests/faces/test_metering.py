"""record_usage, check_budget, reserve_budget, settle_reservation: what they answer and leave behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .conftest import BOT, Meter, Tools


async def limit_bot(tools: Tools, **limit: Any) -> str:
    """A limit of $10 a day on the agent `bot`, or what is said instead. Its id."""
    made = await tools(
        "set_limit", **{"agent": "bot", "max": 10, "metric": "cost_usd", "window": "day", **limit}
    )
    return made["limit"]["limit_id"]


async def test_usage_is_recorded_with_its_cost(tools: Tools) -> None:
    answer = await tools(
        "record_usage",
        service="openai",
        agent="bot",
        operation="chat",
        id="call-1",
        model="gpt-5.2-codex",
        input_tokens=1200,
        output_tokens=30,
        units=2.5,
        unit_type="page",
        cost_usd=0.0125,
        status_code=200,
        duration_ms=640,
        session="s-1",
        project="p-1",
        metadata={"b": 1, "a": [1.5, None, "x"]},
        occurred_at="2026-11-24T12:58:00+01:00",
        source="sdk",
    )
    assert answer == {
        "message": "Recorded ($0.0125). No limit applies.",
        "id": "call-1",
        "status": "recorded",
        "outcome": "accepted",
        "cost_usd": 0.0125,
        "cost_source": "reported",
        "retry_after_s": None,
        "limits": [],
    }
    (event,) = (await tools("list_usage_events"))["events"]
    assert event == {
        "id": "call-1",
        "outcome": "accepted",
        "recorded_at": "2026-11-24T12:00:00Z",
        "occurred_at": "2026-11-24T11:58:00Z",
        "counted_at": "2026-11-24T11:58:00Z",
        "service": "openai",
        "agent": "bot",
        "operation": "chat",
        "requests": 1,
        "units": 2.5,
        "unit_type": "page",
        "input_tokens": 1200,
        "output_tokens": 30,
        "cache_read_tokens": None,
        "cache_write_tokens": None,
        "cache_write_1h_tokens": None,
        "model": "gpt-5.2-codex",
        "cost_usd": 0.0125,
        "cost_source": "reported",
        "price_version": None,
        "status_code": 200,
        "duration_ms": 640,
        "session": "s-1",
        "project": "p-1",
        "source": "sdk",
        "metadata": {"a": [1.5, None, "x"], "b": 1},
        "limit_id": None,
        "count": 1,
    }


async def test_a_cost_is_computed_from_model_and_tokens(tools: Tools) -> None:
    """The figures that Claude Code reported for this call."""
    answer = await tools(
        "record_usage",
        service="anthropic",
        model="claude-opus-5-5",
        input_tokens=12,
        cache_read_tokens=15555,
        cache_write_tokens=400,
        cache_write_1h_tokens=5000,
        output_tokens=159,
    )
    assert (answer["cost_usd"], answer["cost_source"]) == (0.048339, "computed")


async def test_an_unknown_price_is_unknown_and_not_zero(tools: Tools) -> None:
    answer = await tools("record_usage", service="in-house", model="nobody-knows-it", input_tokens=5)
    assert (answer["cost_usd"], answer["cost_source"]) == (None, "unpriced")
    assert answer["message"].startswith("Recorded (cost unknown: 'nobody-knows-it' has no price here; ")
    assert "an operator can add one to prices.toml)." in answer["message"]


async def test_a_price_is_missed_only_where_a_model_would_have_one(tools: Tools) -> None:
    unknown = {"service": "in-house", "model": "nobody-knows-it", "input_tokens": 5, "id": "one"}
    first, again = await tools("record_usage", **unknown), await tools("record_usage", **unknown)
    assert "prices.toml" in first["message"]
    assert again["message"].startswith("Already recorded (cost unknown).")
    plain = await tools("record_usage", service="in-house", requests=2)
    assert plain["message"].startswith("Recorded (cost unknown).")
    held = await tools("reserve_budget", service="in-house", model="nobody-knows-it", input_tokens=5)
    settled = await tools(
        "settle_reservation",
        reservation_id=held["reservation_id"],
        model="nobody-knows-it",
        output_tokens=7,
    )
    assert "'nobody-knows-it' has no price here" in settled["message"]


async def test_usage_is_from_neither_the_future_nor_before_1970(tools: Tools) -> None:
    record = {"agent": "bot", "service": "s"}
    text = await tools.refused("record_usage", **record, occurred_at="2026-11-24T12:05:01Z")
    assert "occurred_at: is 5 min 1 s in the future; at most 5 min is accepted. Leave it out for now" in text
    text = await tools.refused("record_usage", **record, occurred_at="1969-12-31T23:59:59Z")
    assert "occurred_at: is before 1970" in text
    for moment in ("2026-11-24T12:05:00Z", "1970-01-01T00:00:00Z"):
        assert (await tools("record_usage", **record, occurred_at=moment))["status"] == "recorded"


async def test_the_same_id_counts_once(tools: Tools) -> None:
    call = {"service": "openai", "agent": "bot", "id": "call-1", "cost_usd": 1}
    assert (await tools("record_usage", **call))["status"] == "recorded"
    again = await tools("record_usage", **call)
    assert (again["status"], again["id"]) == ("duplicate", "call-1")
    grown = await tools("record_usage", **{**call, "cost_usd": 2.5})
    assert (grown["status"], grown["cost_usd"]) == ("corrected", 2.5)
    assert "cost_usd" in await tools.refused("record_usage", **{**call, "cost_usd": 0.5})
    assert (await tools("get_usage_summary"))["total"]["cost_usd"] == 2.5


async def test_usage_over_a_limit_is_recorded_and_says_so(tools: Tools, meter: Meter) -> None:
    limit_id = await limit_bot(tools)
    meter.clock.advance(3600)
    answer = await tools("record_usage", service="openai", agent="bot", cost_usd=12)
    assert answer["outcome"] == "over_limit"
    assert answer["retry_after_s"] == 11 * 3600
    assert answer["message"] == (
        "Recorded ($12). This is over the limit for agent 'bot': $12 of $10 used today (120 %). "
        "Use no more until budget comes back in 11 h."
    )
    (state,) = answer["limits"]
    assert state == {
        "limit_id": limit_id,
        "subject": "agent bot",
        "scope": None,
        "service": None,
        "metric": "cost_usd",
        "window": "day",
        "max": 10,
        "used": 12,
        "held": 0,
        "remaining": -2,
        "percent": 120.0,
        "action": "reject",
        "exceeded": True,
        "resets_at": "2026-11-25T00:00:00Z",
        "frees_at": None,
        "burn_per_hour": 0.923076923,
        "runs_out_at": "2026-11-24T13:00:00Z",
    }


async def test_what_was_over_a_limit_once_is_not_told_to_stop_when_there_is_room_again(
    tools: Tools, meter: Meter
) -> None:
    await tools("set_limit", agent="bot", max=1, metric="cost_usd", window="1m")
    usage = {"agent": "bot", "service": "s", "id": "e-1"}
    over = await tools("record_usage", **usage, cost_usd=90_000)
    assert "over the limit for agent 'bot': $90,000 of $1 used in any 1m (9,000,000 %)." in over["message"]
    again = await tools("record_usage", **usage, cost_usd=90_000)
    assert again["message"] == over["message"].replace("Recorded", "Already recorded")
    meter.clock.advance(120)
    room = (
        "It was over a limit at the time it counts at; there is room again. "
        "Tightest limit, for agent 'bot': $0 of $1 used in any 1m (0 %)."
    )
    repeated = await tools("record_usage", **usage, cost_usd=90_000)
    assert (repeated["outcome"], repeated["message"]) == ("over_limit", f"Already recorded ($90,000). {room}")
    corrected = await tools("record_usage", **usage, cost_usd=90_001)
    assert (corrected["outcome"], corrected["message"]) == ("over_limit", f"Corrected ($90,001). {room}")


@pytest.mark.parametrize(
    ("window", "then"),
    [
        ("day", "Use no more until budget comes back in 12 h."),
        ("1m", "Use no more until budget comes back in 1 min 1 s."),
        ("total", "Stop, or ask an operator for a higher limit."),
    ],
)
async def test_who_has_just_used_up_a_limit_is_told_when_there_is_more(
    tools: Tools, window: str, then: str
) -> None:
    await tools("set_limit", agent="bot", max=1, metric="requests", window=window)
    used_up = await tools("record_usage", agent="bot", service="s")
    assert used_up["outcome"] == "accepted"
    assert used_up["message"].endswith(f"(100 %). {then}")


async def test_who_has_used_up_several_limits_is_told_when_all_of_them_have_more(tools: Tools) -> None:
    for window in ("1h", "day"):
        await tools("set_limit", agent="bot", max=1, metric="requests", window=window)
    used_up = await tools("record_usage", agent="bot", service="s")
    assert (used_up["outcome"], used_up["retry_after_s"]) == ("accepted", 12 * 3600)
    assert used_up["message"].endswith("Use no more until budget comes back in 12 h.")
    asked = await tools("check_budget", agent="bot")
    assert asked["retry_after_s"] == 12 * 3600
    await tools("set_limit", agent="bot", max=2, metric="requests", window="total")
    used_up = await tools("record_usage", agent="bot", service="s")
    assert used_up["message"].endswith("Stop, or ask an operator for a higher limit.")


async def test_who_uses_the_last_beside_what_others_hold_is_told_when_a_hold_ends(tools: Tools) -> None:
    await tools("set_limit", max=10, metric="cost_usd", window="total")
    await tools("reserve_budget", agent="ann", service="s", cost_usd=9, ttl="10m")
    used_up = await tools("record_usage", agent="bot", service="s", cost_usd=1)
    assert (used_up["outcome"], used_up["retry_after_s"]) == ("accepted", 600)
    assert used_up["message"].endswith("Use no more until budget comes back in 10 min.")


async def test_a_limit_that_refuses_is_named_before_a_fuller_one_that_warns(tools: Tools) -> None:
    await tools("set_limit", agent="bot", max=1, metric="cost_usd", window="day", action="warn")
    await tools("set_limit", agent="bot", max=2, metric="cost_usd", window="total")
    used_up = await tools("record_usage", agent="bot", service="s", cost_usd=2)
    assert "$2 of $2 used in total (100 %). Stop, or ask an operator" in used_up["message"]
    over = await tools("record_usage", agent="bot", service="s", cost_usd=1)
    assert "This is over the limit for agent 'bot': $3 of $2 used in total (150 %)" in over["message"]


async def test_what_is_not_used_up_is_nowhere_100_percent(tools: Tools) -> None:
    await tools("set_limit", agent="bot", max=10_000, metric="requests", window="day", thresholds=[99])
    answer = await tools("record_usage", agent="bot", service="s", requests=9_996)
    (state,) = answer["limits"]
    assert (state["exceeded"], state["percent"]) == (False, 99.9)
    assert "(99.9 %)" in answer["message"]


async def test_less_is_asked_for_only_where_less_would_fit(tools: Tools) -> None:
    await tools("set_limit", agent="bot", max=1, metric="cost_usd", window="day")
    await tools("set_limit", agent="bot", max=1000, metric="tokens", window="day")
    step = {"agent": "bot", "service": "s", "input_tokens": 600}
    await tools("record_usage", agent="bot", service="s", cost_usd=0.25, input_tokens=500)
    denied = await tools("check_budget", **step, cost_usd=1)
    assert "At most 500 tokens and $0.75 would fit now: ask for less, or try again" in denied["message"]
    await tools("record_usage", agent="bot", service="s", cost_usd=0.75)
    denied = await tools("check_budget", **step, cost_usd=1)
    assert denied["affordable"] == {"tokens": 500, "cost_usd": 0}
    assert "Nothing more fits now: stop, or try again" in denied["message"]


async def test_a_rolling_limit_that_empties_as_fast_as_it_fills_does_not_run_out(tools: Tools) -> None:
    await tools("set_limit", agent="bot", metric="requests", window="1h", max=100)
    for requests, runs_out_at in ((40, None), (30, "2026-11-24T12:25:42")):
        await tools("record_usage", service="exa", agent="bot", requests=requests)
        answer = await tools("check_budget", agent="bot")
        (state,) = answer["limits"]
        assert (state["runs_out_at"] and state["runs_out_at"][:19]) == runs_out_at
        assert ("At this rate it runs out" in answer["message"]) is (runs_out_at is not None)


async def test_checking_says_what_is_left_and_changes_nothing(tools: Tools) -> None:
    await limit_bot(tools)
    await tools("record_usage", service="openai", agent="bot", cost_usd=9)
    for _ in range(3):
        answer = await tools("check_budget", agent="bot", cost_usd=1)
        assert answer["allowed"] is True
        assert answer["affordable"] == {"cost_usd": 1}
        assert "$9 of $10 used today (90 %)" in answer["message"]
    denied = await tools("check_budget", agent="bot", cost_usd=1.000000001)
    assert denied["allowed"] is False
    assert denied["retry_after_s"] == 12 * 3600
    (reason,) = denied["reasons"]
    assert (reason["code"], reason["asked"]) == ("limit", 1.000000001)
    assert reason["retry_at"] == "2026-11-25T00:00:00Z"
    assert "At most $1 would fit now: ask for less, or try again in 12 h." in denied["message"]
    assert (await tools("get_usage_summary"))["total"]["rejected"] == 0


async def test_without_a_limit_everything_is_allowed(tools: Tools) -> None:
    answer = await tools("check_budget", agent="bot", input_tokens=1_000_000)
    assert (answer["allowed"], answer["limits"], answer["affordable"]) == (True, [], {})


async def test_without_a_service_it_is_said_at_which_one_it_would_be_refused(
    tools: Tools, meter: Meter
) -> None:
    """Who asked that way was told that no limit applies, and was refused at the next step."""
    await limit_bot(tools, service="openai")
    await limit_bot(tools, service="exa", max=0, action="warn")
    await limit_bot(tools, service="deep", agent="other", max=0)
    await tools("set_kill_switch", engaged=True, service="maps", reason="down")
    stops = "'maps': service 'maps' was stopped by 'olga via test-client': down"
    allowed = "Allowed: no limit applies here. Usage is metered all the same."
    assert (await tools("check_budget", agent="bot"))["message"] == f"{allowed} But not at {stops}."
    await tools("record_usage", service="openai", agent="bot", cost_usd=10)
    told = f"{allowed} But not at 'openai': $10 of $10 used today (100 %); nor at {stops}."
    answer = await tools("check_budget", agent="bot")
    assert (answer["allowed"], answer["limits"], answer["message"]) == (True, [], told)
    async with meter.tools(BOT) as own:
        assert (await own("check_budget"))["message"] == told
        spawned = await own("check_budget", agent="child", parent="bot")  # its parent's limits are its own
        assert spawned["message"] == told
    assert (await tools("check_budget", agent="bot", service="exa"))["allowed"] is True
    for number in range(3):
        await tools("set_kill_switch", engaged=True, service=f"s{number}", reason="down")
    assert (await tools("check_budget", agent="bot"))["message"].endswith("; nor at 2 more.")


async def test_a_child_is_asked_for_before_its_parent_has_used_anything(tools: Tools, meter: Meter) -> None:
    """That was allowed, and then refused as of an agent that is none of the caller's."""
    await limit_bot(tools, service="openai", max=0)
    async with meter.tools(BOT) as own:
        answer = await own("check_budget", agent="child", parent="bot")
    assert answer["allowed"] is True
    assert "But not at 'openai'" in answer["message"]


async def test_asking_for_more_than_a_limit_ever_allows_says_that_waiting_is_no_use(tools: Tools) -> None:
    await limit_bot(tools)
    answer = await tools("check_budget", agent="bot", cost_usd=11)
    assert answer["retry_after_s"] is None
    assert "waiting alone does not help" in answer["message"]


async def test_a_soft_limit_warns(tools: Tools) -> None:
    await limit_bot(tools, action="warn")
    await tools("record_usage", service="openai", agent="bot", cost_usd=10)
    answer = await tools("check_budget", agent="bot", cost_usd=1)
    assert (answer["allowed"], answer["reasons"][0]["code"]) == (True, "soft_limit")
    assert "Prefer cheaper steps" in answer["message"]


async def test_a_hold_is_settled_with_what_was_used(tools: Tools, meter: Meter) -> None:
    await limit_bot(tools)
    meter.clock.advance(60)
    held = await tools("reserve_budget", service="openai", agent="bot", cost_usd=6, ttl="5m")
    assert (held["status"], held["allowed"], held["expires_at"]) == ("reserved", True, "2026-11-24T12:06:00Z")
    assert held["reservation_id"] in held["message"]
    denied = await tools("reserve_budget", service="openai", agent="bot", cost_usd=5)
    assert (denied["status"], denied["reservation_id"], denied["expires_at"]) == ("denied", None, None)
    (holder,) = denied["reasons"][0]["holders"]
    assert holder == {
        "reservation_id": held["reservation_id"],
        "agent": "bot",
        "amount": 6,
        "expires_at": "2026-11-24T12:06:00Z",
    }
    assert "'bot' holds $6" in denied["message"]
    assert denied["retry_after_s"] == 300
    settled = await tools(
        "settle_reservation",
        reservation_id=held["reservation_id"],
        cost_usd=2.25,
        status_code=200,
        duration_ms=5,
        metadata={"ok": True},
    )
    assert (settled["status"], settled["outcome"], settled["cost_usd"]) == ("recorded", "accepted", 2.25)
    assert (settled["late"], settled["limits"][0]["used"], settled["limits"][0]["held"]) == (False, 2.25, 0)
    again = await tools(
        "settle_reservation",
        reservation_id=held["reservation_id"],
        cost_usd=2.25,
        status_code=200,
        duration_ms=5,
        metadata={"ok": True},
    )
    assert again["status"] == "duplicate"


async def test_settling_without_amounts_takes_the_estimate(tools: Tools) -> None:
    held = await tools("reserve_budget", service="openai", agent="bot", cost_usd=6, requests=3)
    settled = await tools("settle_reservation", reservation_id=held["reservation_id"])
    assert settled["cost_usd"] == 6
    assert (await tools("get_usage_summary"))["total"]["requests"] == 3


async def test_a_hold_that_holds_no_dollars_of_a_limit_in_dollars_says_so(tools: Tools) -> None:
    """Who takes it for one goes on, and so do all others who ask meanwhile."""
    unknown = "Its cost is not known, so no dollars are held"
    guess: dict[str, Any] = {
        "service": "openai",
        "agent": "bot",
        "model": "nobody-knows-it",
        "input_tokens": 9,
    }
    assert unknown not in (await tools("reserve_budget", **guess))["message"]
    await tools("set_limit", agent="bot", max=10, metric="cost_usd", window="day")
    assert unknown in (await tools("reserve_budget", **guess))["message"]
    assert unknown not in (await tools("reserve_budget", **guess, cost_usd=1))["message"]


async def test_a_hold_is_released(tools: Tools) -> None:
    await limit_bot(tools)
    held = await tools("reserve_budget", service="openai", agent="bot", cost_usd=6)
    released = await tools("settle_reservation", reservation_id=held["reservation_id"], action="release")
    assert (released["status"], released["id"], released["limits"]) == ("released", None, [])
    assert (await tools("check_budget", agent="bot"))["affordable"] == {"cost_usd": 10}


async def test_the_id_of_a_hold_that_has_ended_is_not_told_to_go_on(tools: Tools, meter: Meter) -> None:
    ask: Any = {"service": "openai", "agent": "bot", "id": "job 1", "ttl": "1s"}
    held = (await tools("reserve_budget", **ask))["reservation_id"]
    meter.clock.advance(2)
    again = await tools("reserve_budget", **ask)
    assert again["status"] == "duplicate"
    assert again["message"].startswith(
        "This id was reserved before, and that hold has expired: nothing is held"
    )
    await tools("settle_reservation", reservation_id=held)
    again = await tools("reserve_budget", **ask)
    assert again["message"].startswith(
        "This id was reserved before, and that hold was settled: nothing is held"
    )


async def test_what_is_used_up_already_does_not_run_out(tools: Tools) -> None:
    await tools("set_limit", agent="bot", metric="requests", window="day", max=1)
    await tools("record_usage", service="openai", agent="bot")
    checked = await tools("check_budget", agent="bot", requests=0)
    assert checked["allowed"]
    assert "1 of 1 request used today (100 %)" in checked["message"]
    assert "runs out" not in checked["message"]


async def test_a_hold_is_extended(tools: Tools, meter: Meter) -> None:
    held = await tools("reserve_budget", service="openai", agent="bot", cost_usd=6)
    meter.clock.advance(30)
    extended = await tools(
        "settle_reservation", reservation_id=held["reservation_id"], action="extend", ttl="10m"
    )
    assert (extended["status"], extended["expires_at"]) == ("open", "2026-11-24T12:10:30Z")


async def test_settling_after_expiry_is_accepted_and_late(tools: Tools, meter: Meter) -> None:
    held = await tools("reserve_budget", service="openai", agent="bot", cost_usd=6)
    meter.clock.advance(61)
    assert "expired" in await tools.refused(
        "settle_reservation", reservation_id=held["reservation_id"], action="extend"
    )
    settled = await tools("settle_reservation", reservation_id=held["reservation_id"], cost_usd=1)
    assert (settled["status"], settled["late"]) == ("recorded", True)


@pytest.mark.parametrize(
    ("action", "arguments", "field"),
    [
        ("release", {"cost_usd": 1}, "cost_usd"),
        ("release", {"requests": 1}, "requests"),
        ("release", {"status_code": 200}, "status_code"),
        ("release", {"ttl": "60s"}, "ttl"),
        ("extend", {"input_tokens": 1}, "input_tokens"),
        ("extend", {"metadata": {}}, "metadata"),
        ("extend", {"ttl": "2h"}, "ttl"),
        ("extend", {"ttl": "0s"}, "ttl"),
        ("settle", {"ttl": "60s"}, "ttl"),
    ],
)
async def test_what_means_nothing_to_an_action_is_refused_rather_than_lost(
    tools: Tools, action: str, arguments: dict[str, Any], field: str
) -> None:
    held = await tools("reserve_budget", service="openai", agent="bot", cost_usd=6)
    text = await tools.refused(
        "settle_reservation", reservation_id=held["reservation_id"], action=action, **arguments
    )
    assert text.startswith(f"settle_reservation: {field}: ")
    assert await tools("settle_reservation", reservation_id=held["reservation_id"], action="release")


async def test_an_unknown_reservation_is_refused(tools: Tools) -> None:
    for action in ("settle", "release", "extend"):
        assert "no-such" in await tools.refused("settle_reservation", reservation_id="no-such", action=action)


async def test_a_stopped_agent_is_denied_and_told_by_whom(tools: Tools) -> None:
    await tools("set_kill_switch", engaged=True, agent="bot", reason="it loops")
    for answer in (
        await tools("check_budget", agent="bot"),
        await tools("reserve_budget", agent="bot", service="openai"),
    ):
        assert (answer["allowed"], answer["reasons"][0]["code"]) == (False, "kill_switch")
        assert answer["affordable"] == {"requests": 0, "units": 0, "tokens": 0, "cost_usd": 0}
        assert "it loops" in answer["message"]
    recorded = await tools("record_usage", agent="bot", service="openai", cost_usd=1)
    assert recorded["outcome"] == "accepted"
    assert "it loops" in recorded["message"]


async def test_null_is_an_argument_left_out(tools: Tools) -> None:
    answer = await tools(
        "record_usage", service="openai", agent="bot", units=None, id=None, metadata=None, occurred_at=None
    )
    assert answer["status"] == "recorded"


async def test_the_text_null_is_a_name_like_any_other(tools: Tools) -> None:
    await tools("record_usage", service="openai", agent="null", session="true", project="[1]")
    (event,) = (await tools("list_usage_events"))["events"]
    assert (event["agent"], event["session"], event["project"]) == ("null", "true", "[1]")


async def test_structured_arguments_may_come_as_json_text(tools: Tools) -> None:
    """Some clients cannot send them otherwise."""
    await tools("record_usage", service="openai", agent="bot", metadata='{"a": 1}')
    assert (await tools("list_usage_events"))["events"][0]["metadata"] == {"a": 1}
    assert (await tools("get_usage_summary", group_by='["agent"]'))["groups"][0]["key"] == {"agent": "bot"}


async def test_prices_that_cannot_be_read_lose_nothing_that_happened(
    tools: Tools, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    held = await tools("reserve_budget", agent="bot", service="openai", cost_usd=1)
    (tmp_path / "prices.toml").write_text("[models", encoding="utf-8")
    used = {"input_tokens": 10, "model": "gpt-4o"}
    assert "prices.toml" in await tools.refused("reserve_budget", agent="bot", service="openai", **used)
    recorded = await tools("record_usage", agent="bot", service="openai", **used)
    settled = await tools("settle_reservation", reservation_id=held["reservation_id"], **used)
    for answer in (recorded, settled):
        assert (answer["status"], answer["cost_source"]) == ("recorded", "unpriced")
    assert (await tools("get_usage_summary"))["total"]["unpriced"] == 2
    (logged,) = (record.getMessage() for record in caplog.records if "prices.toml" in record.getMessage())
    assert logged.endswith("usage is recorded without a cost.")
    await tools("set_kill_switch", engaged=True, agent="bot", reason="enough")
    assert "enough" in str(await tools.hook(harness="claude-code", event="UserPromptSubmit", agent="bot"))
