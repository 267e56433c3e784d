"""`summary`, `events`, `agents`, `audit`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from agent_meter_mcp.core.queries import TIME_DIMENSIONS
from agent_meter_mcp.faces.wire import queries as take
from agent_meter_mcp.faces.wire import reports as give
from agent_meter_mcp.faces.wire.fields import optional_time, time_text
from agent_meter_mcp.settings import load_settings

from .options import from_model, sent
from .output import as_json, count, dollars, table
from .session import with_ledger

if TYPE_CHECKING:
    from agent_meter_mcp.core.models import AuditEntry, StoredEvent
    from agent_meter_mcp.core.queries import AgentView, Summary, SummaryQuery, Totals

NOTHING = "—"
_json = click.option("--json", "json_", is_flag=True, help="Answer in JSON.")


@click.command()
@from_model(take.GetUsageSummary)
@_json
def summary(json_: bool, **values: Any) -> None:
    """Totals of usage, grouped: today by agent, if nothing else is said.

    \b
    Examples:
      agent-meter summary
      agent-meter summary --group-by model --group-by day --window month
      agent-meter summary --since 2026-11-01T00:00:00Z --agent research-bot --include-children
    """
    arguments = sent(take.GetUsageSummary, {**values, "group_by": values["group_by"] or ("agent",)})
    zone = load_settings().timezone

    async def ask(ledger: Any, caller: Any) -> tuple[SummaryQuery, Summary]:
        query = arguments.query(ledger.now_us(), zone)
        return query, await ledger.summary(caller, query)

    query, answer = with_ledger(ask)
    result = give.UsageSummary.of_query(query, answer)
    if json_:
        as_json(result)
        return
    rows = [
        [*(part or NOTHING for part in group.key.values()), *_figures(found.totals)]
        for group, found in zip(result.groups, answer.groups, strict=True)
    ]
    rows = [
        [_day(name, cell) for name, cell in zip([*query.group_by, *_FIGURES], row, strict=True)]
        for row in rows
    ]
    total = ["total", *[""] * (len(query.group_by) - 1), *_figures(answer.total)]
    table([*query.group_by, *_FIGURES], [*rows, total], left=len(query.group_by))
    if answer.groups_left_out:
        click.echo(f"and {count(answer.groups_left_out)} more groups: use --limit")


_FIGURES = ("requests", "tokens", "cost", "unpriced", "over", "refused")


def _figures(totals: Totals) -> list[str]:
    return [
        count(totals.requests),
        count(totals.tokens),
        dollars(totals.cost_nano_usd),
        *(
            count(number) if number else NOTHING
            for number in (totals.unpriced, totals.over_limit, totals.rejected)
        ),
    ]


def _day(name: str, cell: str) -> str:
    """A period without the part of its start that says nothing."""
    return cell[:16].removesuffix("T00:00").replace("T", " ") if name in TIME_DIMENSIONS else cell


@click.command()
@from_model(take.ListUsageEvents)
@_json
def events(json_: bool, **values: Any) -> None:
    """The single usage events, newest first, refused ones too.

    \b
    Example:
      agent-meter events --agent rogue-bot --outcome rejected --limit 20
    """
    query = sent(take.ListUsageEvents, values).query()

    async def ask(ledger: Any, caller: Any) -> Any:
        return await ledger.events(caller, query)

    page = with_ledger(ask)
    if json_:
        as_json(give.UsageEvents.of(page))
        return
    headers = ["time", "outcome", "agent", "service", "operation", "tokens", "cost"]
    table(headers, [_event_row(event) for event in page.events], left=5)
    if page.next_seq is not None:
        click.echo(f"older ones: --cursor {page.next_seq}")


def _event_row(stored: StoredEvent) -> list[str]:
    event, usage = stored.event, stored.event.usage
    outcome = {"accepted": "ok", "over_limit": "OVER", "rejected": "429"}[stored.outcome]
    return [
        time_text(stored.recorded_at_us)[:19].replace("T", " "),
        outcome if stored.count == 1 else f"{outcome} x{stored.count}",
        event.who.agent,
        event.who.service or NOTHING,
        event.operation or NOTHING,
        NOTHING if usage.tokens is None else count(usage.tokens),
        NOTHING if usage.cost_nano_usd is None else dollars(usage.cost_nano_usd),
    ]


@click.command()
@from_model(take.ListAgents)
@_json
def agents(json_: bool, **values: Any) -> None:
    """Who uses: status, spend over all time, tightest limit, last seen.

    \b
    Example:
      agent-meter agents --status over_limit
    """
    query = sent(take.ListAgents, values).query()

    async def ask(ledger: Any, caller: Any) -> Any:
        return await ledger.agents(caller, query)

    page = with_ledger(ask)
    if json_:
        as_json(give.Agents.of(page))
        return
    headers = ["agent", "status", "tightest limit", "requests", "cost", "refused", "last seen"]
    table(headers, [_agent_row(view) for view in page.agents], left=3)
    if page.next_agent is not None:
        click.echo("more: --cursor with the last agent's name")


def _agent_row(view: AgentView) -> list[str]:
    tightest = NOTHING
    if view.tightest is not None:
        key = view.tightest.limit.key
        tightest = f"{view.tightest.percent:.0f} % of {key.metric} per {key.window}"
    seen = optional_time(view.last_seen_us)
    return [
        view.agent.agent_id,
        view.status.replace("_", " "),
        tightest,
        count(view.totals.requests),
        dollars(view.totals.cost_nano_usd),
        count(view.totals.rejected) if view.totals.rejected else NOTHING,
        NOTHING if seen is None else seen[:19].replace("T", " "),
    ]


@click.command()
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="How many at most."
)
@_json
def audit(limit: int, json_: bool) -> None:
    """Who changed what, newest first."""

    async def ask(ledger: Any, caller: Any) -> list[AuditEntry]:
        return await ledger.audit(caller, None, limit)

    entries = with_ledger(ask)
    if json_:
        as_json({"entries": [{**entry.as_dict(), "at": time_text(entry.seq)} for entry in entries]})
        return
    table(
        ["time", "actor", "action", "target", "reason"],
        [
            [
                time_text(entry.seq)[:19].replace("T", " "),
                entry.actor,
                entry.action,
                entry.target,
                entry.reason or "",
            ]
            for entry in entries
        ],
        left=5,
    )
