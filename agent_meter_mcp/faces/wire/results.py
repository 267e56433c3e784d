"""What the tools that meter give."""

import json
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field

from agent_meter_mcp.core import told

from . import wording
from .fields import ListElsewhere, ObjectElsewhere, Part, Result

if TYPE_CHECKING:
    from agent_meter_mcp.core import decide
    from agent_meter_mcp.core.commands import Recorded, Reserved
    from agent_meter_mcp.core.models import Reservation, Usage
    from agent_meter_mcp.ledger.looking import Shut

Number = int | float


class LimitState(Part):
    """A limit and where it stands. `scope` says whose counter it is, for a limit that counts each one
    separately."""

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


class DatedLimitState(LimitState):
    """Also since when it counts, for whoever works out the rate again."""

    since: str | None


class Holder(Part):
    """Who holds part of a limit."""

    reservation_id: str
    agent: str
    amount: Number
    expires_at: str


class Reason(Part):
    """Why not, or, for `soft_limit`, what to mind."""

    code: Literal["kill_switch", "limit", "soft_limit"]
    message: str
    limit_id: str | None
    asked: Number | None
    retry_at: str | None
    holders: Annotated[list[Holder], ListElsewhere]


class UsageRecorded(Result):
    id: str
    status: Literal["recorded", "duplicate", "corrected"]
    outcome: Literal["accepted", "over_limit", "rejected"]
    cost_usd: Number | None
    cost_source: Literal["reported", "computed", "unpriced"]
    retry_after_s: int | None
    limits: Annotated[list[LimitState], ListElsewhere]

    @classmethod
    def of(cls, recorded: "Recorded", usage: "Usage") -> Self:
        return cls(message=wording.recorded(recorded, usage), **told.recorded_fields(recorded))


class Decided(Result):
    """Whether it is allowed, and everything that explains it. `affordable` has the metrics that a limit
    counts."""

    allowed: bool
    reasons: list[Reason]
    retry_after_s: int | None
    affordable: dict[str, Number]
    limits: list[LimitState]

    @classmethod
    def of(cls, decision: "decide.Decision", at_us: int, shut: "Shut" = ()) -> Self:
        """`shut`: where it is not allowed all the same, which only the message says."""
        return cls(
            message=wording.decision(decision, at_us) + wording.shut(shut),
            **told.decided_fields(decision, partial(wording.reason, at_us=at_us)),
        )


class BudgetReserved(Decided):
    status: Literal["reserved", "duplicate", "denied"]
    reasons: Annotated[list[Reason], ListElsewhere]
    affordable: Annotated[dict[str, Number], ObjectElsewhere]
    limits: Annotated[list[LimitState], ListElsewhere]
    reservation_id: str | None
    expires_at: str | None

    @classmethod
    def of_reserved(cls, reserved: "Reserved", at_us: int) -> Self:
        fields = told.reserved_fields(reserved, partial(wording.reason, at_us=at_us))
        return cls(message=wording.reserved(reserved, at_us), **fields)


class ReservationSettled(Result):
    """`status` and what follows describe the usage; released and extended ones have none."""

    reservation_id: str
    status: Literal["recorded", "duplicate", "corrected", "released", "expired", "open"]
    expires_at: str | None = None
    late: bool = False
    id: str | None = None
    outcome: Literal["accepted", "over_limit", "rejected"] | None = None
    cost_usd: Number | None = None
    cost_source: Literal["reported", "computed", "unpriced"] | None = None
    retry_after_s: int | None = None
    limits: Annotated[list[LimitState], ListElsewhere] = Field(default_factory=list[LimitState])

    @classmethod
    def of_usage(cls, reservation_id: str, recorded: "Recorded", usage: "Usage | None") -> Self:
        """`usage` None: as it was estimated."""
        fields = told.settled_fields(reservation_id, recorded)
        return cls(message=wording.recorded(recorded, usage), **fields)

    @classmethod
    def of_hold(cls, held: "Reservation") -> Self:
        return cls(message=wording.hold(held), **told.hold_fields(held))


class GateAnswered(Result):
    """`hook` is what the harness reads; it is the text of the answer."""

    verdict: Literal["allow", "warn", "stop"]
    allowed: bool
    reasons: Annotated[list[Reason], ListElsewhere]
    retry_after_s: int | None
    hook: dict[str, Any] = Field(exclude=True)

    def text(self) -> str:
        return json.dumps(self.hook, ensure_ascii=False)

    @classmethod
    def of(
        cls,
        decision: "decide.Decision",
        verdict: Literal["allow", "warn", "stop"],
        hook: dict[str, Any],
        at_us: int,
    ) -> Self:
        fields = told.decided_fields(decision, partial(wording.reason, at_us=at_us))
        return cls(message=wording.decision(decision, at_us), verdict=verdict, hook=hook, **fields)
