"""The words of the ledger: events, agents, limits, reservations, switches. All amounts are integers.

Money is nano-USD, units are micro-units, times are microseconds since 1970 in UTC.
"""

from __future__ import annotations

from .value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Metric = Literal["requests", "units", "tokens", "cost_usd"]
    Source = Literal["self", "sdk", "middleware", "proxy", "transcript", "otlp", "import"]
    CostSource = Literal["reported", "computed", "unpriced"]
    Outcome = Literal["accepted", "over_limit", "rejected"]
    Action = Literal["reject", "warn"]
    SubjectKind = Literal["pool", "agent", "tier", "project", "session"]
    SwitchKind = Literal["agent", "service", "everything"]
    ReservationState = Literal["open", "settled", "released", "expired"]
    Amounts = tuple[int, int, int, int]
    Stated = tuple[int | None, int | None, int | None, int | None]

METRICS: tuple[Metric, ...] = ("requests", "units", "tokens", "cost_usd")
"""Order of the metrics in every `Amounts` vector: requests, micro-units, tokens, nano-USD."""
TOKEN_FIELDS = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
)
"""The kinds of tokens, as `Usage` and everything that is made of it call them."""

SOURCES: tuple[Source, ...] = ("self", "sdk", "middleware", "proxy", "transcript", "otlp", "import")
OUTCOMES: tuple[Outcome, ...] = ("accepted", "over_limit", "rejected")
ACTIONS: tuple[Action, ...] = ("reject", "warn")
LIMITS_MAX = 1000
LEDGER_MAX = 2**63 - 1
"""No sum of any metric over the whole ledger may pass it: SQLite's largest integer."""
LIMIT_FIELDS = ("agent", "tier", "project", "session")
"""The arguments that may name the subject of a limit; none of them means everybody together."""
EACH = "*"
"""The subject value that means each one separately."""

SECOND_US = 1_000_000
FILES_SETTLED_NS = 2_500_000_000
"""A file or folder that has not changed for so long has another time after its next change: the clocks of
file systems go in steps, of 2 s at most (FAT's)."""
FUTURE_MAX_US = 5 * 60 * SECOND_US
"""How far ahead of our clock `occurred_at` may be."""
BACKDATE_MAX_US = 5 * 60 * SECOND_US
"""How far back usage that an agent itself reports may be counted."""
TREE_DEPTH_MAX = 8


class Usage(Value):
    """Amounts of one piece of usage, or of an estimate. None means not stated.

    `input_tokens` are the uncached ones; `cache_write_tokens` are written for 5 minutes,
    `cache_write_1h_tokens` for an hour. `price_version` says with which price list a computed cost was made.
    """

    requests: int = 1
    units_micro: int | None = None
    unit_type: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    model: str | None = None
    cost_nano_usd: int | None = None
    cost_source: CostSource = "unpriced"
    price_version: str | None = None

    @property
    def tokens(self) -> int | None:
        """All kinds of tokens together; None when none was stated."""
        if (
            self.input_tokens is None
            and self.output_tokens is None
            and self.cache_read_tokens is None
            and self.cache_write_tokens is None
            and self.cache_write_1h_tokens is None
        ):
            return None
        return self.amounts[2]

    @property
    def amounts(self) -> Amounts:
        """What limits count; what was not stated counts 0."""
        return (
            self.requests,
            self.units_micro or 0,
            (self.input_tokens or 0)
            + (self.output_tokens or 0)
            + (self.cache_read_tokens or 0)
            + (self.cache_write_tokens or 0)
            + (self.cache_write_1h_tokens or 0),
            self.cost_nano_usd or 0,
        )

    def instead_of(self, estimate: Usage) -> Usage:
        """What was really used: of the estimate's model and unit where it names none."""
        model, unit_type = self.model or estimate.model, self.unit_type or estimate.unit_type
        if model == self.model and unit_type == self.unit_type:
            return self
        return self.replace(model=model, unit_type=unit_type)

    @property
    def kept(self) -> Usage:
        """As a ledger keeps it: an unknown cost is unpriced, and only a computed one names its prices."""
        if self.cost_nano_usd is None:
            if self.cost_source == "unpriced" and self.price_version is None:
                return self
            return self.replace(cost_source="unpriced", price_version=None)
        if self.cost_source == "computed" or self.price_version is None:
            return self
        return self.replace(price_version=None)

    @property
    def stated(self) -> Stated:
        """What an estimate asks for, per metric; None where it says nothing."""
        return (self.requests, self.units_micro, self.tokens, self.cost_nano_usd)


class Who(Value):
    """Whose usage it is, and where it is used. `parent` links an agent that has no parent yet."""

    agent: str
    service: str | None = None
    parent: str | None = None
    project: str | None = None
    session: str | None = None


class UsageEvent(Value):
    """One piece of usage as its caller tells it. `id` is unique within the service, forever.

    `occurred_at_us` is None when the caller gave no time: then it happened when it was recorded.
    `metadata` is canonical JSON text of at most 8 KiB.
    """

    id: str
    who: Who
    usage: Usage
    operation: str | None = None
    source: Source = "self"
    occurred_at_us: int | None = None
    status_code: int | None = None
    duration_ms: int | None = None
    metadata: str | None = None


class StoredEvent(Value):
    """An event as the ledger holds it. `seq` orders events by when they were recorded (microseconds).

    `booked_at_us` is the moment it counts at; `count` is above 1 only for refusals folded within one second.
    For a refusal, `limit_id` names the limit (None: the kill switch) and the amounts are what was asked
    first."""

    seq: int
    event: UsageEvent
    outcome: Outcome
    booked_at_us: int
    count: int = 1
    limit_id: str | None = None

    @property
    def recorded_at_us(self) -> int:
        return self.seq


class Correction(StoredEvent):
    """An event as it is after it was corrected. `number` counts all corrections."""

    number: int = 0


class Refused(StoredEvent):
    """Refusals that are told of now: `count` of them, and there are `total` in their row."""

    total: int = 0


class Agent(Value):
    """Who uses. Unknown agents come into being with their first usage."""

    agent_id: str
    name: str | None = None
    tier: str | None = None
    owner: str | None = None
    parent: str | None = None


class Subject(Value):
    """Whom a limit is for: everybody together (`pool`), or one name, or `"*"` for each separately."""

    kind: SubjectKind = "pool"
    name: str | None = None

    def __str__(self) -> str:
        return "everyone" if self.kind == "pool" else f"{self.kind} {self.name}"


class LimitKey(Value):
    """What makes two limits the same limit."""

    subject: Subject
    service: str | None
    metric: Metric
    window: str

    def __str__(self) -> str:
        at = "" if self.service is None else f" at {self.service}"
        return f"{self.metric} per {self.window} for {self.subject}{at}"


class Limit(Value):
    """At most `max` (in the metric's integer unit) within the window, for the subject, optionally at one
    service.

    `thresholds` are percentages of `max`; `zone` matters for calendar windows only.
    """

    limit_id: str
    key: LimitKey
    max: int
    action: Action = "reject"
    zone: str = "UTC"
    thresholds: tuple[int, ...] = (50, 80, 100)
    created_at_us: int = 0


class Reservation(Value):
    """A hold on budget. `reserved_at_us` is the moment at which its usage will be booked."""

    reservation_id: str
    event_id: str
    who: Who
    usage: Usage
    operation: str | None
    source: Source
    reserved_at_us: int
    expires_at_us: int
    state: ReservationState = "open"


class KillSwitch(Value):
    """An agent (with its tree), a service or everything, stopped."""

    kind: SwitchKind
    name: str | None
    reason: str
    engaged_by: str
    engaged_at_us: int

    def __str__(self) -> str:
        return "everything" if self.kind == "everything" else f"{self.kind} {self.name}"


class Alert(Value):
    """A threshold that was reached, once per limit, scope, window and threshold.

    `number` counts them from 1.
    """

    number: int
    raised_at_us: int
    limit_id: str
    scope: str
    period_start_us: int
    threshold: int
    used: int
    max: int


class AuditEntry(Value):
    """A control action. `before` and `after` are JSON text, or None."""

    seq: int
    actor: str
    action: str
    target: str
    before: str | None
    after: str | None
    reason: str | None = None


def audited(value: Value | dict[str, object] | None) -> str | None:
    """As an audit entry has it before or after."""
    from json import dumps

    if value is None:
        return None
    return dumps(value, default=lambda part: part.as_dict(), ensure_ascii=False, sort_keys=True)
