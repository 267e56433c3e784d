"""What stands on the screen: figures that fit, states that are told, and names that do no harm."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_meter_mcp.core.decide import LimitState
from agent_meter_mcp.core.figures import width_of
from agent_meter_mcp.core.models import Agent, Limit, LimitKey, StoredEvent, Subject, Usage, UsageEvent, Who
from agent_meter_mcp.core.queries import AgentView, Totals
from agent_meter_mcp.sources.base import Snapshot
from tui import format as written
from tui import view

if TYPE_CHECKING:
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
        (123_456, "123k"),
        (8_120_000, "8.12M"),
        (10**12, "1000B"),
    ],
)
def test_counts_are_short(count: int, text: str) -> None:
    assert written.short_count(count) == text


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
    cell = view.agent_rows(snapshot(view_of))[0].row.cells[1]
    assert (cell.text, cell.style) == (word, style)


def test_unlimited_unknown_and_nothing_are_told_apart() -> None:
    free, limited = view.agent_rows(
        snapshot(
            agent("free"), agent("limited", "active", state(0)), free=Totals(events=1, requests=1, unpriced=1)
        )
    )
    assert [cell.text for cell in free.row.cells[4:9]] == ["—", "unlimited", "—", "—", "—"]
    assert [cell.text for cell in limited.row.cells[4:9]] == ["$0.00", "··········", "0 %", "0/h", "—"]


def test_over_a_hundred_percent_the_real_figure_stands_beside_a_full_bar() -> None:
    (row,) = view.agent_rows(snapshot(agent("a", "over_limit", state(322))))
    assert [cell.text for cell in row.row.cells[5:9]] == ["██████████", "322 %", "322/h", "over"]


@pytest.mark.parametrize("sort", view.SORTS)
def test_equal_agents_are_in_the_order_of_their_names(sort: str) -> None:
    rows = view.agent_rows(snapshot(agent("c"), agent("a"), agent("b")))
    assert [row.agent_id for row in view.ordered(rows, sort, reverse=False)] == ["a", "b", "c"]


def test_the_gravest_and_the_largest_come_first() -> None:
    rows = view.agent_rows(
        snapshot(
            agent("idle", "idle"),
            agent("over", "over_limit", state(200)),
            agent("held", "stopped"),
            agent("ok"),
            ok=Totals(requests=5, cost_nano_usd=CENT),
            over=Totals(requests=9),
        )
    )

    def names(sort: str, reverse: bool = False) -> list[str]:
        return [row.agent_id for row in view.ordered(rows, sort, reverse)]

    assert names("state") == ["held", "over", "ok", "idle"]
    assert names("cost")[0] == "ok"
    assert names("requests")[:2] == ["over", "ok"]
    assert names("budget")[0] == "over"
    assert names("requests", reverse=True)[-1] == "over"


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("", ["bot", "coder"]),
        ("BO", ["bot"]),
        ("over", ["coder"]),
        ("!over", ["bot"]),
        ("o !bot", ["coder"]),
        ("!", ["bot", "coder"]),
        ("x", []),
    ],
)
def test_a_filter_takes_words_of_names_and_states(wanted: str, found: list[str]) -> None:
    rows = view.agent_rows(snapshot(agent("bot"), agent("coder", "over_limit", state(100))))
    assert [row.agent_id for row in view.matching(rows, wanted)] == found


@pytest.mark.parametrize("name", HOSTILE)
def test_no_text_of_an_agent_s_gets_through_as_it_is(name: str) -> None:
    (row,) = view.agent_rows(snapshot(agent(name)))
    fed = view.event_row(event(name).replace(outcome="rejected", limit_id="l", count=14), UTC)
    for cell in (*row.row.cells, *fed.cells):
        assert cell.text.isprintable()
        assert width_of(cell.text) <= 2 * view.NAME_WIDTH + 40


def test_a_refusal_says_which_and_how_often() -> None:
    over = view.event_row(event(outcome="rejected", limit_id="l", count=14), UTC)
    assert [cell.text for cell in over.cells[1:4]] == ["429", "bot", "api chat over budget ×14"]
    assert over.cells[1].style == over.cells[2].style == "alarm"
    stopped = view.event_row(event(outcome="rejected", limit_id=None), UTC)
    assert [cell.text for cell in stopped.cells[1:4]] == ["403", "bot", "api chat stopped"]
