"""All agents together: what they use, the limit that is nearest, and what needs a look. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from agent_meter_mcp.core.decide import tightest
from agent_meter_mcp.core.figures import UNKNOWN, cost_of, counted, dollars, per, percent
from agent_meter_mcp.core.text import shown

from .format import bar, brief, short_count, spark, until
from .happening import alert_line, limits_by_id, why_refused
from .roster import STATES, state_of
from .view import NAME_WIDTH, Cell, fullness, moment

if TYPE_CHECKING:
    from datetime import tzinfo

    from agent_meter_mcp.core.decide import LimitState
    from agent_meter_mcp.core.queries import AgentView
    from agent_meter_mcp.sources.base import Snapshot

    from .view import Style

KINDS = (
    ("input_tokens", "in"),
    ("output_tokens", "out"),
    ("cache_read_tokens", "cache read"),
    ("cache_write_tokens", "written"),
    ("cache_write_1h_tokens", "written 1 h"),
)
ALARM_US = 10 * 60 * 1_000_000
"""A refusal is an alarm for so long."""


def headline(snapshot: Snapshot, range_name: str) -> str:
    """The totals of the range in a line."""
    total = snapshot.total
    parts = [
        f"{range_name}: {cost_of(total)}",
        f"{short_count(total.requests)} request{'' if total.requests == 1 else 's'}",
        f"{short_count(total.tokens)} tokens",
    ]
    return "  ".join(parts)


def exceptions(snapshot: Snapshot) -> str:
    """What of it was not as it should be; nothing where all was."""
    total = snapshot.total
    counts = ((total.rejected, "refused"), (total.unpriced, "unpriced"), (total.over_limit, "over"))
    return "  ".join(f"{short_count(count)} {name}" for count, name in counts if count)


def token_kinds(snapshot: Snapshot) -> str:
    """The tokens of the range, kind by kind; those of which there are none are left out."""
    counts = [(getattr(snapshot.total, field), name) for field, name in KINDS]
    return "  ".join(f"{short_count(count)} {name}" for count, name in counts if count)


class Tally:
    """How many agents there are, and how many of them need a look. Of thousands, few have changed."""

    def __init__(self) -> None:
        self._agents: tuple[AgentView, ...] = ()
        self._states: Counter[str] = Counter()

    def of(self, agents: tuple[AgentView, ...]) -> list[Cell]:
        before, self._agents, states = self._agents, agents, self._states
        if len(before) != len(agents):
            states = self._states = Counter(map(state_of, agents))
        elif before is not agents:
            for old, new in zip(before, agents, strict=True):
                if old is not new:
                    states[state_of(old)] -= 1
                    states[state_of(new)] += 1
        words = [Cell(counted(len(agents), "agent"))]
        for state, name in (("over_limit", "over"), ("warn", "near their limit"), ("stopped", "stopped")):
            if states[state]:
                words.append(Cell(f"{states[state]} {name}", STATES[state][1]))
        return words


def services_stopped(snapshot: Snapshot) -> list[Cell]:
    """How many, if any: no row of an agent tells of it, and a line of its own is not always to be had."""
    count = sum(switch.kind == "service" for switch in snapshot.switches)
    return [Cell(f"{counted(count, 'service')} stopped", "held")] if count else []


def fleet_state(snapshot: Snapshot) -> LimitState | None:
    """The tightest limit for everybody together, if there is one."""
    return tightest(view.state for view in snapshot.fleet if view.state is not None)


def fleet_line(snapshot: Snapshot, width: int) -> tuple[str, Style] | None:
    """How it stands, in a line with a bar of `width`."""
    state = fleet_state(snapshot)
    if state is None:
        return None
    text = f"{_used(state)}  {bar(state.percent, width)} {percent(state.percent)}"
    runs_out = until(state.runs_out_at_us, snapshot.taken_at_us)
    is_calm = runs_out == UNKNOWN or state.exceeded
    return (text if is_calm else f"{text}  runs out in {runs_out}"), fullness(state.percent)


def fleet_lines(snapshot: Snapshot, width: int) -> tuple[list[str], Style] | None:
    """As `fleet_line`, where there is room for more: with when it resets, and how fast it is used."""
    state = fleet_state(snapshot)
    if state is None:
        return None
    now_us, metric = snapshot.taken_at_us, state.limit.key.metric
    resets_us = state.leaves_at_us
    told = [percent(state.percent)]
    if resets_us is not None:
        told += [f"{'resets' if state.resets_at_us else 'frees'} in {until(resets_us, now_us)}"]
    elif state.limit.key.window == "total":
        told += ["never resets"]
    pace = [f"burn {brief(metric, state.burn_per_hour)}/h"]
    if state.exceeded:
        pace += ["used up"]
    elif state.runs_out_at_us is not None:
        pace += [f"runs out in {until(state.runs_out_at_us, now_us)}"]
    full = bar(state.percent, max(width - len("  ".join(told)) - 2, 10))
    return [_used(state), f"{full}  {'  '.join(told)}", "  ".join(pace)], fullness(state.percent)


def _used(state: LimitState) -> str:
    key, metric = state.limit.key, state.limit.key.metric
    at = f" at {shown(key.service, width=NAME_WIDTH)}" if key.service else ""
    used, most = brief(metric, state.used + state.held), brief(metric, state.limit.max)
    what = "" if metric == "cost_usd" else f" {metric}"
    return f"everyone: {used} of {most}{what} {per(key.window)}{at}"


def spend_line(snapshot: Snapshot, width: int) -> str:
    """The chart in a line, with what its highest bar is."""
    costs = [cost for _, cost in snapshot.bars]
    return f"{spark(costs, width)}  max {dollars(max(costs[-width:], default=0))}"


def alarms(snapshot: Snapshot, zone: tzinfo, most: int) -> list[Cell]:
    """At most so many lines of what needs a look: a refusal just now, what is stopped, the newest alerts."""
    limits = limits_by_id(snapshot.limits)
    lines = _switches(snapshot, zone)
    refused = next((event for event in snapshot.events if event.outcome == "rejected"), None)
    if refused is not None and snapshot.taken_at_us - refused.seq <= ALARM_US:
        name = shown(refused.event.who.agent, width=NAME_WIDTH)
        style: Style = "held" if refused.limit_id is None else "alarm"
        when = moment(refused.seq, zone, "%H:%M:%S")
        lines.insert(
            0, Cell(f"✖ {when}  {name} was refused: {why_refused(refused, limits, snapshot.switches)}", style)
        )
    lines += [alert_line(view, zone) for view in snapshot.alerts[:most]]
    return lines[:most]


def _switches(snapshot: Snapshot, zone: tzinfo) -> list[Cell]:
    """Services and everything; which agents are stopped is in their table."""
    lines: list[Cell] = []
    for switch in snapshot.switches:
        when = moment(switch.engaged_at_us, zone, "%d %b %H:%M")
        what, who, why = (
            shown(word, width=NAME_WIDTH) for word in (str(switch), switch.engaged_by, switch.reason)
        )
        if switch.kind != "agent":
            lines.append(Cell(f"■ {when}  {what} is stopped by {who}: {why}", "held"))
    return lines
