"""What is kept beside usage: alerts, control actions, open holds, what is stopped."""

import json
from typing import TYPE_CHECKING, Any, Literal, Self

from agent_meter_mcp.core.figures import counted
from agent_meter_mcp.core.models import Subject
from agent_meter_mcp.core.money import number_of
from agent_meter_mcp.core.times import time_text
from agent_meter_mcp.core.told import usage_fields

from .controls import Alert
from .fields import Part, Result
from .results import Number

if TYPE_CHECKING:
    from agent_meter_mcp.core import models, queries
    from agent_meter_mcp.core.roles import Role


class Alerts(Result):
    """Newest first. `after` continues from the newest of them."""

    alerts: list[Alert]

    @classmethod
    def of(cls, views: "list[queries.AlertView]") -> Self:
        return cls(
            message=f"{counted(len(views), 'alert')}, newest first.",
            alerts=[Alert.of(view) for view in views],
        )


class AuditEntry(Part):
    """A control action: what was there before and after, with the names that other reports have."""

    at: str
    actor: str
    action: str
    target: str
    reason: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None

    @classmethod
    def of(cls, entry: "models.AuditEntry") -> Self:
        return cls(
            at=time_text(entry.seq),
            actor=entry.actor,
            action=entry.action,
            target=entry.target,
            reason=entry.reason,
            before=_plain(entry.before),
            after=_plain(entry.after),
        )


def _plain(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    value: dict[str, Any] = json.loads(text)
    if "key" in value:
        key = value["key"]
        return {
            "limit_id": value["limit_id"],
            "subject": str(Subject(**key["subject"])),
            "service": key["service"],
            "metric": key["metric"],
            "window": key["window"],
            "max": number_of(key["metric"], value["max"]),
            "action": value["action"],
            "timezone": value["zone"],
            "thresholds": value["thresholds"],
            "created_at": time_text(value["created_at_us"]),
        }
    if "agent_id" in value:
        return {"agent": value.pop("agent_id"), **value}
    return {field.removesuffix("_us"): _told(field, was) for field, was in value.items()}


def _told(field: str, value: Any) -> Any:
    """A time as such; everything else as it is."""
    return time_text(value) if field.endswith("_us") and value is not None else value


class Audit(Result):
    """Control actions, newest first."""

    entries: list[AuditEntry]
    next_cursor: str | None

    @classmethod
    def of(cls, entries: "list[models.AuditEntry]", limit: int) -> Self:
        """A page of at most `limit`; one more of `entries` says that there is another page."""
        page = entries[:limit]
        more = len(entries) > limit
        return cls(
            message=f"{counted(len(page), 'control action')}, newest first.",
            entries=[AuditEntry.of(entry) for entry in page],
            next_cursor=str(page[-1].seq) if more else None,
        )


class Hold(Part):
    """A reservation that is open: what was reserved, and until when."""

    reservation_id: str
    id: str
    agent: str
    service: str | None
    project: str | None
    session: str | None
    operation: str | None
    requests: int
    units: Number | None
    unit_type: str | None
    tokens: int | None
    input_tokens: int | None
    output_tokens: int | None
    cache_read_tokens: int | None
    cache_write_tokens: int | None
    cache_write_1h_tokens: int | None
    model: str | None
    cost_usd: Number | None
    cost_source: Literal["reported", "computed", "unpriced"]
    price_version: str | None
    source: str
    reserved_at: str
    expires_at: str

    @classmethod
    def of(cls, held: "models.Reservation") -> Self:
        who = held.who
        return cls(
            reservation_id=held.reservation_id,
            id=held.event_id,
            agent=who.agent,
            service=who.service,
            project=who.project,
            session=who.session,
            operation=held.operation,
            tokens=held.usage.tokens,
            **usage_fields(held.usage),
            source=held.source,
            reserved_at=time_text(held.reserved_at_us),
            expires_at=time_text(held.expires_at_us),
        )


class Holds(Result):
    """The holds that are open now, oldest first."""

    reservations: list[Hold]
    left_out: int

    @classmethod
    def of(cls, holds: "list[models.Reservation]", limit: int) -> Self:
        return cls(
            message=f"{counted(len(holds), 'open reservation')}, oldest first.",
            reservations=[Hold.of(held) for held in holds[:limit]],
            left_out=max(len(holds) - limit, 0),
        )


class KillSwitch(Part):
    """What is stopped, by whom, since when and why."""

    kind: Literal["agent", "service", "everything"]
    name: str | None
    reason: str
    engaged_by: str
    engaged_at: str

    @classmethod
    def of(cls, switch: "models.KillSwitch") -> Self:
        return cls(
            kind=switch.kind,
            name=switch.name,
            reason=switch.reason,
            engaged_by=switch.engaged_by,
            engaged_at=time_text(switch.engaged_at_us),
        )


class Status(Result):
    """`changes` is another number whenever something was written, by whatever process."""

    at: str
    changes: int
    role: Literal["agent", "service", "viewer", "operator"]
    switches: list[KillSwitch]

    @classmethod
    def of(cls, at_us: int, changes: int, role: "Role", switches: "list[models.KillSwitch]") -> Self:
        return cls(
            message=f"Kill switches that are engaged: {len(switches)}.",
            at=time_text(at_us),
            changes=changes,
            role=role,
            switches=[KillSwitch.of(switch) for switch in switches],
        )
