"""What every store does: decisions, alerts and the configuration (rules 16 to 24 of docs/semantics.md)."""

from __future__ import annotations

import json

import pytest

from agent_meter_mcp.core.decide import Decision, Holder, LimitState, Reason
from agent_meter_mcp.core.errors import InvalidInput, NotFound
from agent_meter_mcp.core.models import LIMITS_MAX, Agent, Alert, AuditEntry, KillSwitch
from agent_meter_mcp.store import memory_ruling
from agent_meter_mcp.store.sqlite import book, configuring

from .building import T0, Desk, at, subject, us, used


def reason_of(decision: Decision) -> Reason:
    (reason,) = decision.reasons
    return reason


# States (16, 17)


def test_a_rolling_state_counts_whole_sixtieths(desk: Desk) -> None:
    limit = desk.limit(9, "60s")
    desk.now = 0.9
    desk.record(used(2))
    desk.now = 10
    desk.record(used(3))
    desk.now = 60.95

    # What was used at 0.9 is 60.05 s ago, and still in the bucket [0, 1) that the window touches.
    assert desk.state(limit) == LimitState(
        limit, "", used=5, held=0, since_us=at(0.95), resets_at_us=None, frees_at_us=at(61), at_us=at(60.95)
    )
    desk.now = 61
    assert desk.state(limit) == LimitState(limit, "", 3, 0, at(1), None, at(71), at(61))
    desk.now = 71
    assert desk.state(limit) == LimitState(limit, "", 0, 0, at(11), None, None, at(71))


def test_a_window_that_reaches_back_behind_1970_counts_as_any_other(desk: Desk) -> None:
    """As on a machine whose clock begins anew there until it has been set."""
    desk.now = 3 - at(0) / 1_000_000
    limit = desk.limit(5, "1h")
    assert desk.state(limit).frees_at_us is None
    desk.record(used(3))
    assert (desk.state(limit).used, desk.state(limit).frees_at_us) == (3, us(3660))
    assert desk.peek(used(3)).retry_after_us == us(3657) - 2
    assert desk.reserve(used(2)).status == "reserved"


def test_a_request_that_does_not_fit_by_sixtieths_is_judged_exactly(desk: Desk) -> None:
    limit = desk.limit(5, "60s")
    desk.now = 0.9
    desk.record(used(2))
    desk.now = 10
    desk.record(used(3))
    desk.now = 60.95

    fitting = desk.peek(used(0)).limits[0]
    assert (fitting.used, fitting.limit) == (5, limit)
    exact = desk.peek(used(2))
    assert exact.allowed
    assert (exact.limits[0].used, exact.limits[0].frees_at_us) == (3, at(61))
    denied = desk.peek(used(3))
    assert (denied.allowed, denied.limits[0].used) == (False, 3)


def test_a_soft_limit_is_judged_exactly_too(desk: Desk) -> None:
    desk.limit(5, "60s", action="warn")
    desk.now = 0.9
    desk.record(used(5))
    desk.now = 60.89
    assert reason_of(desk.peek()).state == desk.peek().limits[0]
    desk.now = 60.9
    assert desk.peek().reasons == ()
    assert desk.peek().limits[0].used == 0


def test_holds_leave_a_window_as_usage_does(desk: Desk) -> None:
    limit = desk.limit(5, "60s")
    desk.now = 0.9
    desk.hold(used(5), ttl=600)
    desk.now = 60.89
    assert not desk.peek().allowed
    desk.now = 60.9
    assert desk.peek().limits[0].held == 0
    assert desk.state(limit).held == 5
    desk.now = 61
    assert desk.state(limit).held == 0


def test_a_calendar_state_counts_its_period_in_its_zone(desk: Desk) -> None:
    desk.now = -3600
    desk.record(used(1), occurred=-9 * 3600)
    desk.record(used(2), occurred=-8.5 * 3600)
    desk.record(used(4))
    # Berlin is an hour ahead: its day began at 23:00 UTC.
    utc = desk.limit(9, "day")
    berlin = desk.limit(9, "day", id="berlin", service="llm", zone="Europe/Berlin")
    desk.now = 0

    assert desk.state(utc) == LimitState(utc, "", 4, 0, at(-8 * 3600), at(16 * 3600), None, T0)
    assert desk.state(berlin) == LimitState(berlin, "", 7, 0, at(-9 * 3600), at(15 * 3600), None, T0)


def test_a_calendar_day_ends_where_the_next_begins(desk: Desk) -> None:
    limit = desk.limit(3, "day")
    desk.now = 16 * 3600 - 0.000002
    desk.record(used(3))
    assert not desk.peek().allowed
    desk.now = 16 * 3600
    assert desk.peek().allowed
    assert desk.state(limit).used == 0


def test_a_total_never_ends_and_begins_with_its_first_usage(desk: Desk) -> None:
    limit = desk.limit(9, metric="tokens")
    desk.now = 50
    assert desk.state(limit) == LimitState(limit, "", 0, 0, at(50), None, None, at(50))
    desk.record(used(1), occurred=10)
    desk.record(used(1, tokens=4))
    desk.now = 60
    assert desk.state(limit) == LimitState(limit, "", 4, 0, at(50) + 1, None, None, at(60))
    desk.record(used(1, tokens=1), occurred=20)
    assert desk.state(limit).since_us == at(20)


def test_a_window_of_whole_hours_counts_by_hours(desk: Desk) -> None:
    limit = desk.limit(9, "61h")
    desk.now = 1800
    desk.record(used(2))
    # 61 h are counted in buckets of 2 h that begin with even hours: 8:00 is one.
    desk.now = 61 * 3600 + 1801
    assert desk.state(limit).used == 2
    assert desk.state(limit).frees_at_us == at(2 * 3600 + 61 * 3600)
    desk.now = 63 * 3600
    assert desk.state(limit).used == 0


def test_a_limit_of_few_requests_runs_out_at_the_rate_at_which_they_come(desk: Desk) -> None:
    """5 in 8 hours are less than one an hour, and the other 7 are gone 11.2 hours later all the same."""
    limit = desk.limit(12, "day")
    desk.record(used(5), occurred=-3600)
    desk.now = 0.5
    assert desk.state(limit).burn_per_hour == 0
    assert desk.state(limit).runs_out_at_us == at(0.5 + (8 * 3600 + 0.5) * 7 / 5)
    desk.record(used(5))
    desk.now = 1
    assert desk.state(limit).runs_out_at_us == at(1 + (8 * 3600 + 1) / 5)


# When it comes back, and who holds it (18, 19)


def test_enough_comes_back_when_a_sixtieth_leaves(desk: Desk) -> None:
    desk.limit(10, "60s")
    for moment, amount in ((0.5, 4), (5.5, 3), (9.5, 3)):
        desk.now = moment
        desk.record(used(amount))
    desk.now = 20
    for asked, retry_at in ((1, 61), (4, 61), (5, 66), (7, 66), (8, 70), (10, 70)):
        denied = desk.peek(used(asked))
        assert reason_of(denied).retry_at_us == at(retry_at)
        assert denied.retry_after_us == us(retry_at - 20)


def test_more_than_the_maximum_never_comes_back(desk: Desk) -> None:
    desk.limit(10, "60s")
    denied = desk.peek(used(11))
    assert (reason_of(denied).retry_at_us, denied.retry_after_us) == (None, None)


def test_a_hold_gives_back_at_its_end_or_when_it_leaves_the_window(desk: Desk) -> None:
    desk.limit(10, "60s")
    desk.now = 0.5
    desk.hold(used(4), ttl=30)
    desk.hold(used(6), ttl=600)
    desk.now = 10
    assert reason_of(desk.peek(used(4))).retry_at_us == at(30.5)
    assert reason_of(desk.peek(used(5))).retry_at_us == at(61)


def test_a_calendar_period_gives_everything_back_at_its_end(desk: Desk) -> None:
    desk.limit(10, "hour")
    desk.record(used(4))
    desk.now = 600
    desk.hold(used(3), ttl=60)
    desk.hold(used(3), ttl=3600)
    assert reason_of(desk.peek(used(3))).retry_at_us == at(660)
    assert reason_of(desk.peek(used(4))).retry_at_us == at(3600)


def test_a_total_gives_back_holds_only(desk: Desk) -> None:
    desk.limit(10)
    desk.now = 1
    desk.record(used(4))
    desk.now = 2
    desk.hold(used(6), ttl=60)
    assert reason_of(desk.peek(used(6))).retry_at_us == at(62)
    assert reason_of(desk.peek(used(7))).retry_at_us is None


def test_an_unknown_amount_waits_for_one(desk: Desk) -> None:
    desk.limit(4, "hour", metric="tokens")
    desk.record(used(tokens=4))
    denied = desk.peek(used())
    assert (reason_of(denied).asked, reason_of(denied).retry_at_us) == (None, at(3600))


def test_the_latest_of_the_limits_that_do_not_fit_says_when(desk: Desk) -> None:
    desk.limit(4, "60s")
    desk.limit(4, "hour")
    desk.limit(0, "day", action="warn")
    desk.record(used(4))
    desk.now = 600
    assert desk.peek().retry_after_us == us(3000)
    desk.limit(4, "total", id="total")
    assert desk.peek().retry_after_us is None


def test_the_five_largest_holders_are_named_the_largest_first(desk: Desk) -> None:
    desk.limit(12, metric="tokens")
    for name, tokens in (("c", 1), ("b", 3), ("f", None), ("a", 3), ("d", 2), ("g", 2), ("e", 1)):
        desk.hold(used(tokens=tokens), agent=f"agent {name}", id=name, ttl=60)
    desk.release("g")
    desk.now = 1

    holders = reason_of(desk.peek(used(tokens=3))).holders
    assert [(one.reservation_id, one.amount) for one in holders] == [
        ("a", 3), ("b", 3), ("d", 2), ("c", 1), ("e", 1),
    ]  # fmt: skip
    assert holders[0] == Holder("a", "agent a", 3, T0 + 4 + us(60))


def test_holders_are_those_in_the_exact_window(desk: Desk) -> None:
    desk.limit(3, "60s")
    desk.now = 0.5
    desk.hold(used(2), id="old", ttl=600)
    desk.now = 30
    desk.hold(used(1), id="new", ttl=600)
    desk.now = 60.4
    assert [one.reservation_id for one in reason_of(desk.peek(used(3))).holders] == ["old", "new"]
    desk.now = 60.5
    assert [one.reservation_id for one in reason_of(desk.peek(used(3))).holders] == ["new"]


# Peek (20)


def test_a_peek_answers_as_a_reservation_would_and_changes_nothing(desk: Desk) -> None:
    desk.limit(3)
    desk.record(used(1))
    desk.now = 9
    before = (desk.events(), desk.store.names("agent", ""))
    for asked in (2, 3):
        assert desk.peek(used(asked), agent="new").allowed is (asked == 2)
    assert (desk.events(), desk.store.names("agent", "")) == before
    assert desk.peek(used(3)) == desk.reserve(used(3)).decision


def test_a_peek_decides_no_earlier_than_what_is_stored(desk: Desk) -> None:
    desk.limit(3, "60s")
    desk.now = 100
    desk.record(used(3))
    desk.now = 30
    state = desk.peek().limits[0]
    assert (state.at_us, state.used) == (at(100) + 1, 3)
    assert desk.agent("ann").status == "over_limit"


def test_a_peek_does_not_keep_what_a_later_clock_showed_it(desk: Desk) -> None:
    desk.limit(2, "hour")
    desk.limit(3, "60s")
    desk.record(used(2))
    before = desk.peek()
    desk.now = 3600
    assert desk.peek().allowed
    desk.now = 0
    assert desk.peek() == before
    assert not before.allowed


def test_without_a_service_what_names_one_does_not_bind(desk: Desk) -> None:
    desk.limit(0, service="llm")
    everywhere = desk.limit(5)
    desk.switch(True, "service", "llm")
    decision = desk.peek(service=None)
    assert decision.allowed
    assert [state.limit for state in decision.limits] == [everywhere]
    assert not desk.peek(service="llm").allowed


def test_a_peek_takes_a_parent_that_could_be_linked_as_linked(desk: Desk) -> None:
    desk.limit(2, subject=subject("agent", "ann"))
    desk.switch(True, "agent", "bob")
    desk.record(used(2))

    assert not desk.peek(agent="kid", parent="ann").allowed
    assert reason_of(desk.peek(used(0), agent="kid", parent="bob")).code == "kill_switch"
    assert desk.peek(agent="kid").allowed
    desk.record(used(0), agent="kid", parent="zed")
    assert desk.peek(agent="kid", parent="ann").allowed
    assert desk.peek(agent="zed", parent="kid").allowed


def test_a_hold_that_is_over_counts_for_no_parent_that_could_be_linked(desk: Desk) -> None:
    desk.limit(2, subject=subject("agent", "ann"))
    desk.hold(used(2), "kid", ttl=1)
    assert not desk.peek(agent="kid", parent="ann").allowed
    desk.now = 2
    assert desk.peek(agent="kid", parent="ann").limits[0].held == 0


def test_what_fits_now_is_the_least_that_the_hard_limits_leave(desk: Desk) -> None:
    desk.limit(9)
    desk.limit(5, "hour")
    desk.limit(1, "day", action="warn")
    desk.limit(8, metric="tokens")
    desk.record(used(2, tokens=10))
    assert desk.peek(used(0, tokens=0)).affordable == (3, None, 0, None)


# Alerts (21)


def test_each_threshold_raises_one_alert(desk: Desk) -> None:
    limit = desk.limit(10)
    for amount in (4, 1, 2, 3, 5):
        desk.record(used(amount))
    assert desk.thresholds() == [(50, 5), (80, 10), (100, 10)]
    assert desk.store.alerts() == [
        Alert(3, T0 + 4, limit.limit_id, "", 0, 100, 10, 10),
        Alert(2, T0 + 4, limit.limit_id, "", 0, 80, 10, 10),
        Alert(1, T0 + 2, limit.limit_id, "", 0, 50, 5, 10),
    ]


def test_alerts_are_answered_by_the_batch_that_raised_them(desk: Desk) -> None:
    desk.limit(2, thresholds=(100,))
    raised = desk.store.apply([desk.recording(), desk.recording(), desk.recording()], desk.now_us).alerts
    assert [(alert.number, alert.used, alert.raised_at_us) for alert in raised] == [(1, 2, T0 + 2)]
    assert desk.store.apply([desk.recording()], desk.now_us).alerts == ()


def test_a_soft_limit_raises_alerts_and_holds_do_not(desk: Desk) -> None:
    desk.limit(10, action="warn", thresholds=(30, 60))
    hold = desk.hold(used(9))
    assert desk.thresholds() == []
    desk.settle(hold.reservation_id, used(4))
    assert desk.thresholds() == [(30, 4)]


def test_a_new_window_raises_anew(desk: Desk) -> None:
    hour = desk.limit(2, "hour", thresholds=(100,))
    minute = desk.limit(2, "60s", thresholds=(100,))
    desk.now = 59
    desk.record(used(2))
    desk.now = 61
    desk.record(used(1))
    desk.now = 3601
    desk.record(used(3))
    found = [(alert.limit_id, alert.period_start_us) for alert in desk.store.alerts()[::-1]]
    assert found == [
        (hour.limit_id, at(0)),
        (minute.limit_id, at(0)),
        (minute.limit_id, at(60)),
        (hour.limit_id, at(3600)),
        (minute.limit_id, at(3600)),
    ]


def test_usage_outside_the_current_window_and_usage_of_nothing_raise_no_alert(desk: Desk) -> None:
    desk.limit(2, "60s", metric="tokens", thresholds=(50,))
    desk.now = 100
    desk.record(used(1, tokens=9), occurred=40)
    desk.record(used(1))
    assert desk.thresholds() == []
    desk.record(used(1, tokens=1), occurred=40.1)
    assert desk.thresholds() == [(50, 10)]


def test_a_correction_raises_alerts_where_the_figures_grew(desk: Desk) -> None:
    desk.limit(10, metric="tokens", thresholds=(50,))
    desk.limit(1, thresholds=(100,), id="requests")
    desk.record(used(0, tokens=4), id="e")
    desk.limit(0, id="requests", thresholds=(100,))
    desk.record(used(0, tokens=6), id="e")
    assert desk.thresholds() == [(50, 6)]


def test_more_counters_than_are_kept_in_memory_are_as_exact(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book, "COUNTERS_MAX", 2)
    monkeypatch.setattr(book, "PLANS_MAX", 2)
    desk.limit(3, "1h", subject=subject("session", "*"))
    desk.limit(40, "day")
    sessions = [f"s{number}" for number in range(5)]
    for _ in range(3):
        desk.now += 1
        desk.apply(*[desk.recording(session=session) for session in sessions])
    over = [desk.record(session=session).outcome for session in sessions]
    assert over == ["over_limit"] * 5
    assert desk.peek(used(20)).allowed
    assert not desk.peek(used(21)).allowed


def test_alerts_come_anew_where_a_rolling_limit_has_its_next_period(desk: Desk) -> None:
    """Which lies anywhere in a bucket where the window is no multiple of sixty microseconds."""
    desk.limit(1, "2s", thresholds=(100,))
    for desk.now in (1.9999, 1.999999, 2.0, 2.0001):
        desk.record()
    assert desk.thresholds() == [(100, 1), (100, 3)]


def test_each_counter_has_its_own_alerts(desk: Desk) -> None:
    desk.limit(2, subject=subject("agent", "*"), thresholds=(100,))
    desk.record(used(2))
    desk.record(used(1), agent="bob")
    desk.record(used(2), agent="cyd")
    assert [alert.scope for alert in desk.store.alerts()] == ["cyd", "ann"]


def test_a_raised_maximum_repeats_no_alert_of_the_window(desk: Desk) -> None:
    desk.limit(10, thresholds=(50,))
    desk.record(used(5))
    desk.limit(20, thresholds=(50, 70))
    desk.record(used(10))
    assert desk.thresholds() == [(50, 5), (70, 15)]


def test_alerts_come_newest_first_after_a_number(desk: Desk) -> None:
    desk.limit(100, thresholds=(1, 2, 3, 4))
    desk.record(used(4))
    assert [alert.threshold for alert in desk.store.alerts(after=1, limit=2)] == [4, 3]
    assert [alert.threshold for alert in desk.store.alerts(after=3)] == [4]


# The configuration (22 to 24)


def test_a_new_limit_counts_what_the_window_already_holds(desk: Desk) -> None:
    desk.record(used(2))
    desk.hold(used(1))
    desk.limit(3, "hour")
    assert desk.reserve().status == "denied"
    desk.limit(4, "hour")
    assert desk.reserve().status == "reserved"


def test_a_tier_and_a_parent_are_in_force_at_once_as_if_they_had_always_been(desk: Desk) -> None:
    desk.record(used(2))
    desk.record(used(1), agent="kid")
    tier = desk.limit(2, subject=subject("tier", "gold"))
    tree = desk.limit(3, subject=subject("agent", "root"))
    assert desk.peek().limits == ()

    desk.set_agent("ann", tier="gold", parent="root")
    desk.set_agent("kid", parent="root")
    decision = desk.peek()
    assert [(state.limit, state.scope, state.used) for state in decision.limits] == [
        (tier, "ann", 2),
        (tree, "", 3),
    ]
    desk.set_agent("ann", tier=None, parent=None)
    assert desk.peek().limits == ()
    assert desk.state(tree).used == 1


def test_the_most_specific_limit_replaces_the_wider_default_and_no_pool(desk: Desk) -> None:
    each = desk.limit(9, subject=subject("agent", "*"))
    pool = desk.limit(9)
    assert [state.limit for state in desk.peek().limits] == [each, pool]
    own = desk.limit(9, subject=subject("agent", "ann"))
    assert [state.limit for state in desk.peek().limits] == [pool, own]
    assert [state.limit for state in desk.peek(agent="bob").limits] == [each, pool]
    desk.remove_limit(own.limit_id)
    assert [state.limit for state in desk.peek().limits] == [each, pool]


def test_a_limit_of_each_project_and_session_counts_them_apart(desk: Desk) -> None:
    project = desk.limit(2, subject=subject("project", "*"))
    session = desk.limit(9, subject=subject("session", "s"))
    desk.record(used(2), project="p", session="s")
    assert desk.record(used(1), project="q", session="s").outcome == "accepted"
    answer = desk.record(used(1), project="p", session="t")
    assert (answer.outcome, [(state.limit, state.scope, state.used) for state in answer.limits]) == (
        "over_limit",
        [(project, "p", 3)],
    )
    assert desk.state(session).used == 3


def test_setting_a_limit_twice_is_one_limit(desk: Desk) -> None:
    created = desk.set_limit(5, "day", id="one", action="warn", zone="Europe/Berlin", thresholds=(10,))
    desk.now = 9
    unchanged = desk.set_limit(5, "day", id="two")
    changed = desk.set_limit(6, "day", id="three", action="reject")

    assert (created.status, unchanged.status, changed.status) == ("created", "unchanged", "changed")
    assert unchanged.limit == created.limit
    assert changed.limit == created.limit.replace(max=6, action="reject")
    assert (changed.limit.limit_id, changed.limit.created_at_us) == ("one", T0)
    assert [view.limit for view in desk.store.limits(None, T0)] == [changed.limit]


def test_a_limit_has_defaults(desk: Desk) -> None:
    limit = desk.limit(5)
    assert (limit.action, limit.zone, limit.thresholds) == ("reject", "UTC", (50, 80, 100))


def test_a_zone_that_changes_moves_what_the_day_counts(desk: Desk) -> None:
    desk.record(used(2), occurred=-8.5 * 3600)
    desk.record(used(1))
    limit = desk.limit(9, "day")
    assert desk.state(limit).used == 1
    desk.limit(9, "day", zone="Europe/Berlin")
    assert desk.state(limit).used == 3


def test_a_limit_is_removed_by_id_or_by_key(desk: Desk) -> None:
    first, second = desk.limit(5), desk.limit(5, "day", service="llm")
    assert desk.remove_limit(first.limit_id) == first
    assert desk.remove_limit(key=second.key) == second
    for limit_id, key in ((first.limit_id, None), (None, second.key)):
        with pytest.raises(NotFound):
            desk.remove_limit(limit_id, key)
    assert desk.store.limits(None, T0) == []
    assert desk.reserve(used(50)).status == "reserved"


def test_there_are_at_most_1000_limits(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    assert LIMITS_MAX == 1000
    for module in (memory_ruling, configuring):  # 1000 would take long
        monkeypatch.setattr(module, "LIMITS_MAX", 10)
    desk.apply(*(desk.limiting(1, subject=subject("project", f"p{number}")) for number in range(10)))
    with pytest.raises(InvalidInput):
        desk.limit(1)
    assert desk.set_limit(2, subject=subject("project", "p7")).status == "changed"
    desk.remove_limit("limit-1")
    assert desk.set_limit(1).status == "created"


def test_a_switch_stops_until_it_is_released(desk: Desk) -> None:
    engaged = desk.switch(True, "service", "llm")
    switch = KillSwitch("service", "llm", "why", "op", T0)
    assert (engaged.switch, engaged.engaged, engaged.changed) == (switch, True, True)
    assert desk.reserve().status == "denied"
    assert desk.reserve(service="api").status == "reserved"
    assert desk.record().switch == switch

    desk.now = 9
    again = desk.switch(True, "service", "llm")
    assert (again.switch, again.engaged, again.changed) == (switch, True, False)
    released = desk.switch(False, "service", "llm")
    assert (released.switch, released.engaged, released.changed) == (switch, False, True)
    nothing = desk.switch(False, "service", "llm")
    assert (nothing.switch, nothing.engaged, nothing.changed) == (None, False, False)
    assert desk.reserve().status == "reserved"


def test_an_agent_is_stopped_with_its_tree_and_the_widest_switch_is_named(desk: Desk) -> None:
    desk.set_agent("kid", parent="ann")
    desk.switch(True, "agent", "ann")
    assert reason_of(desk.peek(agent="kid")).switch == KillSwitch("agent", "ann", "why", "op", T0 + 1)
    assert desk.peek(agent="bob").allowed
    desk.switch(True, "agent", "kid")
    desk.set_agent("ann", parent="aaa")
    desk.switch(True, "agent", "aaa")
    assert reason_of(desk.peek(agent="kid")).switch == KillSwitch("agent", "ann", "why", "op", T0 + 1)
    desk.switch(True)
    reason = reason_of(desk.peek(agent="kid"))
    assert reason.switch is not None
    assert reason.switch.kind == "everything"


def test_an_agent_is_made_and_changed_field_by_field(desk: Desk) -> None:
    assert desk.set_agent("ann") == Agent("ann")
    assert desk.set_agent("ann", name="Ann", tier="gold") == Agent("ann", "Ann", "gold")
    assert desk.set_agent("ann", tier=None, owner="team") == Agent("ann", "Ann", None, "team")
    assert desk.agent("ann").agent == Agent("ann", "Ann", None, "team")


def test_an_agent_is_moved_to_another_parent_but_not_into_a_cycle(desk: Desk) -> None:
    desk.set_agent("kid", parent="ann")
    desk.set_agent("ann", parent="root")
    with pytest.raises(InvalidInput, match="parent"):
        desk.set_agent("root", parent="kid")
    desk.set_agent("kid", parent="root")
    assert desk.store.policy().tree("root") == {"root", "ann", "kid"}
    desk.set_agent("kid", parent=None)
    assert desk.store.policy().lineage("kid") == ("kid",)


def test_every_effective_change_is_in_the_audit_log(desk: Desk) -> None:
    desk.set_agent("ann", tier="gold")
    desk.set_agent("ann", tier="gold")
    limit = desk.limit(5, "day", "cost_usd", subject=subject("agent", "ann"), service="llm")
    desk.limit(5, "day", "cost_usd", subject=subject("agent", "ann"), service="llm")
    desk.switch(True, "service", "llm")
    desk.switch(True, "service", "llm")
    desk.switch(False, "service", "llm")
    desk.remove_limit(limit.limit_id)
    desk.switch(True)

    words = [
        (entry.seq, entry.actor, entry.action, entry.target, entry.reason) for entry in desk.store.audit()
    ]
    about = "cost_usd per day for agent ann at llm"
    assert words == [
        (T0 + 5, "op", "engage_kill_switch", "everything", "why"),
        (T0 + 4, "op", "remove_limit", about, None),
        (T0 + 3, "op", "release_kill_switch", "service llm", "why"),
        (T0 + 2, "op", "engage_kill_switch", "service llm", "why"),
        (T0 + 1, "op", "set_limit", about, None),
        (T0, "op", "set_agent", "agent ann", None),
    ]


def test_the_audit_log_has_what_was_before_and_after(desk: Desk) -> None:
    desk.set_agent("ann", name="Ann")
    desk.set_agent("ann", tier="gold")
    new = {"agent_id": "ann", "name": "Ann", "owner": None, "parent": None, "tier": None}
    newest, oldest = desk.store.audit()

    assert oldest == AuditEntry(T0, "op", "set_agent", "agent ann", None, oldest.after)
    assert json.loads(oldest.after or "") == new
    assert newest.before == oldest.after
    assert json.loads(newest.after or "") == {**new, "tier": "gold"}

    limit = desk.limit(5)
    written = json.loads(desk.store.audit(limit=1)[0].after or "")
    assert (written["limit_id"], written["key"]["subject"]["kind"]) == (limit.limit_id, "pool")


def test_the_audit_log_is_read_in_pages(desk: Desk) -> None:
    for tier in ("a", "b", "c"):
        desk.set_agent("ann", tier=tier)
    assert [entry.seq for entry in desk.store.audit(limit=2)] == [T0 + 2, T0 + 1]
    assert [entry.seq for entry in desk.store.audit(before_seq=T0 + 1)] == [T0]


def test_an_agent_comes_into_being_with_what_is_first_heard_of_it(desk: Desk) -> None:
    desk.record(agent="by event")
    desk.hold(agent="by hold")
    desk.refuse("by refusal", first=0)
    desk.set_agent("by hand")
    desk.record(agent="kid", parent="by name")
    desk.set_agent("by hand", parent="by other name")
    desk.switch(True, "agent", "nobody")
    desk.limit(1, subject=subject("agent", "nobody either"))

    seen = {view.agent.agent_id: (view.first_seen_us, view.last_seen_us) for view in desk.agents()}
    assert seen == {
        "by event": (T0, T0),
        "by hold": (T0 + 1, None),
        "by refusal": (T0 + 2, T0 + 2),
        "by hand": (T0 + 3, None),
        "by name": (T0 + 4, None),
        "kid": (T0 + 4, T0 + 4),
        "by other name": (T0 + 5, None),
    }
