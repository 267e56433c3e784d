"""What a dashboard asks of a ledger, and tells it: a file here, or a meter elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from agent_meter_mcp.core.value import Value

if TYPE_CHECKING:
    from agent_meter_mcp.core.models import (
        Action,
        AuditEntry,
        KillSwitch,
        Limit,
        LimitKey,
        Reservation,
        StoredEvent,
        SwitchKind,
    )
    from agent_meter_mcp.core.queries import AgentView, AlertView, Dimension, LimitView, Summary, Totals


class Range(Value):
    """A stretch of time that the totals are about. `window` is as in a limit; `name` is what is shown.

    `chart` is the unit of the bars of the spend chart, `chart_window` the stretch that they cover.
    """

    name: str
    window: str
    chart: Dimension
    chart_window: str


RANGES = (
    Range("1 h", "1h", "hour", "24h"),
    Range("today", "day", "hour", "24h"),
    Range("7 days", "7d", "day", "30d"),
    Range("month", "month", "day", "30d"),
    Range("all", "total", "month", "total"),
)
EVENTS_SHOWN = 200
GROUPS_SHOWN = 1000
ALERTS_SHOWN = 50
AUDIT_SHOWN = 500
ACTIONS_SHOWN = 50


class Snapshot(Value):
    """The ledger at one moment. `used` is each agent's usage in the range, `total` that of all of them.

    `bars` are (start, cost) of the chart's periods, oldest first; `events` the newest ones, refusals too,
    newest first; `fleet` the limits for everybody together; `alerts` the newest, newest first; `limits` all
    of them, by which refusals are named; `actions` what was done by whom lately, newest first
    (nothing where the caller may not see that).
    """

    taken_at_us: int
    agents: tuple[AgentView, ...]
    used: dict[str, Totals]
    total: Totals
    bars: tuple[tuple[int, int], ...]
    events: tuple[StoredEvent, ...]
    fleet: tuple[LimitView, ...]
    switches: tuple[KillSwitch, ...]
    alerts: tuple[AlertView, ...] = ()
    limits: tuple[Limit, ...] = ()
    actions: tuple[AuditEntry, ...] = ()


class Detail(Value):
    """One agent: the limits that match it, what it holds, its own usage by service, operation and model, and
    its events.

    `sessions` is its usage by project and session, `sources` by who measured it, `bars` its spend as in a
    snapshot; `refused` is its last refusal.
    """

    limits: tuple[LimitView, ...]
    held: tuple[Reservation, ...]
    usage: Summary
    events: tuple[StoredEvent, ...]
    sessions: Summary
    sources: Summary
    bars: tuple[tuple[int, int], ...]
    refused: StoredEvent | None


def bars_of(spent: Summary) -> tuple[tuple[int, int], ...]:
    """The bars of the chart, from usage by its periods."""
    return tuple(sorted((int(group.key[0] or 0), group.totals.cost_nano_usd) for group in spent.groups))


class Reader(Protocol):
    """All may raise MeterError: what it says is shown, and it is asked again a little later."""

    where: str
    """What is looked at, for the title."""

    def now_us(self) -> int:
        """The moment by the clock of what is looked at, as far as that is known: microseconds since 1970."""
        ...

    async def changed(self) -> bool:
        """Whether anything may have been written since the last snapshot. Cheap."""
        ...

    async def snapshot(self, wanted: Range) -> Snapshot: ...

    async def detail(self, agent_id: str, wanted: Range) -> Detail: ...

    async def limits(self) -> tuple[LimitView, ...]:
        """All of them as they stand."""
        ...

    async def usage(
        self, window: str, *group_by: Dimension, service: str | None = None, zone: str | None = None
    ) -> Summary:
        """Usage in a window (as a limit has it, its calendar in `zone`; None: the dashboard's)."""
        ...

    async def audit(self) -> tuple[AuditEntry, ...]:
        """What was done by whom, newest first. Raises Forbidden where the caller may not see it."""
        ...


class Operator(Protocol):
    """What a person may do from here. All may raise MeterError: then nothing was changed."""

    @property
    def refusal(self) -> str:
        """Why nothing can be changed from here; "" where it can, as far as is known."""
        ...

    async def stop(self, kind: SwitchKind, name: str | None, reason: str) -> bool:
        """Answers whether that changed anything: not where somebody else has stopped it before."""
        ...

    async def resume(self, kind: SwitchKind, name: str | None) -> bool:
        """As `stop`."""
        ...

    async def set_limit(
        self,
        key: LimitKey,
        maximum: int,
        *,
        action: Action | None = None,
        zone: str | None = None,
        thresholds: tuple[int, ...] | None = None,
    ) -> None:
        """`maximum` is in the metric's integer unit. A limit with the same key is changed.

        None: that is left as it is; a new limit has the default.
        """
        ...

    async def remove_limit(self, limit_id: str) -> None: ...

    async def release(self, reservation_id: str) -> None:
        """Of what it holds, nothing was used."""
        ...

    async def set_agent(self, agent_id: str, changes: dict[str, str | None]) -> None:
        """`changes` names of name, tier, owner and parent those that change; None clears."""
        ...
