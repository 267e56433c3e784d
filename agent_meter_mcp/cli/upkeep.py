"""`verify` and `doctor`."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from agent_meter_mcp.core.errors import MeterError
from agent_meter_mcp.core.queries import AgentsQuery, EventsQuery, UsageFilter
from agent_meter_mcp.runtime import open_store, price_book, system_clock_us
from agent_meter_mcp.settings import Settings, load_settings

from .output import as_json

WRONG = 1
CLOCK_AHEAD_US = 60_000_000
_json = click.option("--json", "json_", is_flag=True, help="Answer in JSON.")


@click.command()
@_json
def verify(json_: bool) -> int:
    """Rebuild every figure from the events and compare. Exit code 1 when something differs."""
    store = open_store(load_settings())
    progress = _progress if sys.stderr.isatty() else None
    try:
        found = [difference.as_dict() for difference in store.verify(progress)]
    finally:
        store.close()
    if progress is not None:
        click.echo("\r" + " " * 60 + "\r", nl=False, err=True)
    if json_:
        as_json({"ok": not found, "differences": found})
    else:
        for one in found:
            click.echo(
                f"{one['view']}: {one['where']}: says {one['live']:,}, the events say {one['rebuilt']:,}"
            )
        click.echo("Every figure agrees with the events." if not found else f"{len(found)} differences.")
    return WRONG if found else 0


def _progress(what: str, done: int, total: int) -> None:
    click.echo(f"\r{what}: {done:,} of {total:,}".ljust(60), nl=False, err=True)


@click.command()
@_json
def doctor(json_: bool) -> int:
    """Look for what is wrong with this installation. Exit code 1 when something is."""
    settings = load_settings()
    facts: dict[str, Any] = {"file": settings.db, **_library(), "synchronous": settings.synchronous}
    problems: list[str] = []
    if not facts.pop("wal_reset_sound"):
        problems.append(
            f"SQLite {facts['sqlite']} can lose a commit that meets a checkpoint (fixed in 3.51.3, 3.50.7"
            f" and 3.44.6). "
            "Install pysqlite3 where there is a wheel of it, or upgrade SQLite."
        )
    try:
        facts |= _ledger(settings, problems)
    except MeterError as error:
        problems.append(str(error))
    facts |= _prices(settings, problems)
    if json_:
        as_json({"ok": not problems, "problems": problems, **facts})
    else:
        for name, value in facts.items():
            click.echo(f"{name.replace('_', ' '):22} {value}")
        for problem in problems:
            click.secho(
                f"! {problem}",
                fg="yellow" if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else None,
            )
        click.echo("Nothing is wrong." if not problems else f"{len(problems)} to look at.")
    return WRONG if problems else 0


def _library() -> dict[str, Any]:
    from agent_meter_mcp.store.sqlite import driver

    return {
        "sqlite": driver.SQLITE_VERSION,
        "sqlite_library": driver.LIBRARY,
        "wal_reset_sound": driver.wal_reset_is_sound(),
    }


def _ledger(settings: Settings, problems: list[str]) -> dict[str, Any]:
    store = open_store(settings)
    try:
        now_us = system_clock_us()
        policy = store.policy()
        newest = store.events(EventsQuery(UsageFilter(), limit=1)).events
        if newest and newest[0].seq > now_us + CLOCK_AHEAD_US:
            ahead_s = (newest[0].seq - now_us) // 1_000_000
            problems.append(
                f"the newest event is {ahead_s} s ahead of this clock: a clock jumped, and windows stand"
                f" still until "
                "it is reached."
            )
        if policy.switches:
            problems.append(
                "stopped: " + "; ".join(f"{switch} ({switch.reason})" for switch in policy.switches)
            )
        agents = store.agents(AgentsQuery(limit=1), now_us).agents
        return {
            "size_bytes": os.path.getsize(settings.db),
            "limits": len(policy.limits),
            "agents": "some" if agents else "none yet",
            "open_reservations": len(store.reservations(now_us)),
        }
    finally:
        store.close()


def _prices(settings: Settings, problems: list[str]) -> dict[str, Any]:
    book = price_book(settings)
    try:
        return {"prices": book.version}
    except MeterError as error:
        problems.append(str(error))
        return {"prices": "cannot be read"}
