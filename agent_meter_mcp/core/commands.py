"""What can be asked of a store, and what it answers. A command that fails is answered with its MeterError."""

from __future__ import annotations

from .decide import Decision, LimitState
from .errors import MeterError
from .models import (
    Agent,
    Alert,
    KillSwitch,
    Limit,
    LimitKey,
    Reservation,
    Usage,
    UsageEvent,
    Who,
)
from .value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from .keys import Key
    from .models import Action, CostSource, Outcome, Source, SwitchKind
    from .roles import Role


class Record(Value):
    """Usage that happened. Always counted.

    `may_backdate`: the reporter is trusted with `occurred_at`. `want_limits`: answer with the states of the
    limits that bind (a batch has no use for them). `source_is_stated`: the caller has named the source, so a
    repeat is judged by it."""

    event: UsageEvent
    may_backdate: bool = True
    want_limits: bool = False
    source_is_stated: bool = True


class Reserve(Value):
    """A hold of `usage`, for `ttl_us` from now. `event_id` is the id that the settled event will have.

    `is_new`: that id was made for it just now, so that there is nothing yet that could have it.
    `source_is_stated` as in `Record`.
    """

    reservation_id: str
    event_id: str
    who: Who
    usage: Usage
    ttl_us: int
    operation: str | None = None
    source: Source = "self"
    is_new: bool = False
    source_is_stated: bool = True


class Settle(Value):
    """The actual usage of a reservation. An empty `usage` (None) means that the estimate was right."""

    reservation_id: str
    usage: Usage | None
    status_code: int | None = None
    duration_ms: int | None = None
    metadata: str | None = None
    want_limits: bool = False


class Release(Value):
    """Nothing was used: give the hold back."""

    reservation_id: str


class Extend(Value):
    """The hold lasts `ttl_us` from now."""

    reservation_id: str
    ttl_us: int


class Refusal(Value):
    """Refusals within one second, agent, service and limit, folded. `limit_id` None: the kill switch."""

    who: Who
    operation: str | None
    source: Source
    asked: Usage
    limit_id: str | None
    first_at_us: int
    count: int = 1


class Refuse(Value):
    """Keep refusals that were decided in a read snapshot."""

    refusals: tuple[Refusal, ...]


class SetAgent(Value):
    """Fields in `changes` (name, tier, owner, parent) get their values; None clears."""

    agent_id: str
    changes: tuple[tuple[str, str | None], ...]
    actor: str


class SetLimit(Value):
    """Create or change. None in `action`, `zone` or `thresholds` keeps what is there (or the default)."""

    limit_id: str
    key: LimitKey
    max: int
    actor: str
    action: Action | None = None
    zone: str | None = None
    thresholds: tuple[int, ...] | None = None

    def applied_to(self, before: Limit | None, at_us: int) -> Limit:
        """The limit as it is then; one that was not there is made at `at_us`."""
        kept = before or Limit(self.limit_id, self.key, self.max, created_at_us=at_us)
        return kept.replace(
            max=self.max,
            action=kept.action if self.action is None else self.action,
            zone=kept.zone if self.zone is None else self.zone,
            thresholds=kept.thresholds if self.thresholds is None else self.thresholds,
        )


class RemoveLimit(Value):
    """By id or by natural key."""

    actor: str
    limit_id: str | None = None
    key: LimitKey | None = None


class SetSwitch(Value):
    """Engage or release a kill switch."""

    kind: SwitchKind
    name: str | None
    engaged: bool
    reason: str | None
    actor: str


class CreateKey(Value):
    """A key, known by the digest of its token."""

    key_id: str
    prefix: str
    digest: bytes
    role: Role
    bound_to: str | None
    name: str | None
    expires_at_us: int | None
    actor: str


class RevokeKey(Value):
    """`key` is its id or its prefix."""

    key: str
    actor: str


class TouchKeys(Value):
    """Ids of keys, and when each was used."""

    used: tuple[tuple[str, int], ...]


class Recorded(Value):
    """Answer to Record and Settle. `retry_after_us`: when nothing is left, and the states were wanted.

    `switch` is the kill switch that stops this usage now, if the states were wanted.
    """

    event_id: str
    seq: int
    status: Literal["recorded", "duplicate", "corrected"]
    outcome: Outcome
    cost_nano_usd: int | None
    cost_source: CostSource
    booked_at_us: int
    late: bool = False
    limits: tuple[LimitState, ...] = ()
    retry_after_us: int | None = None
    switch: KillSwitch | None = None


class Reserved(Value):
    """Answer to Reserve. `reservation` is None when denied."""

    status: Literal["reserved", "duplicate", "denied"]
    decision: Decision
    reservation: Reservation | None


class LimitSet(Value):
    limit: Limit
    status: Literal["created", "changed", "unchanged"]


class Switched(Value):
    """`switch` is the switch as it is now, or as it was when it was released; None: nothing was engaged.

    `still`: a wider one, which stops all the same what is released.
    """

    switch: KillSwitch | None
    engaged: bool
    changed: bool
    still: KillSwitch | None = None


class Applied(Value):
    """`results` in the order of the commands; `alerts` that were raised on the way."""

    results: list[Result]
    alerts: tuple[Alert, ...] = ()


class Ask(Value):
    """May this be done now? (`check_budget`: nothing changes.)"""

    who: Who
    usage: Usage


if TYPE_CHECKING:
    Command = (
        Record
        | Reserve
        | Settle
        | Release
        | Extend
        | Refuse
        | SetAgent
        | SetLimit
        | RemoveLimit
        | SetSwitch
        | CreateKey
        | RevokeKey
        | TouchKeys
    )
    Result = Recorded | Reserved | Reservation | Agent | LimitSet | Limit | Switched | Key | int | MeterError
