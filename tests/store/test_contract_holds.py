"""What every store does: holds and refusals (rules 10 to 15 of docs/semantics.md)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from agent_meter_mcp.core.commands import Extend, Release, Reserve, Reserved, Settle
from agent_meter_mcp.core.errors import Conflict, NotFound
from agent_meter_mcp.core.models import Reservation, StoredEvent, UsageEvent, Who

from .building import T0, Desk, at, subject, used

# Reserving (10, 11)


def test_a_hold_is_kept_as_it_was_asked_for(desk: Desk) -> None:
    answer = desk.reserve(used(2, cost=7), id="h", event="e", ttl=30, operation="chat", source="sdk")

    held = Reservation("h", "e", Who("ann", "llm"), used(2, cost=7), "chat", "sdk", T0, at(30))
    assert (answer.status, answer.reservation) == ("reserved", held)
    assert answer.decision.allowed
    assert desk.reservation("h") == held
    assert desk.store.reservations(at(0)) == [held]


def test_the_same_hold_again_is_a_duplicate_whatever_became_of_it(desk: Desk) -> None:
    limit = desk.limit(5)
    first = desk.reserve(used(3), event="e", ttl=30)
    assert first.reservation is not None

    again = desk.reserve(used(3), event="e", ttl=90)
    assert (again.status, again.reservation) == ("duplicate", first.reservation)
    assert (again.decision.allowed, again.decision.reasons) == (True, ())
    assert [(state.limit, state.held) for state in again.decision.limits] == [(limit, 3)]

    desk.switch(True)
    desk.now = 31
    again = desk.reserve(used(3), event="e")
    assert again.reservation == first.reservation.replace(state="expired")
    assert (again.decision.allowed, again.decision.limits[0].held) == (True, 0)

    desk.settle(first.reservation.reservation_id)
    again = desk.reserve(used(3), event="e")
    assert (again.status, again.reservation) == ("duplicate", first.reservation.replace(state="settled"))


def test_the_same_hold_again_is_found_where_its_event_has_its_own_id(desk: Desk) -> None:
    first = desk.reserve(id="h", event="h")
    assert desk.reserve(id="h", event="h") == first.replace(status="duplicate")


def test_an_id_that_is_said_to_be_new_and_is_not_is_found_all_the_same(desk: Desk) -> None:
    first = desk.reserve(id="h", event="h", is_new=True)
    assert desk.reserve(id="h", event="h", is_new=True) == first.replace(status="duplicate")
    with pytest.raises(Conflict):
        desk.reserve(used(4), id="h", event="h", is_new=True)
    assert len(desk.store.reservations(at(0))) == 1


@pytest.mark.parametrize(
    "details",
    [
        {"usage": used(4)},
        {"usage": used(3, tokens=0)},
        {"agent": "bob"},
        {"operation": "chat"},
        {"source": "sdk"},
    ],
)
def test_another_hold_under_the_same_id_is_a_conflict(desk: Desk, details: dict[str, object]) -> None:
    desk.reserve(used(3), event="e")
    with pytest.raises(Conflict):
        desk.reserve(**{"usage": used(3), "event": "e", **details})  # pyright: ignore[reportArgumentType]  each detail has its argument's type
    assert len(desk.store.reservations(at(0))) == 1


def test_a_hold_is_asked_for_again_by_another_way_in(desk: Desk) -> None:
    first = desk.reserve(event="e", source="sdk", source_is_stated=False)
    again = desk.reserve(event="e", source="self", source_is_stated=False)
    assert (again.status, again.reservation) == ("duplicate", first.reservation)


def test_a_hold_under_the_id_of_an_event_is_a_conflict(desk: Desk) -> None:
    desk.record(id="e")
    with pytest.raises(Conflict):
        desk.reserve(event="e")
    assert desk.reserve(event="e", service="api").status == "reserved"


def test_a_hold_is_admitted_up_to_the_maximum_and_not_beyond(desk: Desk) -> None:
    limit = desk.limit(5)
    desk.record(used(2))
    assert desk.reserve(used(3)).status == "reserved"
    denied = desk.reserve(used(1))

    assert (denied.status, denied.reservation, denied.decision.allowed) == ("denied", None, False)
    (reason,) = denied.decision.reasons
    assert (reason.code, reason.asked) == ("limit", 1)
    assert reason.state is not None
    assert (reason.state.limit, reason.state.used, reason.state.held) == (limit, 2, 3)
    assert desk.state(limit).held == 3


def test_every_limit_must_fit_and_the_first_that_does_not_names_the_refusal(desk: Desk) -> None:
    desk.limit(9)
    tokens = desk.limit(10, metric="tokens")
    desk.limit(0, metric="cost_usd")
    denied = desk.reserve(used(1, tokens=11, cost=1))

    assert [reason.asked for reason in denied.decision.reasons] == [11, 1]
    assert desk.events().events == (
        StoredEvent(
            T0 + 3,
            UsageEvent(f"refused-{T0 + 3}", Who("ann", "llm"), used(1, tokens=11, cost=1)),
            "rejected",
            T0 + 3,
            1,
            tokens.limit_id,
        ),
    )


def test_an_amount_that_is_not_stated_fits_while_anything_is_left_and_holds_nothing(desk: Desk) -> None:
    limit = desk.limit(10, metric="tokens")
    assert desk.reserve(used()).status == "reserved"
    assert desk.state(limit).held == 0
    desk.record(used(tokens=10))
    denied = desk.reserve(used())
    assert (denied.status, denied.decision.reasons[0].asked) == ("denied", None)
    assert desk.reserve(used(tokens=0)).status == "reserved"


def test_a_kill_switch_comes_first_and_the_limits_are_explained_all_the_same(desk: Desk) -> None:
    desk.limit(0)
    switch = desk.switch(True, "agent", "ann").switch
    denied = desk.reserve()

    assert [reason.code for reason in denied.decision.reasons] == ["kill_switch", "limit"]
    assert denied.decision.reasons[0].switch == switch
    assert (denied.decision.retry_after_us, denied.decision.affordable) == (None, (0, 0, 0, 0))
    assert desk.events().events[0].limit_id is None


def test_a_soft_limit_denies_nothing_and_is_a_reason(desk: Desk) -> None:
    soft = desk.limit(2, action="warn")
    hard = desk.limit(4, "hour")
    answer = desk.reserve(used(3))

    assert (answer.status, answer.decision.allowed) == ("reserved", True)
    (reason,) = answer.decision.reasons
    assert (reason.code, reason.asked) == ("soft_limit", 3)
    assert reason.state is not None
    assert reason.state.held == 0
    assert [(state.limit, state.held) for state in answer.decision.limits] == [(soft, 3), (hard, 3)]
    assert answer.decision.affordable == (1, None, None, None)


def test_a_denial_takes_no_budget_and_extends_no_window(desk: Desk) -> None:
    limit = desk.limit(1, "60s")
    desk.record()
    for moment in range(1, 60):
        desk.now = moment
        assert desk.reserve().status == "denied"
    desk.now = 61
    assert desk.reserve().status == "reserved"
    assert desk.state(limit).used == 0


def test_callers_on_several_threads_are_admitted_up_to_the_maximum_together(desk: Desk) -> None:
    limit = desk.limit(25)
    commands = [desk.reserving(agent=f"agent {number % 4}") for number in range(40)]

    def status_of(command: Reserve) -> str:
        return desk.do(command, Reserved).status

    with ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(status_of, commands))
    assert (statuses.count("reserved"), statuses.count("denied")) == (25, 15)
    assert desk.state(limit).held == 25
    assert len({hold.reserved_at_us for hold in desk.store.reservations(at(0))}) == 25


# Settling (12)


def test_settled_usage_is_booked_where_the_hold_was_made(desk: Desk) -> None:
    limit = desk.limit(10)
    hold = desk.hold(used(4, tokens=9, model="m", unit_type="page"), operation="chat")
    desk.now = 20
    answer = desk.settle(hold.reservation_id, used(3), status_code=200, duration_ms=5, metadata="{}")

    assert (answer.status, answer.outcome, answer.late) == ("recorded", "accepted", False)
    assert (answer.seq, answer.booked_at_us) == (at(20), T0 + 1)
    stored = UsageEvent(
        hold.event_id, hold.who, used(3, model="m", unit_type="page"), "chat", "self", None, 200, 5, "{}"
    )
    assert desk.event(hold.event_id) == StoredEvent(at(20), stored, "accepted", T0 + 1)
    assert desk.reservation(hold.reservation_id) == hold.replace(state="settled")
    assert (desk.state(limit).used, desk.state(limit).held) == (3, 0)


def test_without_usage_the_estimate_was_right(desk: Desk) -> None:
    hold = desk.hold(used(4, cost=9))
    assert desk.settle(hold.reservation_id).cost_nano_usd == 9
    assert desk.event(hold.event_id).event.usage == used(4, cost=9)


def test_what_was_held_is_inside_even_if_the_limit_was_lowered_since(desk: Desk) -> None:
    desk.limit(10)
    first, second, third = desk.hold(used(3)), desk.hold(used(3)), desk.hold(used(3))
    desk.limit(1)
    assert desk.settle(first.reservation_id, used(3)).outcome == "accepted"
    assert desk.settle(second.reservation_id, used(4)).outcome == "over_limit"
    assert desk.settle(third.reservation_id, used(1)).outcome == "accepted"


def test_more_than_was_held_is_judged_where_the_hold_was_made_without_it(desk: Desk) -> None:
    desk.limit(10, "60s")
    desk.record(used(2))
    desk.now = 30
    hold = desk.hold(used(3), ttl=600)
    other = desk.hold(used(3), ttl=600)
    desk.now = 89
    desk.record(used(1))
    desk.now = 95
    desk.record(used(9))
    # Around 30: 2 + 3 (the other hold) + 1; 95 is a whole window away.
    assert desk.settle(hold.reservation_id, used(4)).outcome == "accepted"
    assert desk.settle(other.reservation_id, used(4)).outcome == "over_limit"


def test_a_metric_that_was_not_held_is_judged_for_what_was_used(desk: Desk) -> None:
    desk.limit(10, metric="tokens")
    hold = desk.hold(used(1))
    assert desk.settle(hold.reservation_id, used(1, tokens=11)).outcome == "over_limit"


def test_settling_after_the_end_is_recorded_now_and_late(desk: Desk) -> None:
    desk.limit(4)
    expired, released = desk.hold(used(2), ttl=10), desk.hold(used(2))
    desk.now = 11
    desk.release(released.reservation_id)

    answer = desk.settle(expired.reservation_id, used(3))
    assert (answer.late, answer.outcome, answer.booked_at_us) == (True, "accepted", at(11))
    answer = desk.settle(released.reservation_id, used(2))
    assert (answer.late, answer.outcome, answer.booked_at_us) == (True, "over_limit", at(11) + 1)
    for hold in (expired, released):
        assert desk.reservation(hold.reservation_id) == hold.replace(state="settled")


def test_settling_twice_is_a_replay(desk: Desk) -> None:
    hold = desk.hold(used(4))
    first = desk.settle(hold.reservation_id, used(2))
    assert desk.settle(hold.reservation_id, used(2)) == first.replace(status="duplicate")
    assert desk.settle(hold.reservation_id, used(3)).status == "corrected"
    with pytest.raises(Conflict):
        desk.settle(hold.reservation_id, used(1))
    assert desk.record(used(3), id=hold.event_id).status == "duplicate"
    assert desk.summary().total.requests == 3


def test_settling_late_twice_is_late_both_times(desk: Desk) -> None:
    hold = desk.hold(ttl=10)
    desk.now = 10
    first = desk.settle(hold.reservation_id)
    assert first.late
    assert desk.settle(hold.reservation_id) == first.replace(status="duplicate")


def test_settling_what_was_recorded_meanwhile_is_a_replay_and_leaves_the_hold(desk: Desk) -> None:
    hold = desk.hold(used(2), ttl=10)
    desk.now = 10
    recorded = desk.record(used(2), id=hold.event_id)
    answer = desk.settle(hold.reservation_id)
    assert (answer.status, answer.seq, answer.late) == ("duplicate", recorded.seq, True)
    assert desk.reservation(hold.reservation_id) == hold.replace(state="expired")
    assert desk.summary().total.requests == 2


@pytest.mark.parametrize("command", [Settle("none", None), Release("none"), Extend("none", 1)])
def test_a_hold_that_does_not_exist_is_not_found(desk: Desk, command: Settle | Release | Extend) -> None:
    (error,) = desk.apply(command)
    assert isinstance(error, NotFound)


# Release, extend, expiry (13, 14)


def test_a_released_hold_gives_its_budget_back(desk: Desk) -> None:
    desk.limit(2)
    hold = desk.hold(used(2))
    assert desk.release(hold.reservation_id) == hold.replace(state="released")
    assert desk.release(hold.reservation_id) == hold.replace(state="released")
    assert desk.store.reservations(at(0)) == []
    assert desk.reserve(used(2)).status == "reserved"


def test_what_is_over_is_released_as_it_is_and_what_is_settled_not_at_all(desk: Desk) -> None:
    expired, settled = desk.hold(ttl=10), desk.hold()
    desk.settle(settled.reservation_id)
    desk.now = 10
    assert desk.release(expired.reservation_id) == expired.replace(state="expired")
    with pytest.raises(Conflict):
        desk.release(settled.reservation_id)


def test_an_extended_hold_lasts_from_now_whatever_the_budget(desk: Desk) -> None:
    limit = desk.limit(2)
    hold = desk.hold(used(2), ttl=10)
    desk.limit(0)
    desk.now = 9
    assert desk.extend(hold.reservation_id, 30) == hold.replace(expires_at_us=at(39))
    desk.now = 38
    assert desk.state(limit).held == 2
    assert desk.extend(hold.reservation_id, 1).expires_at_us == at(39)


def test_an_extension_may_end_sooner_and_gives_the_budget_back_then(desk: Desk) -> None:
    desk.limit(1)
    hold = desk.hold(ttl=3600)
    desk.now = 1
    desk.extend(hold.reservation_id, 5)
    desk.now = 5.9
    assert desk.reserve().status == "denied"
    desk.now = 6
    assert desk.reserve().status == "reserved"


def test_what_is_not_open_is_not_extended(desk: Desk) -> None:
    expired, settled, released = desk.hold(ttl=10), desk.hold(), desk.hold()
    desk.settle(settled.reservation_id)
    desk.release(released.reservation_id)
    desk.now = 10
    for hold in (expired, settled, released):
        with pytest.raises(Conflict):
            desk.extend(hold.reservation_id, 60)


def test_a_hold_ends_at_the_very_microsecond(desk: Desk) -> None:
    limit = desk.limit(2)
    hold = desk.hold(used(2), ttl=10)
    end_us = hold.expires_at_us
    for now_us, state, held in ((end_us - 1, "open", 2), (end_us, "expired", 0)):
        desk.now = (now_us - T0) / 1_000_000
        found = desk.reservation(hold.reservation_id)
        assert found is not None
        assert (found.state, desk.state(limit).held) == (state, held)
        assert len(desk.store.reservations(now_us)) == (state == "open")
    assert desk.reserve(used(2)).status == "reserved"


def test_a_hold_can_end_in_the_middle_of_a_batch(desk: Desk) -> None:
    desk.limit(2)
    hold = desk.hold(used(2), ttl=10, event="e")
    desk.now = (hold.expires_at_us - 1 - T0) / 1_000_000
    denied, set_agent, reserved, recorded, extended = desk.apply(
        desk.reserving(used(2)),
        desk.recording(used(0)),
        desk.reserving(used(2)),
        desk.recording(used(0), id="e"),
        Extend(hold.reservation_id, 60),
    )
    assert (denied.status, set_agent.status, reserved.status) == ("denied", "recorded", "reserved")
    assert recorded.status == "recorded"
    assert isinstance(extended, Conflict)


def test_open_holds_are_listed_oldest_first(desk: Desk) -> None:
    ids = [desk.hold(id=name).reservation_id for name in ("z", "m", "a")]
    assert [held.reservation_id for held in desk.store.reservations(at(0))] == ids


# Refusals (15)


def test_refusals_fold_by_second_agent_service_and_limit(desk: Desk) -> None:
    limit = desk.limit(0)
    desk.now = 5
    for _ in range(3):
        desk.reserve()
    desk.reserve(agent="bob")
    desk.reserve(service="api")
    desk.now = 6
    desk.reserve()
    desk.switch(True)
    desk.reserve()

    folds = [
        (stored.event.who.agent, stored.event.who.service, stored.limit_id, stored.count, stored.seq)
        for stored in desk.events().events[::-1]
    ]
    assert folds == [
        ("ann", "llm", limit.limit_id, 3, at(5)),
        ("bob", "llm", limit.limit_id, 1, at(5) + 1),
        ("ann", "api", limit.limit_id, 1, at(5) + 2),
        ("ann", "llm", limit.limit_id, 1, at(6)),
        ("ann", "llm", None, 1, at(6) + 2),
    ]
    assert desk.summary().total.rejected == 7


def test_a_fold_shows_what_was_refused_first(desk: Desk) -> None:
    desk.limit(0)
    desk.reserve(used(2, tokens=5), operation="first")
    desk.reserve(used(9), operation="second")
    (fold,) = desk.events().events
    assert (fold.event.operation, fold.event.usage, fold.count) == ("first", used(2, tokens=5), 2)


def test_refusals_decided_elsewhere_fold_by_the_second_of_the_first(desk: Desk) -> None:
    limit = desk.limit(0)
    desk.now = 4
    desk.reserve()
    desk.now = 9
    assert desk.refuse(first=4.7, count=5, limit=limit.limit_id) == 5
    assert desk.refuse(first=3.2, count=2, limit=limit.limit_id) == 2
    assert desk.refuse(first=3.9, count=1, limit=limit.limit_id) == 1
    assert desk.refuse(first=3.9, count=1) == 1

    counted = [(stored.seq, stored.booked_at_us, stored.count) for stored in desk.events().events]
    assert counted == [(at(9) + 1, at(9) + 1, 1), (at(9), at(9), 3), (at(4), at(4), 6)]


def test_refusals_count_in_no_window(desk: Desk) -> None:
    limit = desk.limit(3, subject=subject("agent", "ann"))
    desk.refuse(first=0, count=50)
    assert desk.state(limit).used == 0
    assert desk.reserve(used(3)).status == "reserved"
