"""The rows of a list, a line each: many clients show their model nothing but a result's text.

Names in them are shown as in `wording`. Who shows the text and the structured result pays for both, so there
is a bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pydantic import PrivateAttr

from agent_meter_mcp.core.figures import during, exact_amount, exact_cost_of
from agent_meter_mcp.core.text import ID_MAX, shown

from .fields import Result
from .wording import group_name, moment, quoted, standing, subject

if TYPE_CHECKING:
    from agent_meter_mcp.core import models, queries

TEXT_MAX = 4000
"""Characters: some forty events."""


class Listed(Result):
    """A list. Its text has its rows, too, which are put into words only when it is asked for."""

    _rows: Callable[[], Sequence[str]] = PrivateAttr(tuple)

    def text(self) -> str:
        return told(self.message, self._rows())


def told(message: str, rows: Sequence[str]) -> str:
    """The message, and as many rows as fit into `TEXT_MAX` characters with it."""
    lines, room = [message], TEXT_MAX - len(message)
    for number, row in enumerate(rows):
        room -= len(row) + 1
        if room < 0:
            left = len(rows) - number
            lines.append(
                f"({left:,} more rows are not in this text: narrow it, or ask for {number} at a time.)"
            )
            break
        lines.append(row)
    return "\n".join(lines)


def of_summary(query: queries.SummaryQuery, answer: queries.Summary) -> list[str]:
    """ "agent 'coder', model 'gpt-5': $2.10, 12 requests, 30,100 tokens"."""
    if not query.group_by:
        return []
    return [f"{group_name(query, group.key)}: {_spent(group.totals)}" for group in answer.groups]


def of_events(page: queries.EventsPage) -> list[str]:
    """ "2026-01-31T18:00:00Z accepted: 'coder' at 'openai', 'chat', 1,500 tokens, 'gpt-5', $0.02, id 01"."""
    return [_event(stored) for stored in page.events]


def of_agents(page: queries.AgentsPage) -> list[str]:
    """ "'coder' active, last seen 2026-01-31T18:00:00Z: $2.10, 12 requests; tightest limit, for ..."."""
    return [_agent(view) for view in page.agents]


def of_limits(views: Sequence[queries.LimitView]) -> list[str]:
    """ "agent 'coder': $2.10 of $5 used today (42 %), resets 2026-02-01T00:00:00Z, limit_id 01a2..."."""
    return [_limit(view) for view in views]


def _spent(totals: queries.Totals) -> str:
    parts = [exact_cost_of(totals), exact_amount("requests", totals.requests)]
    parts += [exact_amount("tokens", totals.tokens)] if totals.tokens else []
    parts += [exact_amount("units", totals.units_micro)] if totals.units_micro else []
    for number, what in (
        (totals.unpriced, "unpriced"),
        (totals.over_limit, "over a limit"),
        (totals.rejected, "refused"),
    ):
        parts += [f"{number:,} {what}"] if number else []
    return ", ".join(parts)


def _event(stored: models.StoredEvent) -> str:
    event, usage, who = stored.event, stored.event.usage, stored.event.who
    times = f" {stored.count:,} times" if stored.count > 1 else ""
    service = "" if who.service is None else f" at {quoted(who.service)}"
    parts = [f"{moment(stored.recorded_at_us)} {stored.outcome}{times}: {quoted(who.agent)}{service}"]
    parts += [quoted(event.operation)] if event.operation else []
    parts += [exact_amount("requests", usage.requests)] if usage.requests != 1 else []
    parts += [exact_amount("tokens", usage.tokens)] if usage.tokens else []
    if usage.units_micro is not None:
        kind = f" ({quoted(usage.unit_type)})" if usage.unit_type else ""
        parts += [f"{exact_amount('units', usage.units_micro)}{kind}"]
    parts += [quoted(usage.model)] if usage.model else []
    if stored.outcome != "rejected":
        cost = usage.cost_nano_usd
        parts += [
            "cost unknown" if cost is None else exact_amount("cost_usd", cost),
            f"id {shown(event.id, width=ID_MAX)}",
        ]
    elif stored.limit_id is None:
        parts += ["by a kill switch"]
    else:
        parts += [f"by limit_id {stored.limit_id}"]
    return ", ".join(parts)


def _agent(view: queries.AgentView) -> str:
    agent = view.agent
    known = {"tier": agent.tier, "owner": agent.owner, "parent": agent.parent}
    told = "".join(f", {field} {quoted(value)}" for field, value in known.items() if value is not None)
    seen = "" if view.last_seen_us is None else f", last seen {moment(view.last_seen_us)}"
    text = f"{quoted(agent.agent_id)} {view.status}{told}{seen}: {_spent(view.totals)}"
    if view.tightest is None:
        return text
    return f"{text}; tightest limit, for {subject(view.tightest.limit)}: {standing(view.tightest)}"


def _limit(view: queries.LimitView) -> str:
    limit, state = view.limit, view.state
    if state is None:
        most = f"at most {exact_amount(limit.key.metric, limit.max)} {during(limit.key.window)}"
        text = f"{subject(limit)}: {most}, nothing used yet"
    else:
        is_its_own = state.scope in ("", limit.key.subject.name)
        scope = "" if is_its_own else f" (fullest: {quoted(state.scope)})"
        text = f"{subject(limit)}{scope}: {standing(state)}"
        text += "" if state.resets_at_us is None else f", resets {moment(state.resets_at_us)}"
    text += ", only warns" if limit.action == "warn" else ""
    replaced_by = None if view.bound is None else view.bound.replaced_by
    text += "" if replaced_by is None else f", does not bind: replaced by {replaced_by}"
    return f"{text}, limit_id {limit.limit_id}"
