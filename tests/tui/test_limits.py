"""Limits as a person types, raises, previews and lists them: what is meant, and what is said."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_meter_mcp import Ledger, Report, Settings, Usage, Who
from agent_meter_mcp.core.decide import LimitState
from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.core.limits import Policy
from agent_meter_mcp.core.models import METRICS, Agent, Limit, LimitKey, Subject
from agent_meter_mcp.core.money import LIMIT_MAX_INTEGER, typed_maximum
from agent_meter_mcp.core.queries import AgentView, Group, LimitView, Summary, Totals
from agent_meter_mcp.sources.base import RANGES
from agent_meter_mcp.sources.local import LocalSource
from tui import limit_preview, limit_view, view
from tui.format import brief
from tui.limit_form import Typed, Wish, exact, plain, raised, read, typed_of, wish_of

from .watching import CENT, OPERATOR

if TYPE_CHECKING:
    from agent_meter_mcp.core.models import Metric

DOLLAR = 1_000_000_000
NOW_US = 1_795_536_000_000_000
"""Tuesday, 24 November 2026, 16:00 UTC."""
HOUR_US = 3_600_000_000


# What is typed


@pytest.mark.parametrize(
    ("metric", "text", "value"),
    [
        ("cost_usd", "5", 5 * DOLLAR),
        ("cost_usd", " $1,204.50 ", 1_204_500_000_000),
        ("cost_usd", "1.5k", 1_500 * DOLLAR),
        ("cost_usd", "0.000000001", 1),
        ("tokens", "1.5M", 1_500_000),
        ("tokens", "2k", 2_000),
        ("tokens", "2K", 2_000),
        ("tokens", "3B", 3_000_000_000),
        ("tokens", "1,500,000", 1_500_000),
        ("requests", "60", 60),
        ("requests", "1.0", 1),
        ("units", "0.25", 250_000),
        ("requests", "0", 0),
    ],
)
def test_a_maximum_is_read_exactly(metric: Metric, text: str, value: int) -> None:
    assert typed_maximum(metric, text) == value


@pytest.mark.parametrize(
    ("metric", "text"),
    [
        ("cost_usd", ""),
        ("cost_usd", "nan"),
        ("cost_usd", "inf"),
        ("cost_usd", "-1"),
        ("cost_usd", "5 dollars"),
        ("cost_usd", "1,5"),
        ("cost_usd", "10000000000"),
        ("tokens", "$5"),
        ("tokens", "1,50"),
        ("tokens", "1.5"),
        ("tokens", "0.0001k"),
        ("requests", "1.0001"),
        ("requests", "M"),
        ("requests", "1e30"),
        ("requests", "9" * 100),
        ("requests", "9" * 30 + "B"),
        ("units", "0.0000001"),
        ("cost_usd", "1e-10"),
    ],
)
def test_what_is_no_maximum_is_not_guessed(metric: Metric, text: str) -> None:
    with pytest.raises(InvalidInput, match="max: "):
        typed_maximum(metric, text)


@given(st.sampled_from(METRICS), st.integers(0, LIMIT_MAX_INTEGER))
def test_an_amount_that_is_shown_to_be_changed_is_read_back_the_same(metric: Metric, value: int) -> None:
    assert typed_maximum(metric, plain(metric, value)) == value
    assert typed_maximum(metric, exact(metric, value)) == value


@given(st.integers(1, LIMIT_MAX_INTEGER), st.sampled_from([10, 50]))
def test_a_raise_is_at_least_what_it_says_and_hardly_more(maximum: int, by: int) -> None:
    more = raised(maximum, by)
    assert more == LIMIT_MAX_INTEGER or more * 100 >= maximum * (100 + by)
    assert (more - 1) * 100 < maximum * (100 + by) * 1.01
    assert more == LIMIT_MAX_INTEGER or len(str(more).rstrip("0")) <= 3


@pytest.mark.parametrize(
    ("maximum", "by", "more"),
    [
        (10 * DOLLAR, 10, 11 * DOLLAR),
        (10 * DOLLAR, 50, 15 * DOLLAR),
        (1, 10, 2),
        (63, 10, 70),
        (12_345, 10, 13_600),
    ],
)
def test_a_raise_is_a_round_figure(maximum: int, by: int, more: int) -> None:
    assert raised(maximum, by) == more


def test_the_fields_mean_a_limit() -> None:
    typed = Typed(
        "one agent", " coder ", "openai", "tokens", "24h", "1.5M", "warn", "Europe/Berlin", "90 100%"
    )
    wish, wrong = read(typed)
    assert wrong == {}
    key = LimitKey(Subject("agent", "coder"), "openai", "tokens", "24h")
    assert wish == Wish(key, 1_500_000, "warn", "UTC", (90, 100))


@pytest.mark.parametrize(
    ("whom", "subject"),
    [
        ("everyone", Subject()),
        ("each agent", Subject("agent", "*")),
        ("one agent", Subject("agent", "x")),
        ("each of a tier", Subject("tier", "x")),
        ("each project", Subject("project", "*")),
        ("one project", Subject("project", "x")),
        ("each session", Subject("session", "*")),
        ("one session", Subject("session", "x")),
    ],
)
def test_everybody_whom_a_limit_can_be_for_can_be_chosen(whom: str, subject: Subject) -> None:
    wish, _ = read(Typed(whom, "x", max="1"))
    assert wish is not None
    assert wish.key.subject == subject
    limit = Limit("id", wish.key, wish.max)
    assert read(typed_of(limit)) == (wish_of(limit), {})


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("name", ""),
        ("name", "*"),
        ("name", "a\x1b[31m"),
        ("name", "a" * 129),
        ("service", "*"),
        ("service", "a\nb"),
        ("window", "fortnight"),
        ("window", "1.5h"),
        ("window", ""),
        ("max", "-1"),
        ("max", ""),
        ("zone", "Mars/Olympus"),
        ("thresholds", "0"),
        ("thresholds", "fifty"),
        ("thresholds", "1 2 3 4 5 6 7 8 9 10 11"),
    ],
)
def test_each_field_says_what_is_wrong_with_it(field: str, text: str) -> None:
    good = Typed("one agent", "coder", max="5")
    wish, wrong = read(good.replace(**{field: text}))
    assert wish is None
    assert list(wrong) == [field]


def test_all_that_is_wrong_is_said_at_once() -> None:
    _, wrong = read(Typed("one agent", "", "", "requests", "x", "y", "reject", "z", "w"))
    assert list(wrong) == ["name", "window", "max", "zone", "thresholds"]


def test_no_thresholds_are_none() -> None:
    wish, _ = read(Typed(max="5", thresholds=" "))
    assert wish is not None
    assert wish.thresholds == ()


# Whom it would bind


def agent(name: str, tier: str | None = None, parent: str | None = None) -> AgentView:
    return AgentView(Agent(name, tier=tier, parent=parent), "active", NOW_US, NOW_US, Totals(), None)


def usage(**cents: int) -> Summary:
    groups = [
        Group((name.replace("_", "-"),), Totals(1, 1, cost_nano_usd=cost * DOLLAR // 100))
        for name, cost in cents.items()
    ]
    total = Totals(
        len(groups), len(groups), cost_nano_usd=sum(group.totals.cost_nano_usd for group in groups)
    )
    return Summary(total, tuple(groups))


def wish(subject: Subject, dollars: int = 10, service: str | None = None) -> Wish:
    return Wish(LimitKey(subject, service, "cost_usd", "day"), dollars * DOLLAR, "reject", "UTC", ())


def there(
    subject: Subject, dollars: int, used: int | None = None, held: int = 0, scope: str = ""
) -> LimitView:
    limit = Limit(f"id-{subject}", LimitKey(subject, None, "cost_usd", "day"), dollars * DOLLAR)
    state = None
    if used is not None:
        start_us = NOW_US - HOUR_US
        state = LimitState(
            limit, scope, used * DOLLAR, held * DOLLAR, start_us, NOW_US + HOUR_US, None, NOW_US
        )
    return LimitView(limit, state)


FLEET = [
    agent("boss"),
    agent("child", parent="boss"),
    agent("grandchild", parent="child"),
    agent("coder", "gold"),
]
USED = usage(boss=300, child=200, grandchild=100, coder=850)
ALL, EACH_AGENT = Subject(), Subject("agent", "*")


def told(found: limit_preview.Preview) -> str:
    return "\n".join(line for line, _ in limit_preview.lines(found))


def test_a_limit_on_one_agent_counts_all_that_it_spawned() -> None:
    found = limit_preview.preview(wish(Subject("agent", "boss")), FLEET, [], USED)
    assert [one.used for one in found.standings] == [6 * DOLLAR]
    assert "boss and 2 agents that it spawned, together" in told(found)
    assert "Used: $6.00 (60 %)" in told(found)


def test_a_limit_for_each_agent_counts_each_by_itself_and_spares_those_with_a_closer_one() -> None:
    limits = [there(Subject("agent", "coder"), 20), there(Subject("tier", "gold"), 5)]
    found = limit_preview.preview(wish(EACH_AGENT), FLEET, limits, USED)
    assert [(one.name, one.used) for one in found.standings] == [
        ("boss", 3 * DOLLAR),
        ("child", 2 * DOLLAR),
        ("grandchild", DOLLAR),
    ]
    assert "Binds 3 agents, each by itself; 1 has a closer limit" in told(found)
    assert not found.refuses


def test_a_limit_for_a_tier_binds_those_in_it_in_place_of_the_one_for_each() -> None:
    found = limit_preview.preview(wish(Subject("tier", "gold"), 8), FLEET, [there(EACH_AGENT, 9)], USED)
    assert [(one.name, one.used) for one in found.standings] == [("coder", 850 * DOLLAR // 100)]
    assert "in the place of: each agent ($9.00)" in told(found)
    assert "✖ It is used up: refused at once" in told(found)
    assert found.refuses


def test_limits_of_another_window_service_or_metric_replace_nothing() -> None:
    other = there(Subject("agent", "coder"), 20)
    for key in (
        other.limit.key.replace(window="month"),
        other.limit.key.replace(service="openai"),
        other.limit.key.replace(metric="tokens"),
    ):
        limits = [other.replace(limit=other.limit.replace(key=key))]
        found = limit_preview.preview(wish(EACH_AGENT), FLEET, limits, USED)
        assert len(found.standings) == len(FLEET)
        assert found.replaced == 0


def test_a_limit_for_everyone_counts_everything() -> None:
    found = limit_preview.preview(wish(ALL, 14), FLEET, [], Summary(USED.total, ()))
    assert [one.used for one in found.standings] == [1450 * DOLLAR // 100]
    assert "everyone together: 4 agents" in told(found)


def test_projects_and_sessions_are_counted_by_their_names() -> None:
    used = usage(web=900, ops=100)
    limits = [there(Subject("project", "ops"), 50)]
    each = limit_preview.preview(wish(Subject("project", "*")), FLEET, limits, used)
    assert [one.name for one in each.standings] == ["web"]
    assert each.replaced == 1
    assert [one.name for one in each.near] == ["web"]
    one = limit_preview.preview(wish(Subject("session", "s1"), 5), FLEET, [], usage(s1=600))
    assert one.refuses
    assert "Binds all usage of session s1" in told(one)


def test_a_change_says_what_it_does_to_the_percentage_with_what_is_held() -> None:
    limits = [there(EACH_AGENT, 10, used=8, held=1, scope="coder")]
    found = limit_preview.preview(wish(EACH_AGENT, 12), FLEET, limits, USED)
    assert "$10.00 → $12.00" in told(found)
    assert "coder $9.00 (90 % → 75 %)" in told(found)


def test_only_who_is_not_refused_yet_makes_it_a_second_question() -> None:
    limits = [there(EACH_AGENT, 8, used=9, scope="coder")]
    assert not limit_preview.preview(wish(EACH_AGENT, 9), FLEET, limits, USED).refuses
    assert limit_preview.preview(wish(EACH_AGENT, 3), FLEET, limits, USED).refuses
    softly = wish(EACH_AGENT, 3).replace(action="warn")
    assert not limit_preview.preview(softly, FLEET, limits, USED).refuses


def test_a_limit_of_nothing_is_a_second_question_even_if_nobody_is_there() -> None:
    assert limit_preview.preview(wish(Subject("tier", "new"), 0), [], [], Summary(Totals(), ())).refuses


def test_hostile_names_are_told_harmlessly() -> None:
    for name in ("\x1b[31mred", "\u202egnp", "[@click=app.quit]x[/]"):
        found = limit_preview.preview(wish(Subject("agent", name)), [agent(name)], [], usage())
        each = limit_preview.preview(wish(EACH_AGENT), [agent(name)], [], usage())
        assert all(line.isprintable() for line, _ in limit_preview.lines(found) + limit_preview.lines(each))


@given(
    st.lists(st.tuples(st.integers(0, 2_000), st.sampled_from([None, "gold"])), max_size=12),
    st.integers(0, 20),
)
def test_the_counters_are_those_of_the_agents_and_their_sum_is_what_is_used(
    drawn: list[tuple[int, str | None]], dollars: int
) -> None:
    agents = [agent(f"a{number}", tier) for number, (_, tier) in enumerate(drawn)]
    used = usage(**{f"a{number}": cents for number, (cents, _) in enumerate(drawn)})
    found = limit_preview.preview(wish(EACH_AGENT, dollars), agents, [], used)
    assert sum(one.used for one in found.standings) == used.total.cost_nano_usd
    assert found.refuses == bool(found.over or not dollars)
    assert [one.used for one in found.standings] == sorted(
        (one.used for one in found.standings), reverse=True
    )
    both = limit_preview.preview(wish(EACH_AGENT, dollars), agents, [there(Subject("tier", "gold"), 1)], used)
    assert both.replaced == sum(tier == "gold" for _, tier in drawn)


NAMES = ("a", "b", "c", "d")
SUBJECTS = [
    EACH_AGENT,
    Subject("tier", "gold"),
    Subject("tier", "iron"),
    *(Subject("agent", one) for one in NAMES),
]


@given(
    st.lists(st.sampled_from([None, "gold", "iron"]), min_size=4, max_size=4),
    st.lists(st.sampled_from([None, 0, 1, 2]), min_size=4, max_size=4),
    st.sets(st.sampled_from(SUBJECTS)),
    st.sampled_from(SUBJECTS[:3]),
)
def test_whom_it_says_it_binds_is_whom_the_ledgers_rules_bind(
    tiers: list[str | None], parents: list[int | None], others: set[Subject], subject: Subject
) -> None:
    above = [None if at is None or at >= place else NAMES[at] for place, at in enumerate(parents)]
    fleet = [agent(*one) for one in zip(NAMES, tiers, above, strict=True)]
    limits = [there(other, 5) for other in others - {subject}]
    found = limit_preview.preview(wish(subject), fleet, limits, usage())
    drafted = found.wish.limit
    policy = Policy((one.agent for one in fleet), [*(view.limit for view in limits), drafted])
    binding = [one for one in NAMES if any(it.limit == drafted for it in policy.binding(Who(one)))]
    matching = [one for one in NAMES if any(it.limit == drafted for it in policy.matching(Who(one)))]
    assert [one.name for one in found.standings] == binding
    assert found.replaced == len(matching) - len(binding)


@pytest.mark.parametrize(
    ("subject", "service"),
    [
        (ALL, None),
        (ALL, "search"),
        (EACH_AGENT, None),
        (EACH_AGENT, "search"),
        (Subject("agent", "boss"), None),
        (Subject("agent", "child"), "api"),
        (Subject("tier", "gold"), None),
        (Subject("project", "web"), None),
        (Subject("project", "*"), "api"),
        (Subject("session", "*"), None),
    ],
)
async def test_what_it_says_is_used_is_what_the_limit_counts_once_it_is_set(
    settings: Settings, ledger: Ledger, subject: Subject, service: str | None
) -> None:
    for cents, who in enumerate(
        (
            Who("boss", "api", project="web", session="s1"),
            Who("child", "api", parent="boss", session="s2"),
            Who("grandchild", "search", parent="child", project="ops"),
            Who("coder", "search", project="web", session="s1"),
        ),
        1,
    ):
        spent = Usage(cost_nano_usd=cents * CENT, cost_source="reported")
        await ledger.record(OPERATOR, Report(who, spent))
    await ledger.set_agent(OPERATOR, "coder", {"tier": "gold"})
    wanted = wish(subject, service=service)
    local = LocalSource(settings, OPERATOR, "UTC")
    try:
        fleet = (await local.snapshot(RANGES[0])).agents
        used = await local.usage("day", *limit_preview.dimensions(subject), service=service)
    finally:
        await local.close()
    found = limit_preview.preview(wanted, fleet, [], used)
    await ledger.set_limit(OPERATOR, wanted.key, wanted.max)
    (view,) = await ledger.limits(OPERATOR)
    assert view.state is not None
    fullest = found.standings[0]
    assert view.state.used == fullest.used
    assert view.state.scope in ("", fullest.name)


# The rows


def test_the_tightest_limit_is_first_and_a_limit_of_nothing_before_it() -> None:
    views = [
        there(Subject("agent", "a"), 10, used=5),
        there(Subject("agent", "b"), 10, used=12),
        there(Subject("agent", "c"), 0, used=0),
        there(Subject("agent", "d"), 10),
    ]
    found = limit_view.ordered(views, "tightness", False, NOW_US)
    assert [view.limit.key.subject.name for view in found] == ["c", "b", "a", "d"]
    assert limit_view.ordered(views, "tightness", True, NOW_US) == found[::-1]
    for sort in limit_view.SORTS:
        assert len(limit_view.ordered(views, sort, False, NOW_US)) == len(views)


def test_a_row_says_how_it_stands_in_the_zone_of_who_looks() -> None:
    row = limit_view.row(there(EACH_AGENT, 10, used=8, held=1, scope="coder"), NOW_US, ZoneInfo("Asia/Tokyo"))
    words = [cell.text for cell in row.cells]
    assert words[0] == "each agent · cost_usd/day (coder)"
    assert words[1] == "$9.00 of $10.00"
    assert words[3:5] == ["90 %", "02:00"]
    assert words[5:] == ["$8.00/h", "7 min 30 s", "reject"]
    unused = limit_view.row(there(EACH_AGENT, 10), NOW_US, UTC)
    assert [cell.text for cell in unused.cells][3:] == ["0 %", "Wed 00:00", "—", "—", "reject"]


@pytest.mark.parametrize(
    ("hours", "text"), [(1, "17:00"), (10, "Wed 02:00"), (24 * 5, "Sun 16:00"), (24 * 9, "3 Dec")]
)
def test_a_moment_is_as_short_as_it_can_be(hours: int, text: str) -> None:
    assert limit_view.clock(NOW_US + hours * HOUR_US, NOW_US, UTC) == text


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("cost_usd", 1_234_567_890, "$1.23"),
        ("tokens", 1_500_000, "1.50M"),
        ("units", 34_792_945, "34.79"),
        ("units", 25_000_999_999, "25.00k"),
        ("units", 0, "0"),
    ],
)
def test_an_amount_in_a_table_is_short(metric: Metric, value: int, text: str) -> None:
    assert brief(metric, value) == text


def test_names_of_limits() -> None:
    assert view.what_of(LimitKey(ALL, None, "requests", "total")) == "everyone · requests in total"
    tier = LimitKey(Subject("tier", "gold"), "api", "tokens", "24h")
    assert view.what_of(tier) == "each of tier gold · tokens/24h at api"
