"""One agent in words: who it is, how it stands, what stops it, what it holds, what binds it and why. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_meter_mcp.core.figures import UNKNOWN, amount, cost_of, counted, dollars, number, percent
from agent_meter_mcp.core.models import EACH, SECOND_US
from agent_meter_mcp.core.text import shown

from .format import age, short_count, spark, until
from .happening import limits_by_id, measured, why_refused
from .limit_view import clock
from .roster import STATES, state_of, word_of
from .view import (
    NAME_WIDTH,
    NOTHING,
    Cell,
    Row,
    amounts_of,
    cost_cell,
    limit_row,
    moment,
    name_cell,
    what_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import tzinfo

    from agent_meter_mcp.core.models import Limit
    from agent_meter_mcp.core.queries import AgentView, LimitView, Totals
    from agent_meter_mcp.sources.base import Detail, Range, Snapshot

HELD_SHOWN = 3
_NEVER_REFUSED = Cell("was never refused", "dim")
_HOLDS_NOTHING = Cell("holds no reservation", "dim")


def heading(agent_id: str, view: AgentView | None, used: Totals, range_name: str) -> str:
    """Its name, its state, and what it used itself in the range."""
    refused = f", {short_count(used.rejected)} refused" if used.rejected else ""
    return (
        f"{shown(agent_id, width=NAME_WIDTH)}   {'' if view is None else word_of(view)}   {range_name}:"
        f" {cost_of(used)}, {counted(used.requests, 'request')}, {short_count(used.tokens)} tokens{refused}"
    )


def about(view: AgentView | None, detail: Detail, zone: tzinfo, now_us: int) -> list[Cell]:
    """Who it is, since when; why it was refused last; who measured it; what it holds. The first are needed
    most."""
    lines = [_refused(detail, zone, now_us)]
    if view is not None:
        lines.append(Cell("   ".join(_who(view, zone, now_us)), "dim"))
    lines.append(Cell(measured(detail.sources), "dim"))
    return [*lines, *_held(detail, now_us)]


def shortest(lines: Sequence[Cell]) -> list[Cell]:
    """What of it is shown where there is little room: not what there is nothing of."""
    return [line for line in lines if line not in (_NEVER_REFUSED, _HOLDS_NOTHING)][:4]


def _who(view: AgentView, zone: tzinfo, now_us: int) -> list[str]:
    agent = view.agent
    fields = (("name", agent.name), ("tier", agent.tier), ("owner", agent.owner), ("parent", agent.parent))
    told = [f"{field} {shown(value, width=40)}" for field, value in fields if value is not None]
    first, last = view.first_seen_us, view.last_seen_us
    told += [] if first is None else [f"first seen {moment(first, zone, '%d %b %Y %H:%M')}"]
    told += [] if last is None else [f"last {_ago(last, now_us)} ({moment(last, zone, '%H:%M:%S %Z')})"]
    return told


def _refused(detail: Detail, zone: tzinfo, now_us: int) -> Cell:
    event = detail.refused
    if event is None:
        return _NEVER_REFUSED
    limits = limits_by_id(view.limit for view in detail.limits)
    when = moment(event.seq, zone, "%d %b %H:%M:%S")
    what = " ".join(part for part in (event.event.who.service, event.event.operation) if part)
    style = "alarm" if event.limit_id is not None else "held"
    ago, why = _ago(event.seq, now_us), why_refused(event, limits)
    return Cell(f"refused last {ago} ({when}) at {shown(what, width=40)}: {why}", style)


def _ago(at_us: int, now_us: int) -> str:
    since_us = now_us - at_us
    return "just now" if since_us < SECOND_US else f"{age(since_us)} ago"


def _held(detail: Detail, now_us: int) -> list[Cell]:
    if not detail.held:
        return [_HOLDS_NOTHING]
    lines: list[Cell] = []
    for hold in detail.held[:HELD_SHOWN]:
        what = shown(hold.operation or hold.who.service or "", width=40)
        told = ", ".join(word for word in (what, amounts_of(hold)) if word)
        ends = until(hold.expires_at_us, now_us)
        since = age(max(now_us - hold.reserved_at_us, SECOND_US))
        name = shown(hold.reservation_id, width=40)
        lines.append(Cell(f"holds {name} ({told}), for {since}, until in {ends}"))
    more = len(detail.held) - HELD_SHOWN
    return lines + ([Cell(f"and {counted(more, 'reservation')} more")] if more > 0 else [])


def spend(bars: Sequence[tuple[int, int]], wanted: Range, width: int) -> Cell:
    """What it spent, period by period, in a line."""
    costs = [cost for _, cost in bars]
    return Cell(f"spend per {wanted.chart}  {spark(costs, width)}  max {dollars(max(costs, default=0))}")


def limit_rows(views: Sequence[LimitView], zone: tzinfo, now_us: int) -> list[Row]:
    """As `limit_row`, with the moment at which it resets; those that bind come first, the tightest first."""

    def grave(view: LimitView) -> tuple[bool, float]:
        return view.is_replaced, -view.state.percent if view.state is not None else 0.0

    return [_limit_row(view, views, zone, now_us) for view in sorted(views, key=grave)]


def _limit_row(view: LimitView, views: Sequence[LimitView], zone: tzinfo, now_us: int) -> Row:
    row = limit_row(view)
    return Row(row.key, (*row.cells, Cell(_ends(view, views, zone, now_us))))


def _ends(view: LimitView, views: Sequence[LimitView], zone: tzinfo, now_us: int) -> str:
    """When it resets, or which one stands in its place."""
    if view.is_replaced:
        other = _replacing(view, views)
        return "replaced" if other is None else f"by {shown(str(other.key.subject), width=30)}"
    state = view.state
    at_us = None if state is None else state.leaves_at_us
    if at_us is None:
        return "never resets" if view.limit.key.window == "total" else UNKNOWN
    return f"{clock(at_us, now_us, zone)}, {age(max(at_us - now_us, 0))}"


def _replacing(view: LimitView, views: Sequence[LimitView]) -> Limit | None:
    wanted = None if view.bound is None else view.bound.replaced_by
    return next((one.limit for one in views if one.limit.limit_id == wanted), None)


def limit_facts(limit_id: str, views: Sequence[LimitView], zone: tzinfo) -> list[tuple[str, str]]:
    """All of a limit that matches the agent, and why it binds or does not."""
    view = next((one for one in views if one.limit.limit_id == limit_id), None)
    if view is None:
        return [("limit", "is gone")]
    limit, state = view.limit, view.state
    metric = limit.key.metric
    facts = [("limit", what_of(limit.key)), ("at most", amount(metric, limit.max))]
    if state is not None:
        at_us = state.leaves_at_us
        out_us = state.runs_out_at_us
        never = "never" if limit.key.window == "total" else UNKNOWN
        form = "%d %b %Y %H:%M:%S %Z"
        facts += [
            ("used", number(metric, state.used)),
            ("held", number(metric, state.held)),
            ("left", f"{number(metric, state.remaining)} ({percent(state.percent)} gone)"),
            ("counts since", moment(state.since_us, zone, form)),
            (
                "resets" if state.resets_at_us else "frees",
                never if at_us is None else moment(at_us, zone, form),
            ),
            ("per hour", number(metric, state.burn_per_hour)),
            ("runs out", UNKNOWN if out_us is None else moment(out_us, zone, form)),
        ]
    facts += [
        ("beyond it", "refused" if limit.action == "reject" else "warned only"),
        ("warns at", ", ".join(f"{threshold} %" for threshold in limit.thresholds) or UNKNOWN),
        ("its days begin in", limit.zone),
        ("does it bind", _why_bound(view, views)),
        ("id", limit.limit_id),
    ]
    return [(name, shown(text)) for name, text in facts]


def _why_bound(view: LimitView, views: Sequence[LimitView]) -> str:
    subject = view.limit.key.subject
    if view.is_replaced:
        other = _replacing(view, views)
        whose = "a more specific limit" if other is None else f"the more specific one for {other.key.subject}"
        return f"no: {whose} stands in its place, for the same service, metric and window"
    if subject.kind == "pool":
        return "yes: it is for everybody together"
    if subject.kind == "agent" and subject.name != EACH:
        return f"yes: it covers {subject.name} and all agents beneath it, together"
    return "yes: it counts each one by itself, and nothing more specific is set"


def child_rows(agent_id: str, snapshot: Snapshot) -> list[Row]:
    """The agents that it spawned itself: name, state, cost in the range, fullest budget."""
    rows: list[Row] = []
    for view in snapshot.agents:
        agent = view.agent
        if agent.parent == agent_id:
            word, style = STATES[state_of(view)]
            full = UNKNOWN if view.tightest is None else percent(view.tightest.percent)
            cost = cost_cell(snapshot.used.get(agent.agent_id, NOTHING))
            cells = (name_cell(agent.agent_id), Cell(word, style), cost, Cell(full))
            rows.append(Row(agent.agent_id, cells))
    return rows
