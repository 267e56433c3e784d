"""`summary` and `reservations`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from agent_meter_mcp.core import check
from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.core.figures import UNKNOWN, cost_of, counted, dollars, length, number
from agent_meter_mcp.core.queries import DIMENSIONS, GROUPS_MAX, ORDERS, TIME_DIMENSIONS, SummaryQuery
from agent_meter_mcp.core.text import shown
from agent_meter_mcp.core.windows import check_zone, zone_of
from agent_meter_mcp.runtime import system_clock_us

from . import options
from .doubts import doubts, say
from .table import Cell, Column, table
from .times import moment, parse_span, period_name, zone_name

if TYPE_CHECKING:
    from datetime import tzinfo

    from agent_meter_mcp.core.models import Reservation
    from agent_meter_mcp.core.queries import Group, Summary, Totals
    from agent_meter_mcp.core.roles import Caller
    from agent_meter_mcp.ledger import Ledger

    from .session import Session


@options.command(
    "summary",
    "agent-meter summary",
    "agent-meter summary --window month --group-by model --group-by day",
    "agent-meter summary --since 2026-01-01 --until 2026-02-01 --json",
)
@click.option(
    "--group-by",
    type=click.Choice(DIMENSIONS),
    multiple=True,
    metavar="DIMENSION",
    help=f"Repeatable; agent if left out. One of {', '.join(DIMENSIONS)}.",
)
@options.span
@options.filters
@click.option(
    "--order-by",
    type=click.Choice(ORDERS),
    metavar="FIGURE",
    help=f"One of {', '.join(ORDERS)}; cost_usd if left out, key for times.",
)
@options.page_limit(100, GROUPS_MAX)
@options.as_json
@options.pass_session
def summary(session: Session, /, as_json: bool, **given: Any) -> None:
    """Totals of usage, in groups: today's by agent, unless you say otherwise."""
    zone = check_zone(given["timezone"] or session.settings.timezone)
    query = summary_query(given, zone, system_clock_us())

    async def ask(ledger: Ledger, caller: Caller) -> tuple[Summary, list[str]]:
        found = await ledger.summary(caller, query)
        return found, [] if found.groups else await doubts(ledger, caller, given)

    answer, notes = session.ask(ask)
    say(notes)
    if as_json:
        from agent_meter_mcp.faces.wire.reports import UsageSummary

        from .document import print_document

        print_document(UsageSummary.of_query(query, answer))
        return
    click.echo(_heading(query, zone_of(zone)))
    if not answer.groups:
        click.echo("Nothing was used.")
        return
    click.echo(_totals_table(query, answer, zone_of(zone)))
    if answer.groups_left_out:
        click.echo(f"{counted(answer.groups_left_out, 'more group')} left out: raise --limit.")


def summary_query(given: dict[str, Any], zone: str, now_us: int) -> SummaryQuery:
    """What the options ask for. Raises InvalidInput."""
    group_by = given["group_by"] or ("agent",)
    if len(set(group_by)) != len(group_by):
        raise InvalidInput("group_by", "names a dimension twice")
    chosen = options.filter_of(given, *parse_span(given, zone, now_us, default="day"))
    order_by = given["order_by"] or ("key" if group_by[0] in TIME_DIMENSIONS else "cost_usd")
    return SummaryQuery(chosen, group_by, zone, order_by, check.page_size(given["limit"], GROUPS_MAX))


def _heading(query: SummaryQuery, zone: tzinfo) -> str:
    since_us, until_us = query.filter.since_us, query.filter.until_us
    since = "the beginning" if since_us is None else moment(since_us, zone)
    until = "now" if until_us is None else moment(until_us, zone)
    return f"Usage from {since} to {until} ({zone_name(query.zone)})"


_FIGURES: tuple[tuple[Column, str], ...] = (
    (Column("Events", right=True, drop=3), "events"),
    (Column("Requests", right=True, last=1), "requests"),
    (Column("Units", right=True, drop=1), "units"),
    (Column("Tokens", right=True, last=2), "tokens"),
    (Column("Cost", right=True), "cost"),
    (Column("No price", right=True, drop=2), "unpriced"),
    (Column("Over", right=True, drop=4), "over_limit"),
    (Column("Refused", right=True), "rejected"),
)
_ALWAYS = ("requests", "tokens", "cost")


def _totals_table(query: SummaryQuery, answer: Summary, zone: tzinfo) -> str:
    """Figures that are nought everywhere, and events where each has one request, are left out."""
    wanted = [
        (column, figure)
        for column, figure in _FIGURES
        if figure in _ALWAYS
        or (_value(answer.total, figure) and not (figure == "events" and _one_each(answer)))
    ]
    columns = [Column(dimension.capitalize(), shrinks=10) for dimension in query.group_by]
    rows = [
        [*_key(query, group, zone), *(_figure(group.totals, figure) for _, figure in wanted)]
        for group in answer.groups
    ]
    total = [
        "Total",
        *[""] * (len(query.group_by) - 1),
        *(_figure(answer.total, figure) for _, figure in wanted),
    ]
    return table([*columns, *(column for column, _ in wanted)], rows, total if len(rows) > 1 else None)


def _one_each(answer: Summary) -> bool:
    return all(group.totals.events == group.totals.requests for group in answer.groups)


def _value(totals: Totals, figure: str) -> int:
    return totals.units_micro if figure == "units" else getattr(totals, figure)


def _figure(totals: Totals, figure: str) -> Cell:
    if figure == "cost":
        return Cell(cost_of(totals))
    value = _value(totals, figure)
    style = (
        "alarm" if value and figure in ("rejected", "over_limit") else "warn" if figure == "unpriced" else ""
    )
    return Cell(number("units" if figure == "units" else "requests", value), style if value else "dim")


def _key(query: SummaryQuery, group: Group, zone: tzinfo) -> list[Cell]:
    cells: list[Cell] = []
    for dimension, value in zip(query.group_by, group.key, strict=True):
        if value is None:
            cells.append(Cell(UNKNOWN, "dim"))
        elif isinstance(value, int):
            cells.append(Cell(period_name(dimension, value, zone)))
        else:
            cells.append(Cell(shown(value)))
    return cells


@options.command("reservations", "agent-meter reservations", "agent-meter reservations --json")
@options.as_json
@options.pass_session
def reservations(session: Session, as_json: bool) -> None:
    """Budget that is held for work in progress, the oldest first."""

    async def ask(ledger: Ledger, caller: Caller) -> tuple[list[Reservation], int]:
        return await ledger.reservations(caller), ledger.now_us()

    held, now_us = session.ask(ask)
    if as_json:
        from agent_meter_mcp.faces.wire.records import Holds

        from .document import print_document

        print_document(Holds.of(held, len(held)))
        return
    if not held:
        click.echo("Nothing is held.")
        return
    columns = [
        Column("Agent", shrinks=10),
        Column("Service", shrinks=8),
        Column("Operation", shrinks=8, drop=1),
        Column("Units", right=True, rare=True),
        Column("Tokens", right=True),
        Column("Cost", right=True),
        Column("Ends in", right=True),
        Column("Reservation", drop=2),
    ]
    rows = [
        [
            shown(one.who.agent),
            shown(one.who.service or UNKNOWN),
            shown(one.operation or UNKNOWN),
            number("units", one.usage.units_micro),
            number("tokens", one.usage.tokens),
            dollars(one.usage.cost_nano_usd),
            length(one.expires_at_us - now_us),
            shown(one.reservation_id),
        ]
        for one in held
    ]
    click.echo(table(columns, rows))
