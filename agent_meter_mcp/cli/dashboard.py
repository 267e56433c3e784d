"""`dashboard`: the terminal over a local ledger."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from agent_meter_mcp.core.errors import StoreUnusable
from agent_meter_mcp.core.models import Who
from agent_meter_mcp.core.queries import AGENTS_PAGE_MAX, AgentsQuery, EventsQuery, SummaryQuery, UsageFilter

from . import options
from .times import parse_span, zone_of

if TYPE_CHECKING:
    from typing import Any

    from agent_meter_mcp.core.models import Limit, SwitchKind
    from agent_meter_mcp.core.queries import AgentView, Dimension
    from agent_meter_mcp.core.roles import Caller
    from agent_meter_mcp.ledger import Ledger
    from agent_meter_mcp.settings import Settings
    from tui.reader import Detail, Range, Snapshot

    from .session import Session

EVENTS_SHOWN = 200
GROUPS_SHOWN = 1000


@options.command(
    "dashboard", "agent-meter dashboard", "agent-meter dashboard --read-only --timezone Europe/Berlin"
)
@click.option("--read-only", is_flag=True, help="Only show: nobody can be stopped from it.")
@options.timezone
@options.pass_session
def dashboard(session: Session, read_only: bool, timezone: str | None) -> None:
    """Watch all agents in the terminal, live, and stop one with two keys (x, y).

    It needs no server: it looks at the file. ? shows all keys.
    """
    import anyio

    settings = session.settings
    zone = zone_of(timezone or settings.timezone)
    local = LocalLedger(settings, session.caller, timezone or settings.timezone)
    may_act = not read_only and session.caller.role == "operator"

    async def run() -> None:
        try:
            await tui_part("app").Dashboard(local, local if may_act else None, zone=zone).run_async()
        finally:
            await local.close()

    anyio.run(run)


def tui_part(name: str) -> Any:
    """A module of the dashboard. As installed it is within this package, in a checkout a folder beside it."""
    from importlib import import_module
    from importlib.util import find_spec

    package = "tui" if find_spec("agent_meter_mcp.tui") is None else "agent_meter_mcp.tui"
    return import_module(f"{package}.{name}")


class LocalLedger:
    """A reader and an operator (see tui/reader.py) on a file, which is opened when it is there."""

    def __init__(self, settings: Settings, caller: Caller, timezone: str) -> None:
        self.where = settings.db.replace(os.path.expanduser("~"), "~", 1)
        self._settings = settings
        self._caller = caller
        self._timezone = timezone
        self._ledger: Ledger | None = None
        self._version: int | None = None

    async def close(self) -> None:
        """Ends what is open; a later look opens it again."""
        ledger, self._ledger, self._version = self._ledger, None, None
        if ledger is not None:
            await ledger.__aexit__(None, None, None)

    async def _open(self) -> Ledger:
        if self._ledger is None:
            from anyio import Path

            if not await Path(self._settings.db).exists():
                raise StoreUnusable(
                    f"There is no ledger at {self._settings.db} yet. The first agent to use the server makes"
                    " it, and so does: agent-meter record --agent me --service test"
                )
            from agent_meter_mcp.runtime import open_ledger

            self._ledger = await open_ledger(self._settings).__aenter__()
        return self._ledger

    # Reading

    async def changed(self) -> bool:
        """Raises MeterError; a file that was replaced is opened anew at the next look."""
        ledger = await self._open()
        try:
            version = await ledger.changed(self._caller)
        except StoreUnusable:
            await self.close()
            raise
        is_new, self._version = version != self._version, version
        return is_new

    async def snapshot(self, wanted: Range) -> Snapshot:
        ledger, caller = await self._open(), self._caller
        used = await ledger.summary(caller, self._query(ledger, wanted.window, "agent"))
        spent = await ledger.summary(caller, self._query(ledger, wanted.chart_window, wanted.chart))
        limits = await ledger.limits(caller)
        return tui_part("reader").Snapshot(
            ledger.now_us(),
            tuple(await self._agents(ledger)),
            {str(group.key[0]): group.totals for group in used.groups},
            used.total,
            tuple(sorted((int(group.key[0] or 0), group.totals.cost_nano_usd) for group in spent.groups)),
            (await ledger.events(caller, EventsQuery(UsageFilter(), EVENTS_SHOWN))).events,
            tuple(view for view in limits if _is_for_everybody(view.limit)),
            tuple(await ledger.switches(caller)),
        )

    async def detail(self, agent_id: str, wanted: Range) -> Detail:
        ledger, caller = await self._open(), self._caller
        own = UsageFilter(agent=agent_id)
        query = self._query(ledger, wanted.window, "service", "operation", "model")
        audit = [] if caller.role == "agent" else await ledger.audit(caller)
        return tui_part("reader").Detail(
            tuple(await ledger.limits(caller, Who(agent_id))),
            tuple(held for held in await ledger.reservations(caller) if held.who.agent == agent_id),
            await ledger.summary(caller, query.replace(filter=query.filter.replace(agent=agent_id))),
            (await ledger.events(caller, EventsQuery(own, EVENTS_SHOWN))).events,
            tuple(entry for entry in audit if entry.target == f"agent {agent_id}"),
        )

    def _query(self, ledger: Ledger, window: str, *group_by: Dimension) -> SummaryQuery:
        span = parse_span({"since": None, "until": None, "window": window}, self._timezone, ledger.now_us())
        return SummaryQuery(UsageFilter(*span), group_by, self._timezone, limit=GROUPS_SHOWN)

    async def _agents(self, ledger: Ledger) -> list[AgentView]:
        found: list[AgentView] = []
        after: str | None = None
        while True:
            page = await ledger.agents(self._caller, AgentsQuery(after_agent=after, limit=AGENTS_PAGE_MAX))
            found += page.agents
            after = page.next_agent
            if after is None:
                return found

    # Acting

    async def stop(self, agent_id: str, reason: str) -> None:
        await self._switch("agent", agent_id, True, reason)

    async def resume(self, agent_id: str) -> None:
        await self._switch("agent", agent_id, False, None)

    async def stop_everything(self, reason: str) -> None:
        await self._switch("everything", None, True, reason)

    async def resume_everything(self) -> None:
        await self._switch("everything", None, False, None)

    async def _switch(self, kind: SwitchKind, name: str | None, engaged: bool, reason: str | None) -> None:
        ledger = await self._open()
        await ledger.set_switch(self._caller, kind, name, engaged, reason)


def _is_for_everybody(limit: Limit) -> bool:
    return limit.key.subject.kind == "pool"
