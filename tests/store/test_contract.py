"""What every store does: recording (rules 1 to 9 of docs/semantics.md)."""

from __future__ import annotations

import pytest

from agent_meter_mcp.core.commands import Settle
from agent_meter_mcp.core.errors import Conflict, InvalidInput, NotFound
from agent_meter_mcp.core.models import LEDGER_MAX, Agent, KillSwitch, StoredEvent, UsageEvent, Who
from agent_meter_mcp.store.sqlite import open_holds, rollups

from .building import T0, Desk, at, us, used

# Sequence (1, 2)


def test_seq_is_the_clock_and_one_more_than_the_last_where_the_clock_is_not_ahead(desk: Desk) -> None:
    assert desk.record().seq == T0
    assert desk.record().seq == T0 + 1
    desk.now = -5
    assert desk.record().seq == T0 + 2
    desk.now = 1
    assert desk.record().seq == at(1)


def test_everything_that_is_stored_takes_its_seq_from_one_clock(desk: Desk) -> None:
    assert desk.record().seq == T0
    assert desk.hold().reserved_at_us == T0 + 1
    limit = desk.limit(1)
    assert limit.created_at_us == T0 + 2
    assert desk.reserve().status == "denied"
    assert desk.events(outcome="rejected").events[0].seq == T0 + 3
    assert desk.switch(True).switch == KillSwitch("everything", None, "why", "op", T0 + 4)
    assert [entry.seq for entry in desk.store.audit()] == [T0 + 4, T0 + 2]
    assert desk.record().seq == T0 + 5


def test_what_stores_nothing_new_takes_no_seq(desk: Desk) -> None:
    limit = desk.limit(4)
    desk.record(used(1), id="e")
    hold = desk.hold(used(2))
    assert desk.reserve(used(4)).status == "denied"
    last = T0 + 3

    desk.record(used(1), id="e")
    desk.record(used(2), id="e")
    desk.reserve(used(4))
    desk.set_limit(4, id=limit.limit_id)
    desk.set_agent("ann")
    desk.switch(False)
    desk.extend(hold.reservation_id, 9)
    desk.release(hold.reservation_id)
    with pytest.raises(Conflict):
        desk.record(used(1), id="e")

    assert desk.record().seq == last + 1


def test_commands_of_one_batch_see_those_before_them(desk: Desk) -> None:
    limited, first, second, again = desk.apply(
        desk.limiting(3),
        desk.reserving(used(2), event="a"),
        desk.reserving(used(2), event="b"),
        desk.reserving(used(2), event="a"),
    )

    assert limited.status == "created"
    assert (first.status, second.status, again.status) == ("reserved", "denied", "duplicate")
    assert again.reservation == first.reservation


def test_a_command_that_fails_changes_nothing_and_takes_no_seq(desk: Desk) -> None:
    desk.record(agent="kid", parent="ann", id="e")

    answers = desk.apply(
        desk.recording(agent="ann", parent="kid", service="new", project="new", operation="new"),
        desk.recording(agent="zoe", parent="zed", id="e"),
        Settle("none", used()),
        desk.recording(id="after"),
    )

    assert [type(answer) for answer in answers[:3]] == [InvalidInput, Conflict, NotFound]
    assert answers[3].seq == T0 + 1
    assert desk.ids() == ["after", "e"]
    assert desk.store.names("agent", "") == ["ann", "kid"]
    assert desk.store.names("service", "") == ["llm"]
    assert desk.store.names("project", "") == []
    assert desk.store.names("operation", "") == []
    assert desk.store.policy().lineage("ann") == ("ann",)


def test_changed_differs_after_another_has_committed(desk: Desk) -> None:
    before = desk.store.changed()
    desk.record()
    assert desk.store.changed() != before


# Booking (3, 4)


def test_usage_counts_when_it_occurred_and_never_in_the_future(desk: Desk) -> None:
    desk.now = 1000
    assert desk.record().booked_at_us == at(1000)
    assert desk.record(occurred=10).booked_at_us == at(10)
    later = desk.record(occurred=1030, id="ahead")
    assert later.booked_at_us == later.seq
    assert desk.event("ahead").event.occurred_at_us == at(1030)


def test_usage_of_an_untrusted_reporter_counts_no_earlier_than_5_minutes_ago(desk: Desk) -> None:
    desk.now = 1000
    assert desk.record(occurred=10, trusted=False).booked_at_us == at(700)
    assert desk.record(occurred=800, trusted=False).booked_at_us == at(800)


def test_a_range_includes_its_start_and_not_its_end(desk: Desk) -> None:
    desk.now = 100
    for moment in (10, 20, 30):
        desk.record(used(moment), occurred=moment, id=str(moment))

    assert desk.ids(since_us=at(10), until_us=at(30)) == ["20", "10"]
    assert desk.summary(since_us=at(10), until_us=at(30)).total.requests == 30
    assert desk.summary(since_us=at(10) + 1, until_us=at(30) + 1).total.requests == 50


def test_usage_of_the_past_is_judged_by_all_that_is_less_than_a_window_away(desk: Desk) -> None:
    desk.limit(4, "60s")
    desk.now = 200
    desk.record(used(1), occurred=40)
    desk.record(used(1), occurred=100.000001)
    desk.record(used(1), occurred=160)

    # (40, 160) holds 1: what lies a whole window away, on either side, is in no window together with 100.
    assert desk.record(used(3), occurred=100).outcome == "accepted"
    # (40.000001, 160.000001) holds 1 + 3 + 1.
    assert desk.record(used(0), occurred=100.000001).outcome == "over_limit"


def test_open_holds_made_around_the_booking_are_counted_and_those_that_are_over_are_not(desk: Desk) -> None:
    desk.limit(4, "60s")
    desk.now = 100
    desk.hold(used(3), ttl=50)

    desk.now = 149
    assert desk.record(used(2), occurred=41).outcome == "over_limit"
    assert desk.record(used(2), occurred=39).outcome == "accepted"
    assert desk.record(used(2), occurred=130).outcome == "over_limit"
    desk.now = 150
    assert desk.record(used(2), occurred=102).outcome == "accepted"


def test_usage_of_the_past_is_judged_by_its_own_calendar_period(desk: Desk) -> None:
    desk.limit(4, "day")
    yesterday = -10 * 3600
    desk.record(used(4))
    assert desk.record(used(3), occurred=yesterday).outcome == "accepted"
    assert desk.record(used(2), occurred=yesterday).outcome == "over_limit"
    assert desk.record(used(0)).outcome == "accepted"


# Parents, prices (5)


def test_the_first_word_about_a_parent_links_and_is_kept_with_the_agent_only(desk: Desk) -> None:
    desk.record(agent="kid", parent="ann", id="e")

    assert desk.agent("kid").agent == Agent("kid", parent="ann")
    assert desk.event("e") == StoredEvent(T0, UsageEvent("e", Who("kid", "llm"), used()), "accepted", T0)
    hold = desk.hold(agent="second", parent="kid")
    assert hold.who == Who("second", "llm")
    assert desk.store.policy().lineage("second") == ("second", "kid", "ann")
    assert desk.actions() == []


def test_another_parent_than_the_one_known_is_refused(desk: Desk) -> None:
    desk.record(agent="kid", parent="ann")
    for command in (desk.recording(agent="kid", parent="bob"), desk.reserving(agent="kid", parent="bob")):
        (error,) = desk.apply(command)
        assert isinstance(error, InvalidInput)
        assert error.field == "parent"
    assert desk.record(agent="kid", parent="ann").outcome == "accepted"


def test_a_cycle_and_a_ninth_generation_are_refused(desk: Desk) -> None:
    for generation in range(2, 9):
        desk.record(agent=f"g{generation}", parent=f"g{generation - 1}")
    for agent, parent in (("g9", "g8"), ("g1", "g8"), ("g0", "g0")):
        with pytest.raises(InvalidInput, match="parent"):
            desk.record(agent=agent, parent=parent)
    assert len(desk.store.policy().lineage("g8")) == 8


def test_a_replay_does_not_look_at_the_parent(desk: Desk) -> None:
    desk.record(agent="kid", parent="ann", id="e")
    desk.reserve(agent="kid", parent="ann", event="r")
    desk.set_agent("kid", parent="bob")

    assert desk.record(agent="kid", parent="ann", id="e").status == "duplicate"
    assert desk.reserve(agent="kid", parent="ann", event="r").status == "duplicate"
    assert desk.store.policy().lineage("kid") == ("kid", "bob")


def test_a_price_version_is_kept_with_a_computed_cost_only(desk: Desk) -> None:
    computed = used(cost=5).replace(cost_source="computed", price_version="v1")
    reported = used(cost=5).replace(price_version="v1")
    unknown = used().replace(cost_source="computed", price_version="v1")
    for name, usage in (("computed", computed), ("reported", reported), ("unknown", unknown)):
        desk.record(usage, id=name)
        assert desk.record(usage, id=name).status == "duplicate"
        hold = desk.reserve(usage, event=f"{name} hold")
        assert desk.reserve(usage, event=f"{name} hold") == hold.replace(status="duplicate")

    assert desk.event("computed").event.usage == computed
    assert desk.event("reported").event.usage == used(cost=5)
    assert desk.event("unknown").event.usage == used()
    assert desk.record(unknown).cost_source == "unpriced"


# Keys (6)


def test_an_id_is_unique_within_its_service(desk: Desk) -> None:
    assert desk.record(id="e", service="llm").status == "recorded"
    assert desk.record(id="e", service="api").status == "recorded"
    assert desk.record(id="e", service="llm").status == "duplicate"


def test_the_id_of_an_open_hold_cannot_be_recorded_until_the_hold_is_over(desk: Desk) -> None:
    desk.reserve(event="e", ttl=30)
    desk.now = 29
    with pytest.raises(Conflict):
        desk.record(id="e")
    assert desk.record(id="e", service="api").status == "recorded"
    desk.now = 30
    assert desk.record(id="e").status == "recorded"


def test_the_id_of_a_refusal_is_no_key(desk: Desk) -> None:
    desk.limit(0)
    desk.reserve()
    (refused,) = desk.ids(outcome="rejected")
    assert refused == f"refused-{T0 + 1}"
    assert desk.event(refused) is None
    assert desk.record(id=refused).status == "recorded"


# Outcomes (7)


def test_usage_is_over_the_limit_when_it_does_not_fit_and_is_counted_all_the_same(desk: Desk) -> None:
    limit = desk.limit(10, metric="tokens")
    assert desk.record(used(tokens=10)).outcome == "accepted"
    assert desk.record(used(tokens=1)).outcome == "over_limit"
    assert desk.state(limit).used == 11


def test_every_hard_limit_counts_and_no_soft_one(desk: Desk) -> None:
    desk.limit(9)
    desk.limit(1, service="llm")
    desk.limit(0, metric="tokens", action="warn")
    assert desk.record(used(1, tokens=5)).outcome == "accepted"
    assert desk.record(used(1)).outcome == "over_limit"
    assert desk.record(used(1), service="api").outcome == "accepted"


def test_what_is_not_stated_counts_nothing(desk: Desk) -> None:
    desk.limit(0, metric="cost_usd")
    assert desk.record(used(1, tokens=5)).outcome == "accepted"
    assert desk.record(used(1, cost=1)).outcome == "over_limit"
    assert desk.record(used(1, tokens=5)).outcome == "over_limit"


def test_when_nothing_is_left_it_says_when_the_last_of_the_full_ones_has_room_again(desk: Desk) -> None:
    desk.limit(2, "60s")
    desk.limit(2, "hour")
    desk.limit(9, "day")
    desk.now = 1
    assert desk.record(used(1)).retry_after_us is None
    assert desk.record(used(1)).retry_after_us == us(3599) - 1
    desk.now = 2
    # The 60 s window has room at 62 (its bucket ends at 2), the hour at 3600.
    assert desk.record(used(1)).retry_after_us == us(3598)
    assert desk.record(used(1), want=False).retry_after_us is None


def test_over_a_limit_that_no_time_brings_back_it_says_nothing_about_when(desk: Desk) -> None:
    desk.limit(2, "60s")
    desk.limit(2, "total")
    assert desk.record(used(3)).retry_after_us is None


def test_states_and_switch_are_answered_when_wanted_only(desk: Desk) -> None:
    limit = desk.limit(5)
    switch = desk.switch(True).switch
    wanted, unwanted = desk.record(), desk.record(want=False)
    assert ([state.limit for state in wanted.limits], wanted.switch) == ([limit], switch)
    assert wanted.limits[0].used == 1
    assert (unwanted.limits, unwanted.switch) == ((), None)


# Replays (8)


def test_a_duplicate_is_answered_as_the_first_time_and_counts_nothing(desk: Desk) -> None:
    limit = desk.limit(3)
    desk.now = 10
    first = desk.record(used(2, cost=7), id="e", occurred=4)
    desk.now = 500
    again = desk.record(used(2, cost=7), id="e", occurred=4)

    assert (again.status, again.outcome, again.cost_nano_usd) == ("duplicate", "accepted", 7)
    assert (again.seq, again.booked_at_us) == (first.seq, at(4)) == (at(10), at(4))
    assert again.limits[0].used == 2
    assert desk.state(limit).used == 2


def test_a_duplicate_keeps_its_outcome_and_says_how_it_stands_now(desk: Desk) -> None:
    desk.limit(1, "hour", thresholds=())
    desk.record(used(2), id="over")
    desk.now = 600
    again = desk.record(used(2), id="over")
    assert (again.status, again.outcome, again.retry_after_us) == ("duplicate", "over_limit", us(3000))

    desk.limit(9, "hour", thresholds=())
    again = desk.record(used(2), id="over")
    assert (again.outcome, again.retry_after_us) == ("over_limit", None)


def test_figures_that_grew_correct_the_event_at_its_old_booking(desk: Desk) -> None:
    limit = desk.limit(100, metric="tokens")
    first = desk.record(used(tokens=5), id="e")
    desk.now = 9
    answer = desk.record(used(tokens=30), id="e", status_code=200, duration_ms=8, metadata="{}")

    assert (answer.status, answer.outcome) == ("corrected", "accepted")
    assert (answer.seq, answer.booked_at_us) == (first.seq, T0 + 1)
    assert desk.event("e") == StoredEvent(
        T0 + 1,
        UsageEvent("e", Who("ann", "llm"), used(tokens=30), status_code=200, duration_ms=8, metadata="{}"),
        "accepted",
        T0 + 1,
    )
    assert desk.state(limit).used == 30
    assert desk.summary().total.tokens == 30


def test_a_correction_is_judged_without_its_old_figures_and_stays_over_the_limit(desk: Desk) -> None:
    desk.limit(10, metric="tokens")
    desk.record(used(tokens=6), id="e")
    assert desk.record(used(tokens=10), id="e").outcome == "accepted"
    assert desk.record(used(tokens=11), id="e").outcome == "over_limit"
    desk.limit(50, metric="tokens")
    assert desk.record(used(tokens=12), id="e").outcome == "over_limit"
    assert desk.summary().total.over_limit == 1


def test_a_cost_that_turns_out_lower_than_computed_is_taken_back(desk: Desk) -> None:
    limit = desk.limit(100, "hour", metric="cost_usd")
    desk.record(used(cost=60).replace(cost_source="computed", price_version="v1"), id="e")
    answer = desk.record(used(cost=40), id="e")
    assert (answer.status, answer.cost_nano_usd, answer.cost_source) == ("corrected", 40, "reported")
    assert desk.state(limit).used == 40


def test_a_total_begins_later_when_its_first_usage_turns_out_to_cost_nothing(desk: Desk) -> None:
    limit = desk.limit(100, metric="cost_usd")
    computed = used(cost=60, tokens=5).replace(cost_source="computed", price_version="v1")
    for desk.now in (2, 4):
        desk.record(computed, id=f"at {desk.now}")
    desk.record(used(tokens=6), id="at 2")
    assert (desk.state(limit).used, desk.state(limit).since_us) == (60, at(4))
    desk.record(used(tokens=6), id="at 4")
    assert (desk.state(limit).used, desk.state(limit).since_us) == (0, at(4) + 1)
    desk.now = 6
    desk.record(computed, id="at 6")
    assert desk.state(limit).since_us == at(6)


@pytest.mark.parametrize(
    ("details", "fields"),
    [
        ({"usage": used(tokens=4)}, ("input_tokens",)),
        ({"agent": "bob"}, ("agent",)),
        ({"project": "p"}, ("project",)),
        ({"session": "s"}, ("session",)),
        ({"operation": "chat"}, ("operation",)),
        ({"source": "sdk"}, ("source",)),
        ({"status_code": 500}, ("status_code",)),
        ({"usage": used(tokens=9, model="m")}, ("model", "input_tokens")),
    ],
)
def test_the_same_id_with_other_content_is_a_conflict_that_names_the_fields(
    desk: Desk, details: dict[str, object], fields: tuple[str, ...]
) -> None:
    desk.record(used(tokens=5), id="e")
    with pytest.raises(Conflict) as caught:
        desk.record(**{"usage": used(tokens=5), "id": "e", **details})  # pyright: ignore[reportArgumentType]  each detail has its argument's type
    assert caught.value.fields == fields
    assert desk.summary().total.tokens == 5


def test_a_moment_is_content_where_both_state_it(desk: Desk) -> None:
    desk.record(used(tokens=5), id="undated")
    assert desk.record(used(tokens=5), id="undated", occurred=0).status == "duplicate"
    desk.record(used(tokens=5), id="dated", occurred=0)
    assert desk.record(used(tokens=5), id="dated").status == "duplicate"
    with pytest.raises(Conflict) as caught:
        desk.record(used(tokens=5), id="dated", occurred=1)
    assert caught.value.fields == ("occurred_at",)
    for id, moment in (("undated", None), ("dated", at(0))):  # the first word stands
        assert desk.record(used(tokens=6), id=id, occurred=None if moment else 0).status == "corrected"
        assert desk.event(id).event.occurred_at_us == moment


def test_a_source_that_the_repeat_does_not_state_is_no_difference(desk: Desk) -> None:
    """stdio says "self" for who says nothing, HTTP "sdk": that is no other usage."""
    desk.record(used(tokens=5), id="e", source="sdk", stated=False)
    assert desk.record(used(tokens=5), id="e", source="self", stated=False).status == "duplicate"
    assert desk.record(used(tokens=9), id="e", source="self", stated=False).status == "corrected"
    (event,) = desk.events().events
    assert (event.event.source, event.event.usage.tokens) == ("sdk", 9)
    desk.record(used(), id="proxied", source="proxy")
    assert desk.record(used(), id="proxied", stated=False).status == "duplicate"
    with pytest.raises(Conflict):
        desk.record(used(), id="proxied", source="sdk")


def test_replays_within_one_batch_are_found(desk: Desk) -> None:
    one, same, more, other = desk.apply(
        desk.recording(used(tokens=5), id="e"),
        desk.recording(used(tokens=5), id="e"),
        desk.recording(used(tokens=6), id="e"),
        desk.recording(used(tokens=5), id="e"),
    )
    assert (one.status, same.status, more.status) == ("recorded", "duplicate", "corrected")
    assert isinstance(other, Conflict)
    assert desk.summary().total.tokens == 6


# The largest number (9)


def test_no_sum_over_the_ledger_passes_the_largest_integer(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No event that a face lets in is so large that one alone comes near: SQLite looks after so many events.
    monkeypatch.setattr(rollups, "ROLL_AT", 1)
    monkeypatch.setattr(rollups, "LOOK_EVERY", 1)
    half = 2**62
    desk.record(used(half, tokens=half, cost=half, units_micro=half))
    for field, usage in (
        ("requests", used(half)),
        ("tokens", used(0, tokens=half)),
        ("cost_usd", used(0, cost=half)),
        ("units", used(0, units_micro=half)),
    ):
        for command in (desk.recording(usage), desk.reserving(usage)):
            (error,) = desk.apply(command)
            assert isinstance(error, InvalidInput)
            assert error.field == field
    assert desk.record(used(half - 1), id="most").status == "recorded"
    assert desk.record(used(half - 1), id="most").status == "duplicate"
    with pytest.raises(InvalidInput, match="requests"):
        desk.record(used(half), id="most")
    assert desk.summary().total.requests == LEDGER_MAX


def test_no_sum_of_holds_passes_the_largest_integer(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_holds, "ALWAYS_FIT", 0)
    half = 2**62
    held = desk.hold(used(0, tokens=half, cost=half, units_micro=half))
    for field, usage in (
        ("tokens", used(0, tokens=half)),
        ("cost_usd", used(0, cost=half)),
        ("units", used(0, units_micro=half)),
    ):
        (error,) = desk.apply(desk.reserving(usage))
        assert isinstance(error, InvalidInput)
        assert error.field == field
    desk.release(held.reservation_id)
    desk.hold(used(0, tokens=half))
    limit = desk.limit(1, metric="tokens", action="warn")
    desk.hold(used(0, tokens=half - 1))
    assert desk.state(limit).held == LEDGER_MAX


def test_what_is_not_there_is_none(desk: Desk) -> None:
    assert desk.event("none") is None
    assert desk.reservation("none") is None
    assert desk.summary().total.events == 0
