"""Random ledgers in a file: what agents and operators may do to one, drawn."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from hypothesis import strategies as st

from agent_meter_mcp import Ledger, LimitKey, Report, Subject, Usage, Who
from agent_meter_mcp.core.commands import Settle
from agent_meter_mcp.core.errors import MeterError
from agent_meter_mcp.core.roles import Caller

if TYPE_CHECKING:
    from agent_meter_mcp.core.models import SwitchKind

OPERATOR = Caller("operator", "olga")
START_US = 1_792_880_000_123_457
"""The last evening before clocks go back in Berlin (25 October 2026, 01:00 UTC), on no whole millisecond."""

Step = Callable[[Ledger, "Clock"], Awaitable[object]]

NAMES = st.sampled_from(["ann", "bob x", "everyone", "agent *", "[bold]é[/]", "=1+1", "a" * 128])
SERVICES = st.sampled_from(["api", "openai", "at x"])
TEXTS = st.none() | st.sampled_from(["p", "q q", "“p”"])
# At most 15 digits, as the numbers of JSON are exact.
NANOS = st.none() | st.integers(0, 10**14)
COUNTS = st.none() | st.integers(0, 10**6)
METADATA = st.none() | st.sampled_from(['{"a":1.5,"b":[null,"é"]}', '{"z":{"x":true}}', "{}"])

usages = st.builds(
    Usage,
    cost_nano_usd=NANOS,
    requests=st.integers(0, 5),
    units_micro=st.none() | st.integers(0, 10**14),
    unit_type=st.none() | st.just("page"),
    input_tokens=COUNTS,
    output_tokens=COUNTS,
    cache_read_tokens=COUNTS,
    cache_write_tokens=COUNTS,
    cache_write_1h_tokens=COUNTS,
    model=st.none() | st.sampled_from(["gpt-4o", "m"]),
).map(lambda usage: usage if usage.cost_nano_usd is None else usage.replace(cost_source="reported"))
whos = st.builds(Who, NAMES, SERVICES, st.none(), TEXTS, TEXTS)
subjects = st.one_of(
    st.just(Subject()),
    st.builds(Subject, st.just("agent"), st.just("*") | NAMES),
    st.builds(Subject, st.just("tier"), st.just("gold")),
    st.builds(Subject, st.sampled_from(["project", "session"]), st.sampled_from(["*", "p", "q q"])),
)
keys = st.builds(
    LimitKey,
    subjects,
    st.none() | SERVICES,
    st.sampled_from(["requests", "units", "tokens", "cost_usd"]),
    st.sampled_from(["90s", "1h", "7d", "hour", "day", "week", "month", "year", "total"]),
)
agent_changes = st.dictionaries(
    st.sampled_from(["name", "tier", "owner"]), st.none() | st.sampled_from(["gold", "[x]"]), min_size=1
)
switches = st.one_of(
    st.tuples(st.just("agent"), NAMES), st.tuples(st.just("service"), SERVICES), st.just(("everything", None))
)


class Clock:
    """It stands still, for every ledger of this process, until it is moved."""

    def __init__(self) -> None:
        self.now_us = START_US

    def __call__(self) -> int:
        return self.now_us


@st.composite
def _uses(draw: st.DrawFn) -> Step:
    report = Report(
        draw(whos),
        draw(usages),
        operation=draw(st.none() | st.just("chat")),
        source=draw(st.sampled_from(["self", "sdk", "import"])),
        status_code=draw(st.none() | st.just(200)),
        duration_ms=draw(st.none() | st.just(12)),
        metadata=draw(METADATA),
    )
    return lambda ledger, _: ledger.record(OPERATOR, report)


@st.composite
def _holds(draw: st.DrawFn) -> Step:
    report, is_settled = Report(draw(whos), draw(usages), operation="hold"), draw(st.booleans())

    async def hold(ledger: Ledger, _: Clock) -> None:
        held = (await ledger.reserve(OPERATOR, report, 3_000_000_000)).reservation
        if held is not None and is_settled:
            await ledger.settle(OPERATOR, Settle(held.reservation_id, report.usage, None, None, None))

    return hold


@st.composite
def _limits(draw: st.DrawFn) -> Step:
    key, maximum = draw(keys), draw(st.integers(0, 10**12) | st.just(3))
    given: dict[str, Any] = {
        "action": draw(st.sampled_from([None, "warn", "reject"])),
        "zone": draw(st.sampled_from([None, "Europe/Berlin"])),
        "thresholds": draw(st.none() | st.just((10, 100))),
    }
    return lambda ledger, _: ledger.set_limit(OPERATOR, key, maximum, **given)


@st.composite
def _others(draw: st.DrawFn) -> Step:
    changed, changes = draw(NAMES), draw(agent_changes)
    kind, name = draw(switches)
    engaged, moved_us = draw(st.booleans()), draw(st.sampled_from([1, 61_000_000, 3_600_000_000, 10**11]))

    async def move(_: Ledger, clock: Clock) -> None:
        clock.now_us += moved_us

    async def key(ledger: Ledger, _: Clock) -> None:
        made, _text = await ledger.create_key(OPERATOR, "viewer", name="vera")
        if engaged:
            await ledger.revoke_key(OPERATOR, made.key_id)

    return draw(
        st.sampled_from(
            [
                lambda ledger, _: ledger.set_agent(OPERATOR, changed, changes),
                lambda ledger, _: ledger.set_switch(
                    OPERATOR, cast("SwitchKind", kind), name, engaged, "costs"
                ),
                move,
                key,
            ]
        )
    )


steps: st.SearchStrategy[list[Step]] = st.lists(_uses() | _holds() | _limits() | _others(), max_size=25)


async def build(ledger: Ledger, clock: Clock, does: list[Step]) -> None:
    """What is refused by the rules is as good as what is not.

    What is written has a time of its own; in between the clock goes on, past all of them.
    """
    for step in does:
        clock.now_us += 1003
        with suppress(MeterError):
            await step(ledger, clock)
