"""What the tools about limits and kill switches give."""

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from agent_meter_mcp.core.decide import percent_of
from agent_meter_mcp.core.money import number_of
from agent_meter_mcp.core.times import time_text
from agent_meter_mcp.core.told import state_fields

from . import rows, wording
from .fields import (
    ObjectElsewhere,
    OptionalElsewhere,
    Part,
    Result,
    beside,
)
from .results import DatedLimitState, LimitState, Number
from .rows import Listed

if TYPE_CHECKING:
    from agent_meter_mcp.core import models, queries
    from agent_meter_mcp.core.commands import LimitSet as SetAnswer
    from agent_meter_mcp.core.commands import Switched as SwitchAnswer
    from agent_meter_mcp.core.decide import LimitState as State


class Limit(Part):
    """A limit as it was set."""

    limit_id: str
    subject: str
    service: str | None
    metric: str
    window: str
    max: Number
    action: str
    timezone: str
    thresholds: list[int]

    @classmethod
    def of(cls, limit: "models.Limit") -> Self:
        return cls(**_limit_fields(limit))


def _limit_fields(limit: "models.Limit") -> dict[str, Any]:
    return {
        "limit_id": limit.limit_id,
        "subject": str(limit.key.subject),
        "service": limit.key.service,
        "metric": limit.key.metric,
        "window": limit.key.window,
        "max": number_of(limit.key.metric, limit.max),
        "action": limit.action,
        "timezone": limit.zone,
        "thresholds": list(limit.thresholds),
    }


class LimitSet(Result):
    """`state` is null where nobody has used anything of it yet."""

    status: Literal["created", "changed", "unchanged"]
    limit: Limit
    state: Annotated[LimitState | None, OptionalElsewhere]

    @classmethod
    def of(cls, answer: "SetAnswer", state: "State | None") -> Self:
        return cls(
            message=wording.limit_set(answer, state),
            status=answer.status,
            limit=Limit.of(answer.limit),
            state=None if state is None else LimitState(**state_fields(state)),
        )


class LimitRemoved(Result):
    removed: Annotated[Limit, ObjectElsewhere]

    @classmethod
    def of(cls, limit: "models.Limit") -> Self:
        return cls(message=wording.limit_removed(limit), removed=Limit.of(limit))


class ListedLimit(DatedLimitState):
    """Asked for one agent: `binds`, or `replaced_by` the limit_id of a more specific one."""

    timezone: str
    thresholds: list[int]
    created_at: str
    binds: bool | None
    replaced_by: str | None

    @classmethod
    def of_view(cls, view: "queries.LimitView") -> Self:
        fields = _limit_fields(view.limit)
        state = _unused(view.limit, fields) if view.state is None else state_fields(view.state)
        replaced_by = None if view.bound is None else view.bound.replaced_by
        binds = None if view.bound is None else replaced_by is None
        created_at = time_text(view.limit.created_at_us)
        return cls(**{**state, **fields}, created_at=created_at, binds=binds, replaced_by=replaced_by)


def _unused(limit: "models.Limit", fields: dict[str, Any]) -> dict[str, Any]:
    """The state of a limit that counts each one separately, before anybody used anything."""
    return {
        **dict.fromkeys(("scope", "resets_at", "frees_at", "runs_out_at", "since")),
        **dict.fromkeys(("used", "held", "burn_per_hour"), 0),
        "remaining": fields["max"],
        "percent": 0.0 if limit.max else 100.0,
        "exceeded": limit.max == 0,
    }


class Limits(Listed):
    limits: Annotated[list[ListedLimit], beside("timezone", "thresholds", "binds", "replaced_by")]

    @classmethod
    def of(cls, views: "list[queries.LimitView]") -> Self:
        made = cls(message=wording.limits(views), limits=[ListedLimit.of_view(view) for view in views])
        made._rows = partial(rows.of_limits, views)
        return made


class KillSwitchSet(Result):
    engaged: bool
    changed: bool
    kind: Literal["agent", "service", "everything"]
    name: str | None
    reason: str | None
    engaged_by: str | None
    engaged_at: str | None

    @classmethod
    def of(cls, answer: "SwitchAnswer", kind: "models.SwitchKind", name: str | None, *, known: bool) -> Self:
        switch = answer.switch
        return cls(
            message=wording.switched(answer, kind, name, known=known),
            engaged=answer.engaged,
            changed=answer.changed,
            kind=kind,
            name=name,
            reason=None if switch is None else switch.reason,
            engaged_by=None if switch is None else switch.engaged_by,
            engaged_at=None if switch is None else time_text(switch.engaged_at_us),
        )


class Alert(Part):
    """A threshold (in percent) that was reached, in the window that began then. The rest is null where the
    limit is gone."""

    number: int
    raised_at: str
    period_start: str
    limit_id: str
    scope: str | None
    threshold: int
    percent: float
    subject: str | None
    service: str | None
    metric: str | None
    window: str | None
    used: Number | None
    max: Number | None

    @classmethod
    def of(cls, view: "queries.AlertView") -> Self:
        alert, key = view.alert, view.key
        return cls(
            number=alert.number,
            raised_at=time_text(alert.raised_at_us),
            period_start=time_text(alert.period_start_us),
            limit_id=alert.limit_id,
            scope=alert.scope or None,
            threshold=alert.threshold,
            percent=percent_of(alert.used, alert.max),
            subject=None if key is None else str(key.subject),
            service=None if key is None else key.service,
            metric=None if key is None else key.metric,
            window=None if key is None else key.window,
            used=None if key is None else number_of(key.metric, alert.used),
            max=None if key is None else number_of(key.metric, alert.max),
        )
