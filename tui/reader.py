"""What the dashboard asks of a ledger. It knows no more of it: a file here, or a meter elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from agent_meter_mcp.core.value import Value

if TYPE_CHECKING:
    from agent_meter_mcp.core.models import AuditEntry, KillSwitch, Reservation, StoredEvent
    from agent_meter_mcp.core.queries import AgentView, Dimension, LimitView, Summary, Totals


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


class Snapshot(Value):
    """The ledger at one moment. `used` is each agent's usage in the range, `total` that of all of them.

    `bars` are (start, cost) of the chart's periods, oldest first; `events` the newest ones, refusals too,
    newest first; `fleet` the limits for everybody together.
    """

    taken_at_us: int
    agents: tuple[AgentView, ...]
    used: dict[str, Totals]
    total: Totals
    bars: tuple[tuple[int, int], ...]
    events: tuple[StoredEvent, ...]
    fleet: tuple[LimitView, ...]
    switches: tuple[KillSwitch, ...]


class Detail(Value):
    """One agent: the limits that match it, what it holds, its own usage by service, operation and model, its
    events, and what was done to it."""

    limits: tuple[LimitView, ...]
    held: tuple[Reservation, ...]
    usage: Summary
    events: tuple[StoredEvent, ...]
    actions: tuple[AuditEntry, ...]


class Reader(Protocol):
    """All may raise MeterError: what it says is shown, and it is asked again a little later."""

    where: str
    """What is looked at, for the title."""

    async def changed(self) -> bool:
        """Whether anything may have been written since the last snapshot. Cheap."""
        ...

    async def snapshot(self, wanted: Range) -> Snapshot: ...

    async def detail(self, agent_id: str, wanted: Range) -> Detail: ...


class Operator(Protocol):
    """What a person may do from here. All may raise MeterError: then nothing was changed."""

    async def stop(self, agent_id: str, reason: str) -> None: ...

    async def resume(self, agent_id: str) -> None: ...

    async def stop_everything(self, reason: str) -> None: ...

    async def resume_everything(self) -> None: ...
