"""What can be read from a store, and the shapes that come back."""

from __future__ import annotations

from .decide import LimitState
from .limits import Bound
from .models import Agent, Limit, StoredEvent
from .value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from .models import Alert, LimitKey, Outcome, Source

    Dimension = Literal[
        "agent", "service", "operation", "model", "project", "session", "tier", "owner", "source", "outcome",
        "hour", "day", "week", "month",
    ]  # fmt: skip
    AgentStatus = Literal["active", "idle", "over_limit", "stopped"]

DIMENSIONS: tuple[Dimension, ...] = (
    "agent", "service", "operation", "model", "project", "session", "tier", "owner", "source", "outcome",
    "hour", "day", "week", "month",
)  # fmt: skip
STATUSES: tuple[AgentStatus, ...] = ("active", "idle", "over_limit", "stopped")
TIME_DIMENSIONS = ("hour", "day", "week", "month")
ORDERS = ("cost_usd", "tokens", "requests", "units", "events", "rejected", "key")
GROUPS_MAX = 1000
EVENTS_PAGE_MAX = 500
AGENTS_PAGE_MAX = 500
ACTIVE_WITHIN_US = 5 * 60 * 1_000_000
"""An agent is active when it was seen within this time."""


class UsageFilter(Value):
    """Which usage: booked in [since_us, until_us), and equal in every field that is not None.

    `agent` with `include_children` means its tree. `within` bounds the agents that the caller may see.
    """

    since_us: int | None = None
    until_us: int | None = None
    agent: str | None = None
    include_children: bool = False
    within: str | None = None
    service: str | None = None
    operation: str | None = None
    model: str | None = None
    project: str | None = None
    session: str | None = None
    tier: str | None = None
    source: Source | None = None
    outcome: Outcome | None = None


class SummaryQuery(Value):
    """Totals per group.

    Time groups are cut in `zone`. `limit` groups at most, the largest in `order_by` first.
    """

    filter: UsageFilter
    group_by: tuple[Dimension, ...] = ()
    zone: str = "UTC"
    order_by: str = "cost_usd"
    limit: int = 100


class Totals(Value):
    """Sums over events that were counted. `rejected` counts refusals, which are in no other figure."""

    events: int = 0
    requests: int = 0
    units_micro: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    cost_nano_usd: int = 0
    unpriced: int = 0
    over_limit: int = 0
    rejected: int = 0

    @property
    def tokens(self) -> int:
        return (
            self.input_tokens
            + self.output_tokens
            + self.cache_read_tokens
            + self.cache_write_tokens
            + self.cache_write_1h_tokens
        )


class Group(Value):
    """`key` has one entry per dimension of `group_by`: None where it was not given; of a time, the start of
    the period (microseconds since 1970).
    """

    key: tuple[str | int | None, ...]
    totals: Totals


class Summary(Value):
    """`groups_left_out` says how many more groups there are beyond the limit; `total` counts them too."""

    total: Totals
    groups: tuple[Group, ...]
    groups_left_out: int = 0


class EventsQuery(Value):
    """Newest first, recorded before `before_seq` (a cursor from the page before).

    `ids`: of all these only the usage that has one of these ids.
    """

    filter: UsageFilter
    limit: int = 50
    before_seq: int | None = None
    ids: tuple[str, ...] | None = None


class EventsPage(Value):
    events: tuple[StoredEvent, ...]
    next_seq: int | None


class AgentsQuery(Value):
    """In the order of agent ids, after `after_agent`. `agents`: of all these only those named there."""

    status: AgentStatus | None = None
    tier: str | None = None
    owner: str | None = None
    agent: str | None = None
    within: str | None = None
    after_agent: str | None = None
    limit: int = 50
    agents: tuple[str, ...] | None = None


class AgentView(Value):
    """An agent and how it stands.

    `totals` are over all time, `tightest` is the hard limit with the least room.
    """

    agent: Agent
    status: AgentStatus
    first_seen_us: int | None
    last_seen_us: int | None
    totals: Totals
    tightest: LimitState | None


def status_of(*, is_stopped: bool, is_over: bool, last_seen_us: int | None, at_us: int) -> AgentStatus:
    """How an agent stands at `at_us`: what stops it comes first."""
    if is_stopped:
        return "stopped"
    if is_over:
        return "over_limit"
    is_active = last_seen_us is not None and at_us - last_seen_us <= ACTIVE_WITHIN_US
    return "active" if is_active else "idle"


class AgentsPage(Value):
    agents: tuple[AgentView, ...]
    next_agent: str | None


class LimitView(Value):
    """A limit as it stands. For a limit that counts each one separately, `state` is its tightest counter's.

    `bound` says, when asked for one agent, whether it binds or which limit replaced it.
    """

    limit: Limit
    state: LimitState | None
    bound: Bound | None = None

    @property
    def is_replaced(self) -> bool:
        """Whether it does not bind the one agent that was asked for."""
        return self.bound is not None and self.bound.replaced_by is not None


class AlertView(Value):
    """A threshold that was reached, and which limit it is of; None: that limit is gone."""

    alert: Alert
    key: LimitKey | None


class Difference(Value):
    """A view that does not agree with the ledger: which, what it says, and what the events say."""

    view: str
    where: str
    live: int
    rebuilt: int
