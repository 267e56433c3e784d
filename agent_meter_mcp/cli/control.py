"""`limit`: what may be used; and `agent`: who is who."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from agent_meter_mcp.core import check
from agent_meter_mcp.core.errors import InvalidInput, NotFound
from agent_meter_mcp.core.figures import UNKNOWN, length, number, per
from agent_meter_mcp.core.limits import concerns
from agent_meter_mcp.core.models import ACTIONS, LIMIT_FIELDS, METRICS, LimitKey, Who
from agent_meter_mcp.core.money import typed_maximum
from agent_meter_mcp.core.text import ID_MAX, name, optional_name, shown

from . import options
from .doubts import doubts, say
from .figures import maximum, place, standing
from .table import Cell, Column, fullness, table

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent_meter_mcp.core.commands import LimitSet
    from agent_meter_mcp.core.decide import LimitState
    from agent_meter_mcp.core.models import Agent, Limit
    from agent_meter_mcp.core.queries import LimitView
    from agent_meter_mcp.core.roles import Caller
    from agent_meter_mcp.ledger import Ledger

    from .session import Session

F = TypeVar("F", bound="Callable[..., Any]")

_key_options = (
    options.name_option(
        "--agent", "agent", 'For this agent and those it spawned; "*" for each agent separately.'
    ),
    click.option("--tier", metavar="NAME", help="For each agent in this trust tier."),
    options.name_option("--project", "project", 'For this project; "*" for each one.'),
    options.name_option("--session", "session", 'For this session; "*" for each one.'),
    options.name_option("--service", "service", "Counting usage of this service only."),
)


def _counted(*, required: bool) -> Callable[[F], F]:
    """What a limit counts, and over which time."""
    windows = "1s to 366d, or hour, day, week, month, year, total."
    return options.stacked(
        click.option("--metric", type=click.Choice(METRICS), required=required, metavar="METRIC",
                     help=f"One of {', '.join(METRICS)}."),
        click.option("--window", required=required, metavar="WINDOW", help=windows),
    )  # fmt: skip


@click.group("limit", context_settings={"help_option_names": options.HELP_NAMES})
def limit() -> None:
    """Set, list and remove limits.

    A limit without a subject is for everyone together. The most specific default binds an agent: its own
    limit, else its tier's, else the one for each agent.
    """


@options.command_of(
    limit,
    "set",
    "agent-meter limit set --agent coder --metric cost_usd --window day --max 5",
    'agent-meter limit set --agent "*" --metric requests --window 1m --max 60',
    "agent-meter limit set --metric cost_usd --window 7d --max 500 --action warn",
)
@options.stacked(*_key_options)
@_counted(required=True)
@click.option("--max", required=True, metavar="NUMBER", help="Requests, units, tokens or dollars.")
@click.option(
    "--action",
    type=click.Choice(ACTIONS),
    metavar="ACTION",
    help="reject what does not fit (the default), or only warn.",
)
@click.option("--timezone", metavar="ZONE", help="IANA zone of a calendar window. [UTC]")
@click.option(
    "--thresholds",
    "--threshold",
    type=int,
    multiple=True,
    metavar="PERCENT",
    help="Raise an alert when so much is used; repeatable. [50, 80, 100]",
)
@options.as_json
@options.pass_session
def set_limit(session: Session, /, as_json: bool, **given: Any) -> None:
    """Create a limit, or change it.

    One with the same subject, service, metric and window is changed; what is left out stays as it is.
    """
    key = _key_of(given)
    most = typed_maximum(key.metric, given["max"])

    async def work(ledger: Ledger, caller: Caller) -> tuple[LimitSet, LimitState | None, list[str]]:
        answer, state = await ledger.set_limit(
            caller,
            key,
            most,
            action=given["action"],
            zone=given["timezone"],
            thresholds=given["thresholds"] or None,
        )
        # A limit may be there before its agent; but not beside one that is called nearly the same.
        return answer, state, await doubts(ledger, caller, given) if answer.status == "created" else []

    answer, state, notes = session.ask(work)
    say(notes)
    if as_json:
        from agent_meter_mcp.faces.wire.controls import LimitSet as LimitSetResult

        from .document import print_document

        print_document(LimitSetResult.of(answer, state))
        return
    more = "more is refused" if answer.limit.action == "reject" else "more is allowed, with a warning"
    click.echo(f"{answer.status}: {maximum(answer.limit)}; {more}")
    click.echo("now: nobody has used any of it" if state is None else f"now: {standing(state)}")


def _key_of(given: dict[str, Any]) -> LimitKey:
    """The limit that the options name. Raises InvalidInput."""
    for field in ("metric", "window"):
        if given[field] is None:
            raise InvalidInput(field, "is required, unless LIMIT_ID names the limit: see limit list --json")
    subject = check.subject(**{field: given[field] for field in LIMIT_FIELDS})
    return LimitKey(subject, given["service"], given["metric"], given["window"])


@options.command_of(limit, "list", "agent-meter limit list", "agent-meter limit list --agent coder --json")
@options.name_option("--agent", "agent", "Those that match this agent, and whether they bind it.")
@options.name_option("--service", "service", "Those that count usage of this service.")
@options.name_option("--project", "project", "Those that count usage for this project.")
@options.name_option("--session", "session", "Those that count usage in this session.")
@options.as_json
@options.pass_session
def list_limits(session: Session, /, as_json: bool, **given: Any) -> None:
    """All limits, or those that match an agent, and how full they are."""
    for field in ("project", "session"):
        optional_name(given[field], field, maximum=ID_MAX)
    optional_name(given["service"], "service")

    async def work(ledger: Ledger, caller: Caller) -> tuple[list[LimitView], int, list[str]]:
        agent = caller.bound_to if given["agent"] is None else given["agent"]
        who = None
        if agent is not None:
            who = Who(name(agent, "agent"), given["service"], None, given["project"], given["session"])
        views = await ledger.limits(caller, who)
        named = given["service"], given["project"], given["session"]
        found = [view for view in views if concerns(view.limit, *named)]
        return found, ledger.now_us(), await doubts(ledger, caller, given)

    views, now_us, notes = session.ask(work)
    say(notes)
    if as_json:
        from agent_meter_mcp.faces.wire.controls import Limits

        from .document import print_document

        print_document(Limits.of(views))
        return
    click.echo(_limits_table(views, now_us) if views else "No limit: everything is allowed, and metered.")


def _limits_table(views: list[LimitView], now_us: int) -> str:
    columns = [
        Column("For", shrinks=26),
        Column("Limit"),
        Column("Used", right=True, last=2),
        Column("Held", right=True, drop=2),
        Column("Max", right=True, last=1),
        Column("Full", right=True),
        Column("Frees in", right=True, drop=1),
        Column("Note", shrinks=9, last=3, rare=True),
        Column("Id", drop=3),
    ]
    return table(columns, [_limit_row(view, now_us) for view in views])


def _limit_row(view: LimitView, now_us: int) -> list[str | Cell]:
    one, state = view.limit, view.state
    metric = one.key.metric
    frees_us = None if state is None else state.leaves_at_us
    whose = f" ({shown(state.scope)})" if state is not None and state.scope else ""
    notes = ["warns only"] if one.action == "warn" else []
    if one.zone != "UTC":
        notes.append(one.zone)
    if view.is_replaced:
        notes.append("replaced by a more specific one")
    return [
        place(one.key) + whose,
        f"{metric} {per(one.key.window)}",
        number(metric, 0 if state is None else state.used),
        number(metric, 0 if state is None else state.held),
        number(metric, one.max),
        fullness((0.0 if one.max else 100.0) if state is None else state.percent),
        UNKNOWN if frees_us is None else length(frees_us - now_us, parts=1, least=2),
        ", ".join(notes),
        one.limit_id,
    ]


@options.command_of(
    limit,
    "remove",
    "agent-meter limit remove --agent coder --metric cost_usd --window day",
    "agent-meter limit remove 019ab3c0-7d2e-7cc1-9f5a-1b2c3d4e5f60",
)
@click.argument("limit_id", metavar="[LIMIT_ID]", required=False)
@options.stacked(*_key_options)
@_counted(required=False)
@options.as_json
@options.pass_session
def remove_limit(session: Session, /, as_json: bool, limit_id: str | None, **given: Any) -> None:
    """Remove a limit, by its id or by what it was set with.

    `agent-meter limit list --json` shows ids.
    """
    for field in (*LIMIT_FIELDS, "service", "metric", "window"):
        if limit_id is not None and given[field] is not None:
            raise InvalidInput(field, "leave it out: the id already names the limit")
    key = _key_of(given) if limit_id is None else None

    async def work(ledger: Ledger, caller: Caller) -> Limit:
        try:
            return await ledger.remove_limit(caller, limit_id, key)
        except NotFound:
            raise NotFound("there is no such limit. `agent-meter limit list --json` shows them.") from None

    removed = session.ask(work)
    if as_json:
        from agent_meter_mcp.faces.wire.controls import LimitRemoved

        from .document import print_document

        print_document(LimitRemoved.of(removed))
        return
    click.echo(f"removed: {maximum(removed)}. Usage is metered all the same.")


@click.group("agent", context_settings={"help_option_names": options.HELP_NAMES})
def agent() -> None:
    """Say who an agent is: its name, tier, owner and parent."""


@options.command_of(agent, "set", "agent-meter agent set coder --tier trusted --owner ada")
@click.argument("agent", type=options.Known("agent"))
@click.option("--name", metavar="NAME", help="What people call it.")
@click.option("--tier", metavar="NAME", help="Its trust tier, for which there can be limits.")
@click.option("--owner", metavar="NAME", help="The person or team it acts for.")
@options.name_option("--parent", "agent", "The agent that spawned it, whose limits then cover it.")
@options.as_json
@options.pass_session
def set_agent(session: Session, /, as_json: bool, agent: str, **given: str | None) -> None:
    """Set what is given; an empty value ("") clears. An agent that is not known yet is made."""
    changes = {field: value or None for field, value in given.items() if value is not None}
    if not changes:
        raise InvalidInput("name", "nothing to change: give --name, --tier, --owner or --parent")

    async def work(ledger: Ledger, caller: Caller) -> Agent:
        return await ledger.set_agent(caller, agent, changes)

    done = session.ask(work)
    if as_json:
        from agent_meter_mcp.faces.wire.reports import AgentSet

        from .document import print_document

        print_document(AgentSet.of(done))
        return
    known = {"name": done.name, "tier": done.tier, "owner": done.owner, "parent": done.parent}
    told = ", ".join(f"{field} {shown(value)}" for field, value in known.items() if value is not None)
    click.echo(f"agent {shown(done.agent_id)}: {told or 'no name, tier, owner or parent'}")
