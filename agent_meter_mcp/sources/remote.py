"""A meter elsewhere, by its URL: asked when its stream says that something happened, and every few seconds.

What a tool answers is asked by MCP; the rest (status, alerts, control actions, holds) are routes under /v1.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from agent_meter_mcp.core.errors import Forbidden, MeterError, Unauthorized, Unreachable
from agent_meter_mcp.core.money import number_of
from agent_meter_mcp.core.value import Value

from . import remote_words as words
from .base import (
    ACTIONS_SHOWN,
    ALERTS_SHOWN,
    AUDIT_SHOWN,
    EVENTS_SHOWN,
    GROUPS_SHOWN,
    Detail,
    Snapshot,
    bars_of,
)
from .remote_link import REFUSED_S, Link, together

if TYPE_CHECKING:
    from agent_meter_mcp.core.models import (
        Action,
        AuditEntry,
        KillSwitch,
        LimitKey,
        Reservation,
        SwitchKind,
    )
    from agent_meter_mcp.core.queries import AlertView, Dimension, LimitView, Summary

    from .base import Range
    from .remote_link import Key

ASK_S = 3.0
"""The stream does not tell what another process writes into the meter's file: so it is asked as often."""
PAUSES_S = (0.5, 1.0, 2.0, 5.0)
"""Before it listens again, each time a little longer."""
AGENTS_PAGE = 200
AGENTS_PAGES_MAX = 500
"""A hundred thousand agents. A meter that has another page after those would be followed for ever."""


class Status(Value):
    """How the meter stands. `changes` is another number whenever something was written."""

    at_us: int
    changes: int
    role: str
    switches: tuple[KillSwitch, ...]


class RemoteSource:
    """A reader and an operator on a meter behind a URL. Days and months are those of the zone `timezone`.

    Raises InvalidInput for a URL that is none.
    """

    def __init__(self, url: str, key: Key | None, timezone: str) -> None:
        self._link = Link(url, key)
        self.where = self._link.url
        self._timezone = timezone
        self._role = "operator"
        self._barred = ""
        self._seen: int | None = None
        self._news = False
        self._asked_s = 0.0
        self._told_at: tuple[int, float] | None = None
        self._listening: asyncio.Task[None] | None = None
        self._last_id: str | None = None
        self._failures = 0

    async def close(self) -> None:
        """Does not wait for a meter that is gone."""
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.cancel()
            with suppress(asyncio.CancelledError):
                await listening
        await self._link.close()

    def look_ahead(self, wanted: Range) -> None:
        """A meter elsewhere is asked when there is a screen that can say what it waits for."""

    def now_us(self) -> int:
        """What the meter last said, and what has passed since then: its clock may be wrong, or this one."""
        if self._told_at is None:
            return time.time_ns() // 1000
        at_us, told_s = self._told_at
        return at_us + int((time.monotonic() - told_s) * 1_000_000)

    # Hearing of news

    async def changed(self) -> bool:
        """Whether the stream has said anything since the last snapshot, or the meter says so, or nothing is
        known."""
        if self._listening is None:
            self._listening = asyncio.create_task(self._keep_listening())
        if self._seen is None:
            return True
        if not self._news and time.monotonic() - self._asked_s < ASK_S:
            return False
        self._news = False
        return (await self._status()).changes != self._seen

    async def _keep_listening(self) -> None:
        while True:
            rest_s = 0.0
            try:
                await self._link.listen(self._last_id, self._heard)
            except (Unauthorized, Forbidden):
                rest_s = REFUSED_S
            except MeterError:
                self._last_id = None if self._failures else self._last_id  # it may be what is wrong
            self._news = True  # what happens now is not heard: the next look will tell
            self._failures += 1
            pause_s = PAUSES_S[min(self._failures, len(PAUSES_S)) - 1] * random.uniform(1, 1.25)
            await asyncio.sleep(max(pause_s, rest_s))

    def _heard(self, message_id: str) -> None:
        self._failures = 0
        self._last_id = message_id or self._last_id
        self._news = True

    async def _status(self) -> Status:
        """Raises MeterError; then nothing is known any more."""
        self._asked_s = time.monotonic()
        try:
            told = await self._link.get("/v1/status")
        except MeterError as error:
            self._seen = None
            self._barred = str(error) if isinstance(error, Forbidden | Unauthorized) else ""
            if isinstance(error, Forbidden):
                self._link.rest(error, REFUSED_S)
            raise
        with self._link.reading():
            status = Status(
                words.moment(told["at"]),
                told["changes"],
                told["role"],
                tuple(words.switch(one) for one in told["switches"]),
            )
        self._role, self._barred = status.role, ""
        self._told_at = status.at_us, time.monotonic()
        return status

    # Reading

    async def snapshot(self, wanted: Range) -> Snapshot:
        status = await self._status()  # before the rest: what is written meanwhile is news
        async with together() as tasks:
            asked = tasks.create_task(
                self._link.call(
                    self._summed(wanted.window, ("agent",)),
                    self._summed(wanted.chart_window, (wanted.chart,)),
                    ("list_usage_events", {"limit": EVENTS_SHOWN}),
                    ("list_limits", {}),
                )
            )
            agents, alerts = tasks.create_task(self._agents()), tasks.create_task(self._alerts())
            actions = tasks.create_task(self._actions())
        used, spent, events, limits = asked.result()
        with self._link.reading():
            views = tuple(words.limit_view(one, status.at_us) for one in limits["limits"])
            known = {view.limit.limit_id: view.limit for view in views}
            by_agent = words.summary(used, ("agent",))
            found = Snapshot(
                status.at_us,
                tuple(words.agent_view(one, known, status.at_us) for one in agents.result()),
                {str(group.key[0]): group.totals for group in by_agent.groups},
                by_agent.total,
                bars_of(words.summary(spent, (wanted.chart,))),
                tuple(words.event(one) for one in events["events"]),
                tuple(view for view in views if view.limit.key.subject.kind == "pool"),
                status.switches,
                alerts.result(),
                tuple(known.values()),
                actions.result(),
            )
        self._seen = status.changes
        return found

    async def detail(self, agent_id: str, wanted: Range) -> Detail:
        sums: tuple[tuple[str, tuple[Dimension, ...]], ...] = (
            (wanted.window, ("service", "operation", "model")),
            (wanted.window, ("project", "session")),
            (wanted.window, ("source",)),
            (wanted.chart_window, (wanted.chart,)),
        )
        status = await self._status()
        async with together() as tasks:
            asked = tasks.create_task(
                self._link.call(
                    ("list_limits", {"agent": agent_id}),
                    *(self._summed(window, group_by, agent=agent_id) for window, group_by in sums),
                    ("list_usage_events", {"agent": agent_id, "limit": EVENTS_SHOWN}),
                    ("list_usage_events", {"agent": agent_id, "limit": 1, "outcome": "rejected"}),
                )
            )
            held = tasks.create_task(self._held())
        limits, *used, events, refused = asked.result()
        with self._link.reading():
            usage, sessions, sources, spent = (
                words.summary(told, group_by) for told, (_, group_by) in zip(used, sums, strict=True)
            )
            return Detail(
                tuple(words.limit_view(one, status.at_us) for one in limits["limits"]),
                tuple(hold for hold in held.result() if hold.who.agent == agent_id),
                usage,
                tuple(words.event(one) for one in events["events"]),
                sessions,
                sources,
                bars_of(spent),
                next((words.event(one) for one in refused["events"]), None),
            )

    async def limits(self) -> tuple[LimitView, ...]:
        status = await self._status()
        (told,) = await self._link.call(("list_limits", {}))
        with self._link.reading():
            return tuple(words.limit_view(one, status.at_us) for one in told["limits"])

    async def usage(
        self, window: str, *group_by: Dimension, service: str | None = None, zone: str | None = None
    ) -> Summary:
        (told,) = await self._link.call(self._summed(window, group_by, zone, service=service))
        with self._link.reading():
            return words.summary(told, group_by)

    async def audit(self) -> tuple[AuditEntry, ...]:
        return await self._audited(AUDIT_SHOWN)

    async def _audited(self, most: int) -> tuple[AuditEntry, ...]:
        told = await self._link.get("/v1/audit", limit=most)
        with self._link.reading():
            return tuple(words.audit_entry(one) for one in told["entries"])

    def _summed(
        self, window: str, group_by: tuple[Dimension, ...], zone: str | None = None, **only: str | None
    ) -> tuple[str, dict[str, Any]]:
        chosen = {"window": window, "timezone": zone or self._timezone, "limit": GROUPS_SHOWN, **only}
        return "get_usage_summary", {"group_by": list(group_by), **chosen}

    async def _agents(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        page: dict[str, Any] = {"limit": AGENTS_PAGE}  # its answers fit the schema: the SDK has checked
        for _ in range(AGENTS_PAGES_MAX):
            (told,) = await self._link.call(("list_agents", page))
            found += told["agents"]
            if told["next_cursor"] is None:
                return found
            page["cursor"] = told["next_cursor"]
        raise Unreachable(
            f"{self.where} does not come to the end of its list of agents: after {AGENTS_PAGES_MAX} pages of"
            f" {AGENTS_PAGE} it is not followed any further."
        )

    async def _alerts(self) -> tuple[AlertView, ...]:
        told = await self._link.get("/v1/alerts", limit=ALERTS_SHOWN)
        with self._link.reading():
            return tuple(words.alert_view(one) for one in told["alerts"])

    async def _held(self) -> tuple[Reservation, ...]:
        told = await self._link.get("/v1/reservations")
        with self._link.reading():
            return tuple(words.hold(one) for one in told["reservations"])

    async def _actions(self) -> tuple[AuditEntry, ...]:
        """The newest control actions; none for an agent, who may not see them."""
        return () if self._role == "agent" else await self._audited(ACTIONS_SHOWN)

    # Acting

    @property
    def refusal(self) -> str:
        if self._barred or self._role == "operator":
            return self._barred
        return (
            f"this key has the role {self._role}, and only shows: to change anything takes the role operator"
        )

    async def stop(self, kind: SwitchKind, name: str | None, reason: str) -> bool:
        told = await self._act("set_kill_switch", engaged=True, reason=reason, **_switched(kind, name))
        return bool(told.get("changed"))

    async def resume(self, kind: SwitchKind, name: str | None) -> bool:
        told = await self._act("set_kill_switch", engaged=False, **_switched(kind, name))
        return bool(told.get("changed"))

    async def set_limit(
        self,
        key: LimitKey,
        maximum: int,
        *,
        action: Action | None = None,
        zone: str | None = None,
        thresholds: tuple[int, ...] | None = None,
    ) -> None:
        subject = {} if key.subject.kind == "pool" else {key.subject.kind: key.subject.name}
        await self._act(
            "set_limit",
            **subject,
            service=key.service,
            metric=key.metric,
            window=key.window,
            max=number_of(key.metric, maximum),
            action=action,
            timezone=zone,
            thresholds=None if thresholds is None else list(thresholds),
        )

    async def remove_limit(self, limit_id: str) -> None:
        await self._act("remove_limit", limit_id=limit_id)

    async def release(self, reservation_id: str) -> None:
        await self._act("settle_reservation", reservation_id=reservation_id, action="release")

    async def set_agent(self, agent_id: str, changes: dict[str, str | None]) -> None:
        await self._link.call(("set_agent", {"agent": agent_id, **changes}))

    async def _act(self, tool: str, **given: Any) -> dict[str, Any]:
        sent = {name: value for name, value in given.items() if value is not None}
        (told,) = await self._link.call((tool, sent))
        return told


def _switched(kind: SwitchKind, name: str | None) -> dict[str, Any]:
    return {"everything": True} if kind == "everything" else {kind: name}
