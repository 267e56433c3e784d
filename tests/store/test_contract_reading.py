"""What every store does: summaries and lists (rules 25 to 28 of docs/semantics.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.core.limits import Bound
from agent_meter_mcp.core.models import Usage, Who
from agent_meter_mcp.core.queries import (
    AgentsQuery,
    EventsQuery,
    Group,
    Summary,
    SummaryQuery,
    Totals,
    UsageFilter,
)
from agent_meter_mcp.store.sqlite import rollups

from .building import T0, Desk, at, subject, used

if TYPE_CHECKING:
    from agent_meter_mcp.store.base import Reads

HOUR = 3600
DAY = 24 * HOUR

# Events by their ids


def test_usage_is_found_by_its_ids_and_by_the_rest_of_the_filter(desk: Desk) -> None:
    uuid = "0c3f2c5e-8a55-4f0e-9f7e-0d7f1f9a2b11"
    for number, event_id in enumerate(("a", uuid, "b", "a")):
        desk.record(used(1), id=event_id, service="llm" if number < 3 else "maps")
    desk.refuse(first=1)

    def found(*ids: str, **wanted: Any) -> list[str]:
        query = EventsQuery(UsageFilter(**wanted), 50, None, ids)
        return [stored.event.id for stored in desk.store.events(query).events]

    assert found("a", uuid, "none") == ["a", uuid, "a"]
    assert found("a", uuid, service="llm") == [uuid, "a"]
    assert found() == []


# Agents (25)


def test_an_agent_is_stopped_else_over_its_limit_else_active_else_idle(desk: Desk) -> None:
    desk.limit(2, subject=subject("agent", "*"))
    desk.record(used(2))
    desk.record(used(1), agent="bob")
    desk.hold(used(2), agent="cyd")
    desk.switch(True, "agent", "dan")
    desk.set_agent("dan")
    desk.set_agent("eve")

    def statuses() -> list[str]:
        return [view.status for view in desk.agents()]

    assert statuses() == ["over_limit", "active", "over_limit", "stopped", "idle"]
    desk.now = 300
    assert statuses() == ["over_limit", "active", "idle", "stopped", "idle"]
    desk.now = 300.000003
    assert statuses() == ["over_limit", "idle", "idle", "stopped", "idle"]
    desk.switch(True)
    assert statuses() == ["stopped"] * 5


def test_a_refusal_keeps_an_agent_active(desk: Desk) -> None:
    desk.record()
    desk.now = 400
    desk.refuse(first=400)
    desk.now = 700
    assert (desk.agent("ann").status, desk.agent("ann").last_seen_us) == ("active", at(400))


def test_an_agent_is_over_a_limit_of_no_service_and_no_soft_one(desk: Desk) -> None:
    desk.limit(0, service="llm")
    desk.limit(0, action="warn")
    desk.record()
    assert (desk.agent("ann").status, desk.agent("ann").tightest) == ("active", None)


def test_the_tightest_limit_is_the_fullest_and_a_limit_of_0_is_full(desk: Desk) -> None:
    desk.limit(10, id="b")
    desk.limit(20, "hour", id="a")
    desk.limit(30, "day", id="c")
    desk.record(used(3))
    desk.hold(used(1), agent="bob")

    def tightest() -> str:
        state = desk.agent("ann").tightest
        assert state is not None
        return state.limit.limit_id

    assert tightest() == "b"
    desk.limit(5, "hour", id="a")
    assert tightest() == "a"
    desk.limit(10, "hour", id="a")
    assert tightest() == "a"
    desk.limit(0, "week", id="z")
    assert tightest() == "z"


def test_the_tightest_of_two_large_limits_is_no_matter_of_rounding(desk: Desk) -> None:
    desk.limit(10**18 + 1, "hour", id="a")
    desk.limit(10**18, "day", id="b")
    desk.record(used(10**17))
    assert (tightest := desk.agent("ann").tightest) is not None and tightest.limit.limit_id == "b"


def test_an_agent_shows_its_own_totals_of_all_time(desk: Desk) -> None:
    desk.now = 500 * DAY
    desk.record(used(2, tokens=5, cost=7), occurred=0)
    desk.record(used(1, cost=1))
    desk.record(used(8), agent="kid", parent="ann")
    desk.refuse(first=0, count=4)
    assert desk.agent("ann").totals == Totals(
        events=2, requests=3, input_tokens=5, cost_nano_usd=8, rejected=4
    )


def test_agents_are_chosen_and_come_in_pages_by_id(desk: Desk) -> None:
    desk.set_agent("ann", tier="gold", owner="x")
    desk.set_agent("bob", tier="gold", owner="y", parent="ann")
    desk.set_agent("cyd", tier="iron", owner="y", parent="bob")
    desk.record(agent="dan")

    def ids(**wanted: Any) -> list[str]:
        return [view.agent.agent_id for view in desk.agents(**wanted)]

    assert ids(tier="gold") == ["ann", "bob"]
    assert ids(owner="y") == ["bob", "cyd"]
    assert ids(tier="gold", owner="y") == ["bob"]
    assert ids(agent="cyd") == ["cyd"]
    assert ids(within="bob") == ["bob", "cyd"]
    assert ids(within="bob", agent="ann") == []
    assert ids(status="active") == ["dan"]

    page = desk.store.agents(AgentsQuery(limit=3), T0)
    assert ([view.agent.agent_id for view in page.agents], page.next_agent) == (["ann", "bob", "cyd"], "cyd")
    page = desk.store.agents(AgentsQuery(limit=3, after_agent="cyd"), T0)
    assert ([view.agent.agent_id for view in page.agents], page.next_agent) == (["dan"], None)
    page = desk.store.agents(AgentsQuery(status="idle", limit=2), T0)
    assert ([view.agent.agent_id for view in page.agents], page.next_agent) == (["ann", "bob"], "bob")


# Limits (26)


def test_limits_come_in_the_order_in_which_they_were_made(desk: Desk) -> None:
    for limit_id, window in (("z", "day"), ("a", "hour"), ("m", "total")):
        desk.limit(5, window, id=limit_id)
    desk.limit(6, "day", id="z")
    views = desk.store.limits(None, T0)
    assert [(view.limit.limit_id, view.bound) for view in views] == [("z", None), ("a", None), ("m", None)]


def test_a_limit_of_each_shows_its_fullest_counter(desk: Desk) -> None:
    each = desk.limit(9, subject=subject("agent", "*"))
    project = desk.limit(9, "hour", subject=subject("project", "*"))

    def fullest() -> list[tuple[str, int] | None]:
        states = [view.state for view in desk.store.limits(None, desk.now_us)]
        return [None if state is None else (state.scope, state.used + state.held) for state in states]

    assert fullest() == [None, None]
    desk.record(used(2), agent="bob", project="q")
    desk.record(used(2), agent="ann", project="p")
    assert fullest() == [("ann", 2), ("p", 2)]
    desk.hold(used(1), agent="bob", ttl=60)
    assert fullest() == [("bob", 3), ("p", 2)]
    desk.now = HOUR
    assert fullest() == [("ann", 2), None]
    assert [view.limit for view in desk.store.limits(None, T0)] == [each, project]


def test_the_fullest_counter_is_one_that_binds(desk: Desk) -> None:
    desk.limit(9, subject=subject("agent", "*"))
    gold = desk.limit(9, subject=subject("tier", "gold"))
    own = desk.limit(9, subject=subject("agent", "ann"))
    desk.set_agent("bob", tier="gold")
    for agent, amount in (("ann", 5), ("bob", 3), ("cyd", 1)):
        desk.record(used(amount), agent=agent)
    states = [view.state for view in desk.store.limits(None, desk.now_us)]
    assert [(state.scope, state.used) for state in states if state] == [("cyd", 1), ("bob", 3), ("", 5)]
    desk.remove_limit(own.limit_id)
    desk.remove_limit(gold.limit_id)
    (view,) = desk.store.limits(None, desk.now_us)
    assert view.state is not None
    assert (view.state.scope, view.state.used) == ("ann", 5)


def test_for_somebody_limits_say_whether_they_bind(desk: Desk) -> None:
    each = desk.limit(9, subject=subject("agent", "*"))
    elsewhere = desk.limit(9, service="api")
    own = desk.limit(9, subject=subject("agent", "ann"))
    desk.limit(9, subject=subject("agent", "bob"))
    desk.record(used(2))

    views = desk.store.limits(Who("ann", "llm"), desk.now_us)
    assert [view.bound for view in views] == [Bound(each, "ann", own.limit_id), Bound(own, "")]
    assert [view.state.used for view in views if view.state] == [2, 2]
    bound = [view.bound for view in desk.store.limits(Who("zoe", "api"), desk.now_us)]
    assert bound == [Bound(each, "zoe"), Bound(elsewhere, "")]


# Summaries (27)


def test_a_summary_adds_up_what_was_counted(desk: Desk) -> None:
    desk.limit(3)
    everything = Usage(
        2, 500, "page", 1, 2, 3, 4, 5, "m", cost_nano_usd=70, cost_source="computed", price_version="v"
    )
    desk.record(everything)
    desk.record(used(2))
    desk.reserve(used(9, tokens=9, cost=9))
    desk.refuse(first=0, count=4)

    total = Totals(
        events=2,
        requests=4,
        units_micro=500,
        input_tokens=1,
        output_tokens=2,
        cache_read_tokens=3,
        cache_write_tokens=4,
        cache_write_1h_tokens=5,
        cost_nano_usd=70,
        unpriced=1,
        over_limit=1,
        rejected=5,
    )
    assert desk.summary() == Summary(total, ())


def test_groups_come_the_largest_first_and_ties_by_key(desk: Desk) -> None:
    for agent, amount, cost in (("bob", 2, 5), ("ann", 2, 5), ("cyd", 1, 9), ("dan", 7, 5)):
        desk.record(used(amount, cost=cost), agent=agent)
    desk.refuse("bob", first=0, count=3)

    def order(by: str) -> list[str]:
        return [str(agent) for agent, _ in desk.grouped("agent", order_by=by)]

    assert order("cost_usd") == ["cyd", "ann", "bob", "dan"]
    assert order("requests") == ["dan", "ann", "bob", "cyd"]
    assert order("rejected") == ["bob", "ann", "cyd", "dan"]
    assert (
        order("key") == order("events") == order("tokens") == order("units") == ["ann", "bob", "cyd", "dan"]
    )


def test_a_missing_value_is_a_group_and_sorts_first(desk: Desk) -> None:
    desk.record(used(1), project="p")
    desk.record(used(2), operation="chat")
    desk.record(used(4), project="p", session="s")
    assert desk.grouped("project", "session", order_by="key") == [
        (None, None, 2),
        ("p", None, 1),
        ("p", "s", 4),
    ]
    assert desk.grouped("operation", order_by="key") == [(None, 5), ("chat", 2)]


@pytest.mark.parametrize(
    ("dimension", "groups"),
    [
        ("agent", [("ann", 1), ("bob", 2)]),
        ("service", [("api", 2), ("llm", 1)]),
        ("operation", [("chat", 1), ("embed", 2)]),
        ("model", [("m1", 1), ("m2", 2)]),
        ("project", [("p", 1), ("q", 2)]),
        ("session", [("s", 1), ("t", 2)]),
        ("tier", [(None, 2), ("gold", 1)]),
        ("owner", [(None, 1), ("team", 2)]),
        ("source", [("sdk", 2), ("self", 1)]),
        ("outcome", [("accepted", 1), ("over_limit", 2)]),
    ],
)
@pytest.mark.parametrize("roll_at", [1, rollups.ROLL_AT])
def test_usage_is_grouped_and_filtered_by_each_dimension(
    desk: Desk,
    dimension: str,
    groups: list[tuple[str | None, int]],
    roll_at: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rollups, "ROLL_AT", roll_at)
    monkeypatch.setattr(rollups, "LOOK_EVERY", 1)
    desk.limit(1)
    desk.record(used(1, model="m1"), project="p", session="s", operation="chat")
    desk.record(
        used(2, model="m2"), "bob", service="api", project="q", session="t", operation="embed", source="sdk"
    )
    desk.set_agent("ann", tier="gold")
    desk.set_agent("bob", owner="team")

    assert desk.grouped(dimension, order_by="key") == groups
    if dimension != "owner":
        for key, amount in groups:
            if key is not None:
                wanted: dict[str, Any] = {dimension: key}
                assert desk.summary(**wanted).total.requests == amount
                assert len(desk.ids(**wanted)) == 1
        other = "import" if dimension == "source" else "rejected" if dimension == "outcome" else "x"
        nothing: dict[str, Any] = {dimension: other}
        assert desk.summary(**nothing).total.requests == 0


def test_tier_and_owner_are_those_of_today(desk: Desk) -> None:
    desk.set_agent("ann", tier="iron")
    desk.record(used(3))
    desk.set_agent("ann", tier="gold")
    assert desk.grouped("tier") == [("gold", 3)]
    assert desk.ids(tier="iron") == []


def test_usage_is_cut_into_periods_of_a_zone(desk: Desk) -> None:
    # Clocks in Berlin went back on 25 October 2026 at 01:00 UTC: 02:30 came twice.
    back = -82 * DAY - 7 * HOUR
    desk.record(used(1), occurred=back - HOUR / 2)
    desk.record(used(2), occurred=back + HOUR / 2)
    desk.record(used(4), occurred=back - 3.5 * HOUR)
    desk.record(used(8), occurred=-6 * DAY)

    berlin = "Europe/Berlin"
    assert desk.grouped("hour", zone=berlin, order_by="key") == [
        (at(back - 4 * HOUR), 4),
        (at(back - HOUR), 1),
        (at(back), 2),
        (at(-6 * DAY), 8),
    ]
    assert desk.grouped("day", zone=berlin, order_by="key") == [
        (at(back - 27 * HOUR), 4),
        (at(back - 3 * HOUR), 3),
        (at(-6 * DAY - 9 * HOUR), 8),
    ]
    assert desk.grouped("week", zone=berlin, order_by="key") == [
        (at(back - 3 * HOUR - 6 * DAY), 7),
        (at(-11 * DAY - 9 * HOUR), 8),
    ]
    assert desk.grouped("month", zone=berlin, order_by="key") == [
        (at(back - 3 * HOUR - 24 * DAY), 7),
        (at(-14 * DAY - 9 * HOUR), 8),
    ]
    assert desk.grouped("month", order_by="key")[1] == (at(-14 * DAY - 8 * HOUR), 8)


def test_a_range_cuts_the_first_and_last_period(desk: Desk) -> None:
    desk.now = 3 * HOUR
    for minutes in range(0, 180, 20):
        desk.record(used(1), occurred=minutes * 60)
    found = desk.grouped("hour", since_us=at(40 * 60), until_us=at(2 * HOUR + 1), order_by="key")
    assert found == [(at(0), 1), (at(HOUR), 3), (at(2 * HOUR), 1)]


def test_time_and_names_group_together(desk: Desk) -> None:
    desk.now = 2 * HOUR
    desk.record(used(1), occurred=0)
    desk.record(used(2), occurred=0, agent="bob")
    desk.record(used(4))
    desk.refuse(first=0, count=5)
    assert desk.grouped("agent", "hour", order_by="key") == [
        ("ann", at(0), 1),
        ("ann", at(2 * HOUR), 4),
        ("bob", at(0), 2),
    ]
    assert desk.grouped("hour", "day", figure="rejected", order_by="key") == [
        (at(0), at(-8 * HOUR), 0),
        (at(2 * HOUR), at(-8 * HOUR), 5),
    ]


def test_too_many_periods_are_refused(desk: Desk) -> None:
    desk.now = 500 * DAY
    desk.record(occurred=0)
    desk.record()
    with pytest.raises(InvalidInput):
        desk.summary("hour")
    assert len(desk.grouped("day")) == 2
    assert len(desk.grouped("hour", since_us=at(300 * DAY))) == 1


def test_what_was_used_before_or_after_a_range_makes_it_no_longer(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollups, "ROLL_AT", 3)
    monkeypatch.setattr(rollups, "LOOK_EVERY", 1)
    desk.now = 500 * DAY
    for count in range(1, 6):  # from events, from what is rolled up, and from both
        desk.record(used(1), occurred=0)
        desk.record(used(1), occurred=450 * DAY)
        assert desk.grouped("hour", until_us=at(10 * DAY)) == [(at(0), count)]
        assert desk.grouped("hour", since_us=at(10 * DAY)) == [(at(450 * DAY), count)]
    assert desk.grouped("hour", since_us=at(10 * DAY), until_us=at(440 * DAY)) == []
    with pytest.raises(InvalidInput):
        desk.summary("hour")


def test_the_groups_beyond_the_limit_are_counted_and_are_in_the_total(desk: Desk) -> None:
    for number in range(5):
        desk.record(used(number + 1), agent=f"a{number}")
    found = desk.store.summary(SummaryQuery(UsageFilter(), ("agent",), order_by="requests", limit=2), T0)
    assert [group.key for group in found.groups] == [("a4",), ("a3",)]
    assert (found.groups_left_out, found.total.requests) == (3, 15)


def test_refusals_are_a_group_of_their_own_by_outcome(desk: Desk) -> None:
    desk.record(used(3))
    desk.refuse(first=0, count=2)
    rejected = Group(("rejected",), Totals(rejected=2))
    assert rejected in desk.summary("outcome").groups
    assert desk.summary(outcome="rejected").total == Totals(rejected=2)
    assert desk.summary(outcome="accepted").total.rejected == 0


def test_an_agent_is_summed_with_or_without_its_tree(desk: Desk) -> None:
    desk.record(used(1))
    desk.record(used(2), agent="kid", parent="ann")
    desk.record(used(4), agent="grandkid", parent="kid")
    desk.record(used(8), agent="bob")

    def total(**wanted: Any) -> int:
        return desk.summary(**wanted).total.requests

    assert total(agent="ann") == 1
    assert total(agent="ann", include_children=True) == 7
    assert total(within="kid") == 6
    assert total(within="kid", agent="grandkid") == 4
    assert total(within="kid", agent="ann", include_children=True) == 6
    assert total(within="kid", agent="bob") == 0
    assert desk.ids(within="bob") == desk.ids(agent="bob")


# Events


def test_events_and_refusals_come_newest_first_in_pages(desk: Desk) -> None:
    desk.record(id="a")
    desk.record(id="b", occurred=-500)
    desk.refuse(first=0)
    desk.record(id="c")

    first = desk.store.events(EventsQuery(UsageFilter(), limit=2))
    assert ([one.event.id for one in first.events], first.next_seq) == (["c", f"refused-{T0 + 2}"], T0 + 2)
    second = desk.store.events(EventsQuery(UsageFilter(), limit=2, before_seq=first.next_seq))
    assert ([one.event.id for one in second.events], second.next_seq) == (["b", "a"], None)
    assert desk.ids(until_us=T0) == ["b"]
    assert desk.ids(outcome="accepted") == ["c", "b", "a"]


# Names (28)


def test_names_are_what_events_and_refusals_carry(desk: Desk) -> None:
    desk.record(used(model="gpt"), agent="ann", operation="chat", project="p", session="s")
    desk.record(agent="Bob", service="api")
    desk.refuse("cyd", first=0, service="refuser")
    desk.hold(agent="dan", service="holder")
    desk.set_agent("anna")

    names = desk.store.names
    assert names("agent", "") == ["Bob", "ann", "anna", "cyd", "dan"]
    assert names("agent", "an") == ["ann", "anna"]
    assert names("agent", "b") == []
    assert names("agent", "", 2) == ["Bob", "ann"]
    assert names("service", "") == ["api", "llm", "refuser"]
    assert names("operation", "") == ["chat"]
    assert names("model", "g") == ["gpt"]
    assert names("project", "") == ["p"]
    assert names("session", "") == ["s"]


@pytest.mark.parametrize("prefix", ["%", "_", "*", "[a]"])
def test_a_prefix_is_no_pattern(desk: Desk, prefix: str) -> None:
    desk.record(agent="ann")
    assert desk.store.names("agent", prefix) == []
    desk.record(agent=f"{prefix}x")
    assert desk.store.names("agent", prefix) == [f"{prefix}x"]


# All of one moment


def test_a_snapshot_sees_one_moment_whatever_is_written_meanwhile(desk: Desk) -> None:
    desk.limit(5)
    desk.record(used(1))
    everything, summary = EventsQuery(UsageFilter()), SummaryQuery(UsageFilter(), ("agent",))

    def seen(reads: Reads) -> list[object]:
        return [
            reads.events(everything),
            reads.summary(summary, desk.now_us),
            reads.agents(AgentsQuery(), desk.now_us),
            reads.limits(None, desk.now_us),
            reads.policy().switches,
            reads.audit(),
        ]

    with desk.store.snapshot() as reads:
        before = seen(reads)
        desk.record(used(2), agent="bob")
        desk.switch(True, "agent", "bob")
        assert seen(reads) == before
    assert seen(desk.store) != before
    with desk.store.snapshot() as reads:
        assert seen(reads) == seen(desk.store)


def test_limits_of_one_kind_of_subject(desk: Desk) -> None:
    for one in (subject("pool"), subject("agent", "*"), subject("tier", "trusted")):
        desk.limit(5, subject=one)
    for who in (None, Who("ann", "api")):
        for kind in ("pool", "agent", "project"):
            everything = desk.store.limits(who, desk.now_us)
            wanted = [view for view in everything if view.limit.key.subject.kind == kind]
            assert desk.store.limits(who, desk.now_us, kind=kind) == wanted
            assert bool(wanted) == (kind != "project")
