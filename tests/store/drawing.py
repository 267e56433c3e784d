"""What the state machine draws. Ranges are small, so that names meet, limits bind and windows end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from agent_meter_mcp.core.models import LimitKey, Subject, Usage, Who
from agent_meter_mcp.core.queries import ORDERS, SummaryQuery, UsageFilter

if TYPE_CHECKING:
    from agent_meter_mcp.core.models import Source, SwitchKind
    from agent_meter_mcp.core.queries import Dimension

# The last evening before clocks go back in Berlin (25 October 2026, 01:00 UTC): hours, days and a month turn.
START_US = 1_792_880_000_000_000
SECOND = 1_000_000
HOUR = 3600 * SECOND

SERVICES = ["api", "llm"]
ZONES = ["UTC", "Europe/Berlin", "Asia/Kathmandu"]

agents = st.sampled_from(["ann", "bob", "cy", "dan"])
actions = st.sampled_from([None, "reject", "reject", "warn"])
maxima = st.integers(0, 14)
sources: st.SearchStrategy[Source] = st.sampled_from(["self", "sdk"])
tiers = st.sampled_from([None, "gold", "iron"])
zones = st.none() | st.sampled_from(ZONES)
thresholds = st.none() | st.sampled_from([(), (10, 100), (150,)])
lifetimes = st.sampled_from([SECOND, 30 * SECOND, HOUR])
pauses = st.sampled_from([0, 1, 7, 1000, SECOND, 1_700_000, 40 * SECOND, HOUR // 3, 5 * HOUR])
jumps = st.sampled_from([-5 * SECOND, -3 * HOUR, 26 * HOUR, 40 * 24 * HOUR])
nearly = st.integers(-4, 1)
"""Microseconds beside a moment at which something ends."""
agos = st.sampled_from(
    [None, None, None, 1, 900_000, 59 * SECOND, 3000 * SECOND, 70 * HOUR, 32 * 24 * HOUR, -SECOND]
)
"""How long ago usage occurred; None: now, and not said."""

_amounts = st.integers(0, 6)
_plain = st.builds(Usage, requests=st.just(1), input_tokens=_amounts)
_detailed = st.builds(
    Usage,
    requests=st.integers(0, 3),
    units_micro=st.none() | _amounts,
    unit_type=st.none() | st.just("page"),
    input_tokens=st.none() | _amounts,
    output_tokens=st.none() | _amounts,
    cache_read_tokens=st.none() | _amounts,
    model=st.none() | st.just("m"),
    cost_nano_usd=st.none() | _amounts,
    cost_source=st.sampled_from(["reported", "unpriced"]),
    price_version=st.none() | st.just("list 1"),
)


def _sound(usage: Usage) -> Usage:
    """A cost has a source; one that was computed names its prices."""
    if usage.cost_nano_usd is None or usage.model is None:
        return usage.replace(cost_source="reported" if usage.cost_nano_usd is not None else usage.cost_source)
    return usage.replace(cost_source="computed", price_version="list 1")


usages = _plain | _detailed.map(_sound)
whos = st.builds(
    Who,
    agents,
    st.sampled_from(SERVICES),
    st.none() | st.none() | st.none() | agents,
    st.none() | st.sampled_from(["p", "q"]),
    st.none() | st.sampled_from(["s", "t"]),
)

_subjects = st.sampled_from(
    [
        Subject(),
        Subject(),
        Subject("agent", "*"),
        Subject("agent", "*"),
        Subject("agent", "ann"),
        Subject("agent", "bob"),
        Subject("agent", "cy"),
        Subject("tier", "gold"),
        Subject("project", "*"),
        Subject("project", "p"),
        Subject("session", "s"),
        Subject("session", "*"),
    ]
)
keys = st.builds(
    LimitKey,
    _subjects,
    st.none() | st.none() | st.sampled_from(SERVICES),
    st.sampled_from(["requests", "units", "tokens", "cost_usd"]),
    st.sampled_from(["2s", "60s", "1h", "24h", "61h", "hour", "day", "month", "total"]),
)
switches: st.SearchStrategy[tuple[SwitchKind, str | None]] = st.one_of(
    st.tuples(st.just("agent"), agents),
    st.tuples(st.just("service"), st.sampled_from(SERVICES)),
    st.just(("everything", None)),
)  # pyright: ignore[reportAssignmentType]  a tuple of literals is drawn, a tuple of str is inferred

_dimensions: st.SearchStrategy[Dimension] = st.sampled_from(
    [
        "agent", "service", "operation", "model", "project", "session", "tier", "owner", "source", "outcome",
        "hour", "day", "week", "month",
    ]
)  # fmt: skip
_filters: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {},
        {},
        {"agent": "ann"},
        {"agent": "ann", "include_children": True},
        {"within": "bob"},
        {"service": "api", "model": "m"},
        {"project": "p"},
        {"session": "s", "source": "self"},
        {"operation": "op"},
        {"tier": "gold"},
        {"outcome": "over_limit"},
        {"outcome": "rejected"},
    ]
)


@st.composite
def summaries(draw: st.DrawFn, now_us: int) -> SummaryQuery:
    """About any range that ends around now."""
    since = draw(st.none() | st.integers(0, 80 * HOUR) | st.integers(0, 3 * SECOND))
    until = draw(st.none() | st.integers(-SECOND, HOUR))
    wanted = UsageFilter(
        None if since is None else now_us - since, None if until is None else now_us - until, **draw(_filters)
    )
    group_by = tuple(draw(st.lists(_dimensions, unique=True, max_size=3)))
    return SummaryQuery(
        wanted,
        group_by,
        draw(st.sampled_from(ZONES)),
        draw(st.sampled_from(ORDERS)),
        draw(st.sampled_from([2, 100])),
    )
