"""What is on the screen, as plain values: rows and their words. Pure; nothing here knows Textual.

Every text that an agent chose goes through `core.text.shown`: no control code and no markup gets further.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from agent_meter_mcp.core.figures import UNKNOWN, UNLIMITED, amount, counted, dollars, number
from agent_meter_mcp.core.queries import Totals
from agent_meter_mcp.core.text import shown
from agent_meter_mcp.core.value import Value

from .format import age, bar, percent, short_count, spark, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import tzinfo

    from agent_meter_mcp.core.decide import LimitState
    from agent_meter_mcp.core.models import AuditEntry, StoredEvent
    from agent_meter_mcp.core.queries import AgentView, Group, LimitView
    from agent_meter_mcp.sources.base import Snapshot

    Style = Literal["", "alarm", "warn", "good", "dim", "held"]

NAME_WIDTH = 128
BAR_WIDTH = 10
WARN_PERCENT = 80.0
SORTS = ("cost", "agent", "state", "requests", "tokens", "budget", "seen")
_NOTHING = Totals()
_STATES: dict[str, tuple[str, Style]] = {
    "stopped": ("■ STOPPED", "held"),
    "over_limit": ("✖ OVER", "alarm"),
    "warn": ("▲ WARN", "warn"),
    "active": ("● ok", "good"),
    "idle": ("○ idle", "dim"),
}
_ORDER = list(_STATES)


class Cell(Value):
    """A word in a table. Its style says what it means, not what it looks like."""

    text: str
    style: Style = ""


class Row(Value):
    """`key` stays that of the same thing, wherever the row moves."""

    key: str
    cells: tuple[Cell, ...]


class AgentRow(Value):
    """An agent as the table sorts and filters it."""

    agent_id: str
    state: str
    used: Totals
    percent: float
    last_seen_us: int
    row: Row


def state_of(view: AgentView) -> str:
    """As the ledger's status, and "warn" where a budget is nearly used up."""
    tightest = view.tightest
    if view.status in ("active", "idle") and tightest is not None and tightest.percent >= WARN_PERCENT:
        return "warn"
    return view.status


def word_of(view: AgentView) -> str:
    """The state as it is shown."""
    return _STATES[state_of(view)][0]


def agent_rows(snapshot: Snapshot) -> list[AgentRow]:
    """A row for each agent; the columns are those of `AGENT_COLUMNS`."""
    return [_agent_row(view, snapshot) for view in snapshot.agents]


def _agent_row(view: AgentView, snapshot: Snapshot) -> AgentRow:
    used = snapshot.used.get(view.agent.agent_id, _NOTHING)
    state = state_of(view)
    word, style = _STATES[state]
    cells = (
        Cell(shown(view.agent.agent_id, width=NAME_WIDTH)),
        Cell(word, style),
        Cell(short_count(used.requests)),
        Cell(short_count(used.tokens)),
        Cell(cost_of(used)),
        *_budget(view.tightest, snapshot.taken_at_us),
        Cell(
            age(None if view.last_seen_us is None else max(snapshot.taken_at_us - view.last_seen_us, 0)),
            "dim",
        ),
    )
    return AgentRow(
        view.agent.agent_id,
        state,
        used,
        -1.0 if view.tightest is None else view.tightest.percent,
        view.last_seen_us or 0,
        Row(view.agent.agent_id, cells),
    )


def _budget(tightest: LimitState | None, now_us: int) -> tuple[Cell, ...]:
    """The bar, the percentage, the rate and when it runs out."""
    if tightest is None:
        return Cell(UNLIMITED, "dim"), Cell(UNKNOWN, "dim"), Cell(UNKNOWN, "dim"), Cell(UNKNOWN, "dim")
    full = tightest.percent
    style: Style = "alarm" if full >= 100 else "warn" if full >= WARN_PERCENT else ""
    metric = tightest.limit.key.metric
    rate = dollars(tightest.burn_per_hour) if metric == "cost_usd" else short_count(tightest.burn_per_hour)
    return (
        Cell(bar(full, BAR_WIDTH), style),
        Cell(percent(full), style),
        Cell(f"{rate}/h"),
        Cell("over" if tightest.exceeded else until(tightest.runs_out_at_us, now_us), style),
    )


def cost_of(totals: Totals) -> str:
    """Unknown when nothing of it has a price."""
    known = totals.cost_nano_usd or totals.unpriced < totals.events or not totals.events
    return dollars(totals.cost_nano_usd) if known else UNKNOWN


def ordered(rows: Iterable[AgentRow], sort: str, reverse: bool) -> list[AgentRow]:
    """By what `sort` names, the largest or gravest first; agents that are equal in it by their names."""
    keys: dict[str, Callable[[AgentRow], float]] = {
        "cost": lambda row: -row.used.cost_nano_usd,
        "agent": lambda _: 0,
        "state": lambda row: _ORDER.index(row.state),
        "requests": lambda row: -row.used.requests,
        "tokens": lambda row: -row.used.tokens,
        "budget": lambda row: -row.percent,
        "seen": lambda row: -row.last_seen_us,
    }
    by_name = sorted(rows, key=lambda row: row.agent_id)
    found = sorted(by_name, key=keys[sort])
    return found[::-1] if reverse else found


def matching(rows: Iterable[AgentRow], wanted: str) -> list[AgentRow]:
    """Rows that have all the words in their name or state; a word with `!` before it must be missing."""
    return _having(rows, wanted, lambda row: f"{row.agent_id}\n{_STATES[row.state][0]}")


def matching_rows(rows: Iterable[Row], wanted: str) -> list[Row]:
    """As `matching`, with words that are anywhere in the row."""
    return _having(rows, wanted, lambda row: "\n".join(cell.text for cell in row.cells))


def _having(rows: Iterable[Any], wanted: str, text_of: Callable[[Any], str]) -> list[Any]:
    words = [(word.startswith("!"), word.removeprefix("!")) for word in wanted.casefold().split()]
    if not words:
        return list(rows)
    return [
        row
        for row in rows
        for text in [text_of(row).casefold()]
        if all((word in text) != inverted for inverted, word in words if word)
    ]


def event_row(event: StoredEvent, zone: tzinfo, *, with_agent: bool = True) -> Row:
    """A line of the feed: when, what became of it, who, what, and what it cost."""
    at = datetime.fromtimestamp(event.seq / 1_000_000, zone)
    who, usage = event.event.who, event.event.usage
    agent = (Cell(shown(who.agent, width=NAME_WIDTH)),) if with_agent else ()
    what = shown(" ".join(part for part in (who.service, event.event.operation) if part), width=NAME_WIDTH)
    key = str(event.seq)
    if event.outcome == "rejected":
        times = f" ×{event.count}" if event.count > 1 else ""
        stopped = event.limit_id is None
        code = Cell("403" if stopped else "429", "held" if stopped else "alarm")
        why = "stopped" if stopped else "over budget"
        style: Style = code.style
        styled = tuple(Cell(cell.text, style) for cell in agent)
        return Row(
            key, (Cell(f"{at:%H:%M:%S}", "dim"), code, *styled, Cell(f"{what} {why}{times}", style), Cell(""))
        )
    over = event.outcome == "over_limit"
    tokens = f" {short_count(usage.tokens)} tok" if usage.tokens else ""
    cost = UNKNOWN if usage.cost_nano_usd is None else dollars(usage.cost_nano_usd)
    return Row(
        key,
        (
            Cell(f"{at:%H:%M:%S}", "dim"),
            Cell("over" if over else "ok", "warn" if over else "good"),
            *agent,
            Cell(f"{what}{tokens}", "warn" if over else ""),
            Cell(cost),
        ),
    )


def limit_row(view: LimitView, now_us: int) -> Row:
    """A limit of one agent: what it is, how full, when it resets, and whether it binds or was replaced."""
    limit, state = view.limit, view.state
    key = limit.key
    name = f"{key.metric} per {key.window}" if key.window != "total" else f"{key.metric} in total"
    at = f" at {shown(key.service, width=NAME_WIDTH)}" if key.service else ""
    binds = view.bound is None or view.bound.replaced_by is None
    if state is None:
        return Row(limit.limit_id, (Cell(f"{name}{at}"), Cell(UNKNOWN), Cell(""), Cell(""), Cell("")))
    full = state.percent
    style: Style = "dim" if not binds else "alarm" if full >= 100 else "warn" if full >= WARN_PERCENT else ""
    resets = state.resets_at_us or state.frees_at_us
    return Row(
        limit.limit_id,
        (
            Cell(f"{shown(str(key.subject), width=NAME_WIDTH)}: {name}{at}", style),
            Cell(f"{number(key.metric, state.used)} of {number(key.metric, limit.max)}", style),
            Cell(bar(full, BAR_WIDTH), style),
            Cell(percent(full), style),
            Cell(
                "replaced"
                if not binds
                else "never resets"
                if resets is None
                else f"in {until(resets, now_us)}"
            ),
        ),
    )


def group_row(group: Group) -> Row:
    """Usage of one service, session or the like: what it is, and its totals."""
    name = " · ".join(shown(str(part), width=NAME_WIDTH) for part in group.key if part is not None)
    return Row(
        repr(group.key),
        (
            Cell(name or UNKNOWN),
            Cell(short_count(group.totals.requests)),
            Cell(short_count(group.totals.tokens)),
            Cell(cost_of(group.totals)),
        ),
    )


def audit_row(entry: AuditEntry, zone: tzinfo) -> Row:
    at = datetime.fromtimestamp(entry.seq / 1_000_000, zone)
    words = (entry.actor, entry.action, entry.target, entry.reason or "")
    return Row(
        str(entry.seq),
        (Cell(f"{at:%d %b %H:%M:%S}", "dim"), *(Cell(shown(word, width=NAME_WIDTH)) for word in words)),
    )


def headline(snapshot: Snapshot, range_name: str) -> str:
    """The totals of the range in a line."""
    total = snapshot.total
    parts = [
        f"{range_name}: {cost_of(total)}",
        f"{short_count(total.requests)} requests",
        f"{short_count(total.tokens)} tokens",
    ]
    parts += [f"{short_count(total.rejected)} refused"] if total.rejected else []
    parts += [f"{short_count(total.unpriced)} unpriced"] if total.unpriced else []
    return "  ".join(parts)


def tally(snapshot: Snapshot) -> list[Cell]:
    """How many agents there are, and how many of them need a look."""
    states = Counter(state_of(one) for one in snapshot.agents)
    words = [Cell(counted(len(snapshot.agents), "agent"))]
    for state, name in (("over_limit", "over"), ("warn", "near their limit"), ("stopped", "stopped")):
        if states[state]:
            words.append(Cell(f"{states[state]} {name}", _STATES[state][1]))
    return words


def fleet_line(snapshot: Snapshot, width: int) -> tuple[str, Style] | None:
    """The tightest limit for everybody together, if there is one."""
    states = [view.state for view in snapshot.fleet if view.state is not None]
    if not states:
        return None
    state = max(states, key=lambda one: one.percent)
    key = state.limit.key
    style: Style = "alarm" if state.exceeded else "warn" if state.percent >= WARN_PERCENT else ""
    runs_out = until(state.runs_out_at_us, snapshot.taken_at_us)
    window = "in total" if key.window == "total" else f"per {key.window}"
    text = (
        f"everyone: {number(key.metric, state.used)} of {amount(key.metric, state.limit.max)} {window}"
        f"  {bar(state.percent, width)} {percent(state.percent)}"
    )
    return (text if runs_out == UNKNOWN or state.exceeded else f"{text}  runs out in {runs_out}"), style


def spend_line(snapshot: Snapshot, width: int) -> str:
    """The chart in a line, with what its highest bar is."""
    costs = [cost for _, cost in snapshot.bars]
    return f"{spark(costs, width)}  max {dollars(max(costs[-width:], default=0))}"
