"""`events` and `agents`: lists that are read page by page."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click

from agent_meter_mcp.core import check
from agent_meter_mcp.core.figures import UNKNOWN, UNLIMITED, amount, cost_of, dollars, number, per
from agent_meter_mcp.core.models import Who
from agent_meter_mcp.core.queries import AGENTS_PAGE_MAX, EVENTS_PAGE_MAX, STATUSES, AgentsQuery, EventsQuery
from agent_meter_mcp.core.text import optional_name, shown
from agent_meter_mcp.core.windows import check_zone, zone_of
from agent_meter_mcp.runtime import system_clock_us

from . import options
from .doubts import doubts, say
from .figures import place
from .table import Cell, Column, fullness, table
from .times import moments, parse_span, zone_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent_meter_mcp.core.models import StoredEvent
    from agent_meter_mcp.core.queries import AgentsPage, AgentView, EventsPage
    from agent_meter_mcp.core.roles import Caller
    from agent_meter_mcp.ledger import Ledger

    from .session import Session

_STATUS_STYLES = {"active": "good", "idle": "", "over_limit": "alarm", "stopped": "alarm"}
_OUTCOMES = {
    "accepted": Cell("ok"),
    "over_limit": Cell("over", "alarm"),
    "rejected": Cell("refused", "alarm"),
}


@options.command(
    "events",
    "agent-meter events --limit 50",
    "agent-meter events --agent coder --outcome rejected --since today",
)
@options.span
@options.filters
@options.page_limit(20, EVENTS_PAGE_MAX)
@options.cursor
@options.as_json
@options.pass_session
def events(session: Session, /, as_json: bool, **given: Any) -> None:
    """The usage events themselves, newest first. Refused ones are there too, folded by the second."""
    zone = check_zone(given["timezone"] or session.settings.timezone)

    now_us = system_clock_us()
    chosen = options.filter_of(given, *parse_span(given, zone, now_us))
    size, before = check.page_size(given["limit"], EVENTS_PAGE_MAX), check.before_seq(given["cursor"])

    async def ask(ledger: Ledger, caller: Caller) -> tuple[EventsPage, dict[str, str], list[str]]:
        page = await ledger.events(caller, EventsQuery(chosen, size, before))
        asks_why = not as_json and any(event.outcome == "rejected" for event in page.events)
        notes = [] if page.events else await doubts(ledger, caller, given)
        return page, await _limits_by_id(ledger, caller) if asks_why else {}, notes

    page, limits, notes = session.ask(ask)
    say(notes)
    if as_json:
        from agent_meter_mcp.faces.wire.reports import UsageEvents

        from .document import print_document

        print_document(UsageEvents.of(page))
        return
    if not page.events:
        click.echo("No usage matches.")
        return
    click.echo(_events_table(page.events, limits, zone, now_us))
    if page.next_seq is not None:
        click.echo(f"Older ones: --cursor {page.next_seq}")


async def _limits_by_id(ledger: Ledger, caller: Caller) -> dict[str, str]:
    """What each limit is, in words; for an agent, of those that bind it."""
    who = None if caller.bound_to is None or caller.role != "agent" else Who(caller.bound_to)
    limits = [view.limit for view in await ledger.limits(caller, who)]
    return {one.limit_id: f"{place(one.key)}: {one.key.metric} {per(one.key.window)}" for one in limits}


def _events_table(found: tuple[StoredEvent, ...], limits: Mapping[str, str], zone: str, now_us: int) -> str:
    when = moments([event.recorded_at_us for event in found], zone_of(zone), now_us)
    columns = [
        Column(f"Time ({zone_name(zone)})"),
        Column("Agent", shrinks=8),
        Column("Service", shrinks=6),
        Column("Operation", shrinks=6, drop=2),
        Column("Model", shrinks=8, drop=1),
        Column("Tokens", right=True, last=3),
        Column("Cost", right=True, last=1),
        Column("Outcome"),
        Column("Refused by", shrinks=12, last=2, rare=True),
        Column("Id", spare=True),
    ]
    return table(columns, [_event_row(event, limits, when) for event in found])


def _event_row(
    stored: StoredEvent, limits: Mapping[str, str], when: Callable[[int | None], str]
) -> list[str | Cell]:
    event, usage = stored.event, stored.event.usage
    outcome = _OUTCOMES[stored.outcome]
    return [
        when(stored.recorded_at_us),
        shown(event.who.agent),
        shown(event.who.service or UNKNOWN),
        shown(event.operation or UNKNOWN),
        shown(usage.model or UNKNOWN),
        number("tokens", usage.tokens),
        dollars(usage.cost_nano_usd),
        outcome if stored.count == 1 else Cell(f"{outcome.text} ×{stored.count:,}", outcome.style),
        _refused_by(stored, limits),
        shown(event.id),
    ]


def _refused_by(stored: StoredEvent, limits: Mapping[str, str]) -> str:
    if stored.outcome != "rejected":
        return ""
    if stored.limit_id is None:
        return "a kill switch"
    return limits.get(stored.limit_id, "a limit that is gone")


@options.command("agents", "agent-meter agents", "agent-meter agents --status over_limit")
@click.option(
    "--status", type=click.Choice(STATUSES), metavar="STATUS", help=f"One of {', '.join(STATUSES)}."
)
@click.option("--tier", metavar="NAME", help="In this trust tier.")
@click.option("--owner", metavar="NAME", help="That act for this person or team.")
@options.page_limit(50, AGENTS_PAGE_MAX)
@options.cursor
@options.timezone
@options.as_json
@options.pass_session
def agents(session: Session, /, as_json: bool, **given: Any) -> None:
    """Who uses: status, spend over all time, and the limit with the least room."""
    zone = check_zone(given["timezone"] or session.settings.timezone)
    for field in ("tier", "owner", "cursor"):
        optional_name(given[field], field)
    query = AgentsQuery(
        status=given["status"],
        tier=given["tier"],
        owner=given["owner"],
        after_agent=given["cursor"],
        limit=check.page_size(given["limit"], AGENTS_PAGE_MAX),
    )

    async def ask(ledger: Ledger, caller: Caller) -> tuple[AgentsPage, int]:
        return await ledger.agents(caller, query), ledger.now_us()

    page, now_us = session.ask(ask)
    if as_json:
        from agent_meter_mcp.faces.wire.reports import Agents

        from .document import print_document

        print_document(Agents.of(page))
        return
    if not page.agents:
        click.echo("No agent matches.")
        return
    click.echo(_agents_table(page.agents, zone, now_us))
    if page.next_agent is not None:
        click.echo(f"More: --cursor {shlex.quote(shown(page.next_agent))}")


def _agents_table(found: tuple[AgentView, ...], zone: str, now_us: int) -> str:
    seen = [view.last_seen_us for view in found if view.last_seen_us is not None]
    when = moments(seen, zone_of(zone), now_us)
    columns = [
        Column("Agent", shrinks=20),
        Column("Name", shrinks=8, drop=4, rare=True),
        Column("Status"),
        Column(f"Last seen ({zone_name(zone)})", drop=2),
        Column("Tier", shrinks=6, drop=5),
        Column("Owner", shrinks=6, drop=6),
        Column("Parent", shrinks=6, drop=7),
        Column("Requests", right=True, drop=3),
        Column("Cost", right=True),
        Column("Tightest limit", right=True, drop=1),
        Column("Full", right=True),
    ]
    return table(columns, [_agent_row(view, when) for view in found])


def _agent_row(view: AgentView, when: Callable[[int | None], str]) -> list[str | Cell]:
    agent, state = view.agent, view.tightest
    limit, full = Cell(UNLIMITED, "dim"), Cell(UNKNOWN, "dim")
    if state is not None:
        metric = state.limit.key.metric
        taken, most = number(metric, state.used + state.held), amount(metric, state.limit.max)
        limit = Cell(f"{taken} of {most} {per(state.limit.key.window)}")
        full = fullness(state.percent)
    return [
        shown(agent.agent_id),
        shown(agent.name or UNKNOWN),
        Cell(view.status.replace("_", " "), _STATUS_STYLES[view.status]),
        when(view.last_seen_us),
        shown(agent.tier or UNKNOWN),
        shown(agent.owner or UNKNOWN),
        shown(agent.parent or UNKNOWN),
        number("requests", view.totals.requests),
        cost_of(view.totals),
        limit,
        full,
    ]
