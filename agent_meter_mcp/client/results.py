"""What a meter answers: small values with the names of the tools' results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

from agent_meter_mcp.core.value import Value

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal, TypeAlias

    from agent_meter_mcp.core.models import CostSource, Outcome

    Number: TypeAlias = int | float
    ReasonCode: TypeAlias = Literal["kill_switch", "limit", "soft_limit", "unreachable"]
    Finished: TypeAlias = Literal["recorded", "duplicate", "corrected", "spooled"]


class LimitState(Value):
    """A limit that binds, and where it stands."""

    limit_id: str
    subject: str
    scope: str | None
    service: str | None
    metric: str
    window: str
    max: Number
    used: Number
    held: Number
    remaining: Number
    percent: float
    action: str
    exceeded: bool
    resets_at: str | None
    frees_at: str | None
    burn_per_hour: Number
    runs_out_at: str | None


class Holder(Value):
    """Who holds part of a limit."""

    reservation_id: str
    agent: str
    amount: Number
    expires_at: str


class Reason(Value):
    """Why not, or, for `soft_limit`, what to mind. `unreachable`: the meter could not be asked."""

    code: ReasonCode
    message: str
    limit_id: str | None = None
    asked: Number | None = None
    retry_at: str | None = None
    holders: tuple[Holder, ...] = ()


class Decided(Value):
    """Whether it is allowed, and everything that explains it."""

    message: str
    allowed: bool
    reasons: tuple[Reason, ...] = ()
    retry_after_s: int | None = None
    affordable: Mapping[str, Number] | None = None
    limits: tuple[LimitState, ...] = ()


class BudgetReserved(Decided):
    """`reservation_id` is None when denied, and when the meter could not be asked."""

    status: Literal["reserved", "duplicate", "denied", "unreachable"] = "denied"
    reservation_id: str | None = None
    expires_at: str | None = None


class UsageRecorded(Value):
    """`status` "spooled": it is on disk here until the meter can be reached; `outcome` is not known yet."""

    message: str
    id: str
    status: Finished
    outcome: Outcome | None = None
    cost_usd: Number | None = None
    cost_source: CostSource | None = None
    retry_after_s: int | None = None
    limits: tuple[LimitState, ...] = ()


class ReservationSettled(Value):
    """`id` and what follows describe the usage; released and extended holds have none."""

    message: str
    reservation_id: str | None
    status: Literal["recorded", "duplicate", "corrected", "spooled", "released", "expired", "open"]
    expires_at: str | None = None
    late: bool = False
    id: str | None = None
    outcome: Outcome | None = None
    cost_usd: Number | None = None
    cost_source: CostSource | None = None
    retry_after_s: int | None = None
    limits: tuple[LimitState, ...] = ()


def members_of(document: object) -> dict[str, Any]:
    """The members of a JSON object; none of anything else."""
    return cast("dict[str, Any]", document) if isinstance(document, dict) else {}


T = TypeVar("T", bound=Value)
_INSIDE: dict[str, type[Value]] = {"limits": LimitState, "reasons": Reason, "holders": Holder}


def parsed(kind: type[T], document: object) -> T:
    """A result from its JSON. What a newer server adds, or the client has no use for, is left out.

    Raises:
        ValueError: it is none.
    """
    members = members_of(document)
    given = {field: members[field] for field in kind.fields if field in members}
    for field, inside in _INSIDE.items():
        if field in given:
            given[field] = tuple(parsed(inside, part) for part in given[field] or ())
    try:
        return kind(**given)
    except TypeError as error:
        raise ValueError(f"no {kind.__name__}: {error}") from error
