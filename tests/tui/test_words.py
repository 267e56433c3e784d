"""What stands on the screen: figures that fit, states that are told, and names that do no harm."""

from __future__ import annotations

from datetime import UTC
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_meter_mcp.core.decide import LimitState
from agent_meter_mcp.core.figures import UNKNOWN
from agent_meter_mcp.core.models import (
    Agent,
    Alert,
    AuditEntry,
    KillSwitch,
    Limit,
    LimitKey,
    StoredEvent,
    Subject,
    Usage,
    UsageEvent,
    Who,
)
from agent_meter_mcp.core.queries import AgentView, AlertView, Group, LimitView, Summary, Totals
from agent_meter_mcp.sources.base import EVENTS_SHOWN, RANGES, Range, Snapshot
from tui import chart, happening, limit_view, portrait, totals, usage, view
from tui import format as written
from tui.filters import Facts, number_of, wanted
from tui.roster import Roster

if TYPE_CHECKING:
    from agent_meter_mcp.core.models import Metric
    from agent_meter_mcp.core.queries import AgentStatus

NOW_US = 1_795_521_600_000_000
CENT = 10_000_000
HOSTILE = [
    "\x1b[31mred",
    "a\x1b]0;owned\x07",
    "[bold]x[/]",
    "[@click=app.quit]x[/]",
    "\u202egnp.exe",
    "\u200b",
    "a\nb",
    "=1+1",
    "😀" * 60,
    "日本語" * 40,
    "\ud800",
]


def state(used: int, maximum: int = 100, held: int = 0) -> LimitState:
    limit = Limit("l", LimitKey(Subject("agent", "*"), None, "requests", "day"), maximum)
    return LimitState(limit, "a", used, held, NOW_US - 3_600_000_000, NOW_US + 3_600_000_000, None, NOW_US)


def agent(name: str, status: AgentStatus = "active", tightest: LimitState | None = None) -> AgentView:
    return AgentView(Agent(name), status, NOW_US, NOW_US - 40_000_000, Totals(), tightest)


def snapshot(*agents: AgentView, **used: Totals) -> Snapshot:
    return Snapshot(NOW_US, agents, used, Totals(), (), (), (), ())


def event(name: str = "bot", **changes: object) -> StoredEvent:
    made = UsageEvent("id", Who(name, "api"), Usage(cost_nano_usd=CENT, cost_source="reported"), "chat")
    return StoredEvent(NOW_US, made, "accepted", NOW_US).replace(**changes)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (9_999, "9,999"),
        (10_000, "10.00k"),
        (99_994, "99.99k"),
        (99_999, "100k"),
        (123_456, "123k"),
        (8_120_000, "8.12M"),
        (99_999_999, "100M"),
        (10**12, "1000B"),
    ],
)
def test_counts_are_short(count: int, text: str) -> None:
    assert written.short_count(count) == text


@pytest.mark.parametrize(
    ("dollars", "width", "text"),
    [
        ("1204.50", 10, "$1,204.50"),
        ("1204.50", 7, "$1,204"),
        ("120450.25", 10, "$120,450"),
        ("12045000", 10, "$12.04M"),
        ("12045000", 11, "$12,045,000"),
        ("99999999", 7, "$100M"),
        ("0.0012", 7, "$0.0012"),
        ("0.00005", 8, "<$0.0001"),
        ("0.00005", 7, "<$0.01"),
        ("0", 7, "$0.00"),
    ],
)
def test_dollars_have_as_many_digits_as_there_is_room_for(dollars: str, width: int, text: str) -> None:
    assert written.brief_dollars(int(Decimal(dollars) * 10**9), width) == text


@given(st.integers(0, 10**21), st.integers(7, 12))
def test_an_amount_of_dollars_is_never_cut(nano_usd: int, width: int) -> None:
    assert len(written.brief_dollars(nano_usd, width)) <= width


def test_a_large_sum_is_not_cut_in_a_line_of_the_feed() -> None:
    large = event()
    usage = large.event.usage.replace(cost_nano_usd=1_204_500_000_000)
    large = large.replace(event=large.event.replace(usage=usage))
    cell = happening.feed_row(happening.Happening(large, 1, large.seq), UTC, {}).cells[4]
    assert (cell.text, cell.full) == ("$1,204", "1204.5")


@given(st.floats(0, 2000), st.integers(1, 40))
def test_a_bar_has_its_width_and_is_full_only_when_it_is_full(percent: float, width: int) -> None:
    bar = written.bar(percent, width)
    assert len(bar) == width
    assert (bar == "█" * width) == (percent >= 100)
    assert (bar == "·" * width) == (percent == 0)


@given(st.lists(st.integers(0, 10**15)), st.integers(1, 60))
def test_a_chart_shows_the_latest_and_only_nothing_is_at_the_bottom(values: list[int], width: int) -> None:
    line = written.spark(values, width)
    shown = values[-width:]
    assert len(line) == len(shown)
    for value, block in zip(shown, line, strict=True):
        assert (block == "▁") == (value == 0)
        assert block != "█" or value * 7 > max(shown) * 6


def rows_of(*agents: AgentView, **used: Totals) -> list[view.Row]:
    roster = Roster()
    roster.take(snapshot(*agents, **used), 0)
    return list(roster.rows())


@pytest.mark.parametrize(
    ("view_of", "word", "style"),
    [
        (agent("a"), "● ok", "good"),
        (agent("a", "idle"), "○ idle", "dim"),
        (agent("a", "active", state(80)), "▲ WARN", "warn"),
        (agent("a", "idle", state(99)), "▲ WARN", "warn"),
        (agent("a", "over_limit", state(100)), "✖ OVER", "alarm"),
        (agent("a", "stopped", state(100)), "■ STOPPED", "held"),
    ],
)
def test_a_state_is_a_sign_a_word_and_a_style(view_of: AgentView, word: str, style: str) -> None:
    cell = rows_of(view_of)[0].cells[1]
    assert (cell.text, cell.style) == (word, style)


def test_unlimited_unknown_and_nothing_are_told_apart() -> None:
    limited, free = rows_of(
        agent("free"), agent("limited", "active", state(0)), free=Totals(events=1, requests=1, unpriced=1)
    )[::-1]
    assert [cell.text for cell in free.cells[4:9]] == ["—", "unlimited", "—", "—", "—"]
    assert [cell.text for cell in limited.cells[4:9]] == ["$0.00", "········", "0 %", "0/h", "—"]


def test_over_a_hundred_percent_the_real_figure_stands_beside_a_full_bar() -> None:
    (row,) = rows_of(agent("a", "over_limit", state(322)))
    assert [cell.text for cell in row.cells[5:9]] == ["████████", "322 %", "322/h", "over"]


@pytest.mark.parametrize("name", HOSTILE)
def test_no_text_of_an_agent_s_gets_through_as_it_is(name: str) -> None:
    limit = Limit("l", LimitKey(Subject("agent", name), name, "requests", "day"), 5)
    hostile = event(name).replace(outcome="rejected", limit_id="l", count=14)
    hostile = hostile.replace(
        event=hostile.event.replace(who=Who(name, name, name, name, name), metadata=name)
    )
    entry = AuditEntry(NOW_US, name, name, name, f'{{"a": "{name}"}}', None, name)
    one, done = happening.Happening(hostile, 14, NOW_US), happening.Happening(entry, 1, NOW_US)
    group = Group((name, name, name), Totals(requests=1))
    summary = Summary(Totals(), (group,))
    alert = Alert(1, NOW_US, "l", name, NOW_US, 80, 4, 5)
    rows = [
        *rows_of(agent(name)),
        happening.feed_row(one, UTC, {"l": limit}),
        happening.feed_row(done, UTC, {}),
        happening.audit_row(entry, UTC),
        view.group_row(group),
        view.limit_row(LimitView(limit, None)),
        *usage.service_rows(summary, summary, [KillSwitch("service", name, name, name, NOW_US)]),
        *usage.session_rows(summary, summary, Summary(Totals(), ()), ("session",), "hour", UTC),
    ]
    texts = [cell.text for row in rows for cell in row.cells]
    texts += [happening.heading_of(one), happening.heading_of(done)]
    texts += [
        happening.alert_line(AlertView(alert, limit.key), UTC).text,
        happening.why_refused(hostile, {"l": limit}),
    ]
    texts += [portrait.heading(name, None, Totals(), "today")]
    for label, value in happening.facts_of(one, {"l": limit}, UTC) + happening.audit_facts(entry, UTC):
        texts += [label, value]
    assert [text for text in texts if not text.isprintable()] == []


def test_a_refusal_says_which_and_how_often() -> None:
    """Both first: at 120 columns no more of a row can be seen than they take."""

    def fed(stored: StoredEvent, *limits: Limit) -> view.Row:
        (one,) = happening.folded([stored])
        return happening.feed_row(one, UTC, happening.limits_by_id(limits))

    def limit(metric: Metric, window: str, most: int) -> Limit:
        return Limit("l", LimitKey(Subject("agent", "bot"), None, metric, window), most)

    refused = event(outcome="rejected", limit_id="l", count=14)
    over = fed(refused, limit("cost_usd", "24h", 800 * CENT))
    assert [cell.text for cell in over.cells[1:4]] == ["429", "bot", "×14 over $8.00/24h api chat"]
    assert over.cells[1].style == over.cells[2].style == "alarm"
    for known, told in (
        ([limit("requests", "total", 75)], "×14 over 75 requests in total api chat"),
        ([limit("tokens", "7d", 100_000_000)], "×14 over 100M tokens/7d api chat"),
        ([], "×14 over budget api chat"),
    ):
        assert fed(refused, *known).cells[3].text == told
    stopped = fed(event(outcome="rejected", limit_id=None))
    assert [cell.text for cell in stopped.cells[1:4]] == ["403", "bot", "stopped api chat"]


def test_repeats_of_a_refusal_are_one_row_though_others_come_between() -> None:
    second = 1_000_000
    refused = [event("rogue", outcome="rejected", limit_id="l", seq=NOW_US - n * second) for n in range(10)]
    others = [event("good", seq=NOW_US - n * second - 1) for n in range(10)]
    late = event("rogue", outcome="rejected", limit_id="l", seq=NOW_US - 120 * second)
    found = happening.folded(sorted([*refused, *others, late], key=lambda one: -one.seq))
    assert len(found) == 12
    assert (found[0].count, found[-1].count) == (10, 1)
    assert happening.feed_row(found[0], UTC, {}).cells[3].text == "×10 over budget api chat in 9 s"


@given(
    st.lists(
        st.tuples(st.integers(0, 100), st.sampled_from("ab"), st.booleans(), st.integers(1, 9)),
        unique_by=lambda one: one[0],
    )
)
def test_folding_loses_no_event_and_keeps_the_order(made: list[tuple[int, str, bool, int]]) -> None:
    events = [
        event(name, seq=NOW_US + at * 1_000_000, count=count if bad else 1).replace(
            outcome="rejected" if bad else "accepted"
        )
        for at, name, bad, count in sorted(made, reverse=True)
    ]
    found = happening.folded(events)
    assert sum(one.count for one in found) == sum(one.count for one in events)
    assert all(one.newest.seq > other.newest.seq for one, other in pairwise(found))
    assert len({one.key for one in found}) == len(found)


def test_who_did_what_is_among_what_happens() -> None:
    entry = AuditEntry(NOW_US + 5, "olga", "engage_kill_switch", "agent planner", None, None, "wild")
    now = snapshot().replace(events=(event(),), actions=(entry,))
    first, second = happening.happenings(now)
    assert [cell.text for cell in happening.feed_row(first, UTC, {}).cells[1:4]] == [
        "ADM",
        "planner",
        "stopped by olga",
    ]
    assert second.newest == event()
    assert happening.happenings(now, only_refused=True) == []
    assert [one.newest for one in happening.happenings(now, typed="olga")] == [entry]
    assert [one.newest for one in happening.happenings(now, typed="service:api cost<1")] == [event()]


def test_an_alert_says_which_limit_whom_and_how_much() -> None:
    key = LimitKey(Subject("agent", "*"), None, "cost_usd", "day")
    alert = Alert(1, NOW_US, "l", "coder", NOW_US, 80, 810 * CENT, 1000 * CENT)
    line = happening.alert_line(AlertView(alert, key), UTC)
    assert line.text.endswith("coder 80 %: $8.10 of $10.00  (each agent · cost_usd/day)")
    assert line.style == "warn"
    gone = happening.alert_line(AlertView(alert.replace(threshold=100), None), UTC)
    assert (gone.text[-29:], gone.style) == ("100 % of a limit that is gone", "alarm")


def test_why_something_was_refused_is_said_in_words() -> None:
    limit = Limit("l", LimitKey(Subject("agent", "*"), None, "cost_usd", "day"), 1000 * CENT)
    over = event(outcome="rejected", limit_id="l", count=3)
    told = happening.why_refused(over, {"l": limit})
    assert told == "over the limit of $10.00 (each agent · cost_usd/day), 3 times within a second"
    assert "removed since" in happening.why_refused(over, {})
    stopped = event(outcome="rejected", limit_id=None)
    switch = KillSwitch("service", "api", "too dear", "olga", NOW_US)
    assert happening.why_refused(stopped, {}, [switch]) == "service api is stopped by olga: too dear"
    assert "was stopped" in happening.why_refused(stopped, {}, [switch.replace(name="other")])


def test_only_what_changed_stands_in_a_line_of_the_audit() -> None:
    before = '{"key": {"metric": "cost_usd"}, "max": 10000000000, "action": "reject"}'
    after = '{"key": {"metric": "cost_usd"}, "max": 20000000000, "action": "reject"}'
    entry = AuditEntry(NOW_US, "olga", "set_limit", "it", before, after, None)
    assert happening.what_changed(entry) == "max $10.00 → $20.00"
    assert happening.what_changed(entry.replace(before=None)) == "max — → $20.00"
    assert happening.what_changed(entry.replace(after=None)) == "max $10.00 → —"
    assert dict(happening.audit_facts(entry, UTC))["after: max"] == "$20.00"
    assert happening.fields_of("no json") == [("", "no json")]


def test_the_audit_names_what_was_done_and_to_what_as_other_pages_do() -> None:
    """Cut on the right, "cost_usd per 24h for…" was all that could be seen of whom a limit was for."""
    subject = '{"kind": "agent", "name": "coder"}'
    key = f'{{"metric": "cost_usd", "service": "api", "subject": {subject}, "window": "24h"}}'
    target = "cost_usd per 24h for agent coder at api"
    limit = AuditEntry(
        NOW_US, "olga", "set_limit", target, None, f'{{"key": {key}, "max": 8000000000}}', None
    )
    everyone = limit.replace(
        after=limit.after and limit.after.replace(subject, '{"kind": "pool", "name": null}')
    )
    made = '{"agent_id": "coder", "name": "Coder", "owner": "ann", "parent": null, "tier": "gold"}'
    agent = AuditEntry(NOW_US, "olga", "set_agent", "agent coder", None, made, None)
    switch = '{"engaged_by": "olga", "kind": "agent", "name": "coder", "reason": "wild"}'
    stopped = AuditEntry(NOW_US, "olga", "engage_kill_switch", "agent coder", None, switch, "wild")
    key_made = AuditEntry(NOW_US, "olga", "create_key", "key k1", None, None, None)
    told = [
        [cell.text for cell in happening.audit_row(entry, UTC).cells[2:]]
        for entry in (limit, everyone, agent, stopped, key_made)
    ]
    assert told == [
        ["set limit", "agent coder · cost_usd/24h at api", "max — → $8.00", ""],
        ["set limit", "everyone · cost_usd/24h at api", "max — → $8.00", ""],
        ["changed", "agent coder", "name — → Coder, owner — → ann, tier — → gold", ""],
        ["stopped", "agent coder", "", "wild"],
        ["made", "key k1", "", ""],
    ]
    fed = [
        [cell.text for cell in happening.feed_row(happening.Happening(entry, 1, NOW_US), UTC, {}).cells[2:4]]
        for entry in (limit, everyone, stopped, key_made)
    ]
    assert fed == [
        ["coder", "set limit cost_usd/24h at api by olga"],
        ["everyone", "set limit cost_usd/24h at api by olga"],
        ["coder", "stopped by olga"],
        ["key k1", "made by olga"],
    ]


def test_what_an_agent_said_of_itself_stands_against_what_was_measured() -> None:
    groups = [
        Group((source,), Totals(events=1, requests=2, cost_nano_usd=cents * CENT))
        for source, cents in (("self", 90), ("sdk", 110))
    ]
    told = happening.measured(Summary(Totals(), tuple(groups)))
    assert told == "measured: sdk $1.10 in 2 requests   self-reported: $0.90 in 2 requests"


# Filters

FACTS = Facts("Coder\n✖ OVER", {"tier": "pro", "owner": None}, {"cost": 10, "budget": 99.5})


@pytest.mark.parametrize(
    ("typed", "is_found"),
    [
        ("cod", True), ("!cod", False), ("over coder", True), ("over !coder", False),
        ("tier:pro", True), ("tier:free", False), ("!tier:free", True), ("owner:olga", False),
        ("cost>10", False), ("cost>=10", True), ("cost<10.5", True), ("cost>$9.99", True), ("!cost>1k", True),
        ("budget>99%", True), ("cost=10", True), ("cost>", True), ("!tier:", True), ("!", True),
        ("what:ever", False), ("cost>much", False),
    ],
)  # fmt: skip
def test_a_filter_takes_words_and_conditions(typed: str, is_found: bool) -> None:
    has = wanted(typed)
    assert (has is None or has(FACTS)) is is_found


@given(st.text(max_size=30), st.text(max_size=10))
def test_any_filter_can_be_typed_and_its_inversion_finds_the_rest(typed: str, text: str) -> None:
    facts = FACTS.replace(text=text)
    has = wanted(typed)
    words = typed.casefold().split()
    if has is not None and len(words) == 1 and not words[0].startswith("!"):
        turned = wanted("!" + words[0])
        assert turned is not None
        assert turned(facts) != has(facts)
    elif has is not None:
        assert has(facts) in (True, False)


@pytest.mark.parametrize(("text", "value"), [("1.5M", 1_500_000), ("$10", 10), ("80%", 80), ("x", None)])
def test_numbers_are_read_as_people_write_them(text: str, value: int | None) -> None:
    assert number_of(text) == value


# The chart and the totals


@given(st.lists(st.integers(0, 10**15), max_size=80), st.integers(1, 100), st.integers(1, 12))
def test_blocks_fill_their_lines_and_only_nothing_is_empty(
    values: list[int], width: int, height: int
) -> None:
    lines = chart.blocks(values, width, height)
    assert [len(line) for line in lines] == [width] * height
    assert any(line.strip() for line in lines) == any(values[-width:])


@pytest.mark.parametrize("wanted", RANGES, ids=lambda one: one.name)
def test_a_chart_has_a_bar_for_every_period_up_to_now(wanted: Range) -> None:
    bars = chart.filled([(NOW_US - NOW_US % 3_600_000_000, CENT)], wanted, UTC, NOW_US)
    assert bars == sorted(bars)
    assert all(one[0] < other[0] for one, other in pairwise(bars))
    assert bars[-1][0] <= NOW_US
    if wanted.chart == "hour":
        assert (len(bars), bars[-1][1]) == (24, CENT)
    lines = chart.drawn(bars, wanted, UTC, 60, 7)
    assert len(lines) == 7
    assert max(len(line) for line in lines) <= 60
    assert chart.drawn([], wanted, UTC, 20, 3)


@pytest.mark.parametrize(("requests", "told"), [(0, "0 requests"), (1, "1 request "), (2, "2 requests")])
def test_the_first_request_is_one(requests: int, told: str) -> None:
    now = snapshot().replace(total=Totals(events=requests, requests=requests))
    assert told in totals.headline(now, "today")


@pytest.mark.parametrize("width", range(20, 61))
def test_a_sum_above_a_chart_is_there_as_a_whole_or_not_at_all(width: int) -> None:
    title = chart.drawn([(NOW_US, 957 * CENT)], RANGES[0], UTC, width, 7)[0]
    assert len(title) <= width
    for word in ("max", "sum"):
        assert title.endswith(f"{word} $9.57") or f"{word} $9.57 " in title or word not in title
    assert ("sum $9.57" in title) == (width >= len("spend per hour, last 24h   sum $9.57"))


def test_the_limit_for_everybody_says_when_it_resets_and_runs_out() -> None:
    limit = Limit("l", LimitKey(Subject(), None, "cost_usd", "month"), 1000 * CENT)
    hour = 3_600_000_000
    standing = state(0).replace(limit=limit, used=810 * CENT, since_us=NOW_US - 10 * hour)
    now = snapshot().replace(fleet=(LimitView(limit, standing.replace(resets_at_us=NOW_US + 8 * hour)),))
    lines = totals.fleet_lines(now, 48)
    assert lines is not None
    assert lines[1] == "warn"
    assert lines[0][0] == "everyone: $8.10 of $10.00 per month"
    assert "81 %  resets in 8 h" in lines[0][1]
    assert lines[0][2] == "burn $0.81/h  runs out in 2 h 21 min"
    rolling = standing.replace(frees_at_us=NOW_US + 8 * hour, resets_at_us=None)
    lines = totals.fleet_lines(snapshot().replace(fleet=(LimitView(limit, rolling),)), 48)
    assert lines is not None
    assert "81 %  frees in 8 h" in lines[0][1]  # then it is not empty: only its oldest usage has left
    large = Limit("l", LimitKey(Subject(), None, "tokens", "7d"), 24_000_000)
    lines = totals.fleet_lines(
        snapshot().replace(fleet=(LimitView(large, rolling.replace(limit=large, used=20_246_483)),)), 48
    )
    assert lines is not None
    assert lines[0][0] == "everyone: 20.25M of 24.00M tokens in any 7d"


def test_what_runs_out_when_no_calendar_goes_does_not_run_out() -> None:
    """A token or so an hour, of a hundred million: that was the year 13434, and the end of the dashboard."""
    limit = Limit("l", LimitKey(Subject("agent", "a"), None, "tokens", "total"), 100_000_000)
    since_us = NOW_US - 40 * 86_400_000_000
    standing = state(0).replace(limit=limit, used=1000, since_us=since_us, resets_at_us=None)
    assert standing.burn_per_hour == 1
    assert ("runs out", UNKNOWN) in portrait.limit_facts("l", [LimitView(limit, standing)], UTC)
    soon = standing.replace(used=99_999_999)
    assert ("runs out", UNKNOWN) not in portrait.limit_facts("l", [LimitView(limit, soon)], UTC)


def test_a_limit_stands_at_the_same_on_all_pages_and_only_one_in_total_never_resets() -> None:
    """A rolling window in which nothing is has no moment yet, and what is held is in the percentage."""
    for window, told, fact in (("7d", UNKNOWN, UNKNOWN), ("total", "never resets", "never")):
        limit = Limit("l", LimitKey(Subject(), None, "cost_usd", window), 1000 * CENT)
        standing = state(0, held=250 * CENT).replace(limit=limit, resets_at_us=None)
        found = LimitView(limit, standing)
        (row,) = portrait.limit_rows([found], UTC, NOW_US)
        assert [cell.text for cell in row.cells][1:] == ["$2.50 of $10.00", "██······", "25 %", told]
        assert limit_view.row(found, NOW_US, UTC).cells[1] == row.cells[1]
        assert ("frees", fact) in portrait.limit_facts("l", [found], UTC)
        lines = totals.fleet_lines(snapshot().replace(fleet=(found,)), 48)
        assert lines is not None
        assert "$2.50 of $10.00" in lines[0][0]
        assert ("never resets" in lines[0][1]) is (window == "total")


def test_units_burn_in_units() -> None:
    million = 1_000_000
    limit = Limit("l", LimitKey(Subject(), None, "units", "day"), 1000 * million)
    standing = state(0).replace(limit=limit, used=81 * million, since_us=NOW_US - 3_600_000_000)
    lines = totals.fleet_lines(snapshot().replace(fleet=(LimitView(limit, standing),)), 48)
    assert lines is not None and lines[0][2].startswith("burn 81/h")
    roster = Roster()
    roster.take(snapshot(agent("ann", "active", standing)), 0)
    assert "81/h" in [cell.text for cell in roster.rows()[0].cells]


def test_a_refusal_just_now_comes_before_alerts_and_an_old_one_does_not() -> None:
    limit = Limit("l", LimitKey(Subject("agent", "*"), None, "requests", "day"), 5)
    alert = Alert(1, NOW_US, "l", "coder", NOW_US, 80, 4, 5)
    refused = event("rogue", outcome="rejected", limit_id="l")
    now = snapshot().replace(events=(refused,), alerts=(AlertView(alert, limit.key),), limits=(limit,))
    first, second = totals.alarms(now, UTC, 3)
    assert "rogue was refused: over the limit of 5 requests" in first.text
    assert "coder 80 %" in second.text
    (only,) = totals.alarms(now.replace(taken_at_us=NOW_US + 3_600_000_000), UTC, 3)
    assert only == second


# Usage


def test_a_stopped_service_is_shown_even_where_nobody_uses_it() -> None:
    used = Summary(Totals(), (Group(("api",), Totals(requests=3)),))
    agents = Summary(Totals(), (Group(("api", "a"), Totals()), Group(("api", "b"), Totals())))
    rows = usage.service_rows(used, agents, [KillSwitch("service", "dear", "why", "olga", NOW_US)])
    assert [[cell.text for cell in row.cells[:4]] for row in rows] == [
        ["api", "● open", "2", "3"],
        ["dear", "■ STOPPED", "0", "0"],
    ]
    (row,) = usage.service_rows(used, agents.replace(groups_left_out=1), [])
    assert row.cells[2].text == "2+"


def test_of_a_session_it_is_said_that_agents_may_be_missing() -> None:
    """It was said that nothing was used."""
    groups = (Group(("p", "s", "ann"), Totals(requests=3)),)
    all_told, some_told = Summary(Totals(), groups), Summary(Totals(), groups, 1)
    assert [row.cells[0].text for row in usage.agents_in(all_told, repr(("p", "s")))] == ["ann"]
    (row,) = usage.agents_in(some_told, repr(("p", "other")))
    assert row.cells[0].text == "and perhaps others, who used little here"


def test_of_no_more_events_than_are_told_there_are_at_least_so_many() -> None:
    """The feed named a number, the title of the same moment said that it may be more."""
    usual = UsageEvent("id", Who("ann", "api"), Usage())
    all_new = tuple(StoredEvent(seq, usual, "accepted", seq) for seq in range(EVENTS_SHOWN + 5, 5, -1))
    nothing = Snapshot(NOW_US, (), {}, Totals(), (), (), (), ())
    seen = nothing.replace(events=(StoredEvent(5, usual, "accepted", 5),))
    assert happening.newer_in(nothing.replace(events=all_new), seen) == f"{EVENTS_SHOWN}+"
    assert happening.newer_in(nothing.replace(events=all_new[1:]), seen) == str(EVENTS_SHOWN - 1)
    assert happening.newer_in(nothing.replace(events=all_new[-3:]), nothing) == "3"
