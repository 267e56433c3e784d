"""`limit`, `kill` and `resume`."""

from __future__ import annotations

import sys
from typing import Any

import click

from agent_meter_mcp.faces.wire import arguments as take
from agent_meter_mcp.faces.wire import queries as ask_for
from agent_meter_mcp.faces.wire import reports as give
from agent_meter_mcp.faces.wire import wording

from .options import from_model, sent
from .output import as_json, table
from .session import with_ledger

_json = click.option("--json", "json_", is_flag=True, help="Answer in JSON.")


@click.group()
def limit() -> None:
    """Set, list and remove limits."""


@limit.command("set")
@from_model(take.SetLimit)
@_json
def set_(json_: bool, **values: Any) -> None:
    """Create a limit, or change the one with the same subject, service, metric and window.

    \b
    Examples:
      agent-meter limit set --agent research-bot --metric cost_usd --window day --max 5
      agent-meter limit set --agent "*" --metric requests --window 1m --max 60
      agent-meter limit set --metric cost_usd --window month --max 500 --timezone Europe/Berlin
    """
    arguments = sent(take.SetLimit, values)

    async def run(ledger: Any, caller: Any) -> give.LimitSet:
        answer, state = await ledger.set_limit(
            caller,
            arguments.key(),
            arguments.maximum(),
            action=arguments.action,
            zone=arguments.timezone,
            thresholds=None if arguments.thresholds is None else tuple(arguments.thresholds),
        )
        return give.LimitSet.of(answer, state)

    _answer(with_ledger(run), json_)


@limit.command("list")
@from_model(ask_for.ListLimits)
@_json
def list_(json_: bool, **values: Any) -> None:
    """All limits and where they stand; with --agent those that match it. --json has their ids.

    \b
    Example:
      agent-meter limit list --agent research-bot
    """
    arguments = sent(ask_for.ListLimits, values)

    async def run(ledger: Any, caller: Any) -> Any:
        views = await ledger.limits(caller, arguments.who(caller))
        return [view for view in views if arguments.concerns(view)]

    views = with_ledger(run)
    if json_:
        as_json(give.Limits.of(views))
        return
    rows: list[list[str]] = []
    for view in views:
        key, state = view.limit.key, view.state
        used, held = (state.used, state.held) if state is not None else (0, 0)
        note = "warns" if view.limit.action == "warn" else ""
        if view.bound is not None and view.bound.replaced_by is not None:
            note = "replaced"
        rows.append(
            [
                str(key.subject) + (f" at {key.service}" if key.service else ""),
                f"{key.metric} per {key.window}",
                note,
                wording.amount(key.metric, used),
                wording.amount(key.metric, held) if held else "—",
                wording.amount(key.metric, view.limit.max),
                "—" if state is None else f"{state.percent:.0f} %",
            ]
        )
    table(["for", "limit", "", "used", "held", "max", "full"], rows, left=3)


@limit.command("remove")
@from_model(take.RemoveLimit)
@_json
def remove(json_: bool, **values: Any) -> None:
    """Remove a limit, by --limit-id or by what it was set with.

    \b
    Example:
      agent-meter limit remove --agent research-bot --metric cost_usd --window day
    """
    arguments = sent(take.RemoveLimit, values)

    async def run(ledger: Any, caller: Any) -> give.LimitRemoved:
        return give.LimitRemoved.of(await ledger.remove_limit(caller, arguments.limit_id, arguments.key()))

    _answer(with_ledger(run), json_)


_target = click.argument("kind", type=click.Choice(["agent", "service", "everything"]))
_name = click.argument("name", required=False)


@click.command()
@_target
@_name
@click.option("--reason", required=True, help="Why: everybody who is stopped reads it.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_json
def kill(kind: str, name: str | None, reason: str, yes: bool, json_: bool) -> None:
    """Stop an agent (and those it spawned), a service or everything at once.

    \b
    Examples:
      agent-meter kill agent rogue-bot --reason "runaway loop"
      agent-meter kill everything --reason "incident 17" --yes
    """
    if kind == "everything" and not yes and sys.stdin.isatty():
        click.confirm("Stop everything?", abort=True)
    _switch(kind, name, True, reason, json_)


@click.command()
@_target
@_name
@_json
def resume(kind: str, name: str | None, json_: bool) -> None:
    """Release a kill switch.

    \b
    Example:
      agent-meter resume agent rogue-bot
    """
    _switch(kind, name, False, None, json_)


def _switch(kind: str, name: str | None, engaged: bool, reason: str | None, json_: bool) -> None:
    if (name is None) != (kind == "everything"):
        raise click.UsageError(f"name the {kind}" if name is None else "everything has no name")
    arguments = sent(
        take.SetKillSwitch,
        {"engaged": engaged, kind: True if kind == "everything" else name, "reason": reason},
    )

    async def run(ledger: Any, caller: Any) -> give.KillSwitchSet:
        target, named = arguments.target()
        answer = await ledger.set_switch(caller, target, named, engaged, reason)
        return give.KillSwitchSet.of(answer, target, named)

    _answer(with_ledger(run), json_)


def _answer(result: Any, json_: bool) -> None:
    as_json(result) if json_ else click.echo(result.text())
