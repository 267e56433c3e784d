"""Two SQLite stores on one file, restarted at will, against the store that walks everything.

Both get the same commands, in the same order and at the same times, and must give the same answers.
`AGENT_METER_HYPOTHESIS=deep` makes the run long.
"""

from __future__ import annotations

import os
import tempfile
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from agent_meter_mcp.core.commands import (
    Ask,
    Extend,
    Record,
    Refusal,
    Refuse,
    Release,
    RemoveLimit,
    Reserve,
    SetAgent,
    SetLimit,
    SetSwitch,
    Settle,
)
from agent_meter_mcp.core.errors import MeterError
from agent_meter_mcp.core.models import LimitKey, Subject, Usage, UsageEvent, Who
from agent_meter_mcp.core.queries import AgentsQuery, EventsQuery, SummaryQuery, UsageFilter
from agent_meter_mcp.store.memory import MemoryStore
from agent_meter_mcp.store.sqlite import SqliteStore, open_store
from agent_meter_mcp.store.sqlite import rollups as sqlite_rollups

DEEP = os.environ.get("AGENT_METER_HYPOTHESIS") == "deep"
# A moment on the last evening before clocks go back in Berlin, so that hours, days and months turn and repeat.
START_US = 1_792_880_000_000_000
SECOND = 1_000_000

AGENTS = ["ann", "bob", "cy", "dan"]
SERVICES = ["api", "llm"]
WINDOWS = ["2s", "60s", "1h", "61h", "hour", "day", "month", "total"]
ZONES = ["UTC", "Europe/Berlin", "Asia/Kathmandu"]

amounts = st.integers(0, 6)
agents = st.sampled_from(AGENTS)
usages = st.builds(
    Usage,
    requests=st.integers(0, 3),
    units_micro=st.none() | amounts,
    unit_type=st.none() | st.just("page"),
    input_tokens=st.none() | amounts,
    cache_read_tokens=st.none() | amounts,
    model=st.none() | st.just("m"),
    cost_nano_usd=amounts,
    cost_source=st.just("reported"),
).map(
    # A cost that we computed names its prices.
    lambda usage: usage.replace(cost_source="computed", price_version="list 1") if usage.model else usage
) | st.builds(Usage, requests=st.just(1), input_tokens=amounts)
whos = st.builds(
    Who,
    agents,
    st.sampled_from(SERVICES),
    st.none() | st.none() | st.none() | agents,
    st.none() | st.sampled_from(["p", "q"]),
    st.none() | st.sampled_from(["s", "t"]),
).filter(lambda who: who.parent != who.agent)
subjects = st.sampled_from(
    [
        Subject(),
        Subject(),
        Subject("agent", "*"),
        *(Subject("agent", name) for name in AGENTS[:3]),
        Subject("tier", "gold"),
        Subject("project", "*"),
        Subject("project", "p"),
        Subject("session", "s"),
        Subject("session", "*"),
    ]
)
keys = st.builds(
    LimitKey,
    subjects,
    st.none() | st.none() | st.sampled_from(SERVICES),
    st.sampled_from(["requests", "units", "tokens", "cost_usd"]),
    st.sampled_from(WINDOWS),
)
pauses = st.sampled_from([0, 1, 7, 1_000, SECOND, 1_700_000, 40 * SECOND, 20 * 60 * SECOND, 5 * 3600 * SECOND])
back = st.none() | st.none() | st.sampled_from([1, 900_000, 59 * SECOND, 3000 * SECOND, 70 * 3600 * SECOND])


class Stores(RuleBasedStateMachine):
    """The machine. `recorded` and `reserved` are what commands can come back to."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.folder.name, "meter.db")
        self.model = MemoryStore()
        self.files: list[SqliteStore] = []
        self.turn = 0
        self.now_us = START_US
        self.count = 0
        self.recorded: list[Record] = []
        self.reserved: list[tuple[str, Reserve]] = []
        self.batch: list[Any] = []

    @initialize()
    def open(self) -> None:
        self.files = [open_store(self.path, synchronous="NORMAL") for _ in range(2)]

    def teardown(self) -> None:
        for store in self.files:
            store.close()
        self.folder.cleanup()

    @property
    def file(self) -> SqliteStore:
        return self.files[self.turn]

    def new_id(self) -> str:
        self.count += 1
        return f"{'id' if self.count % 3 else '01a20b12-8731-7b81-b52b-'}{self.count:012x}"

    def apply(self, *commands: Any) -> None:
        if self.batch:
            self.batch.extend(commands)
            return
        self.compare(list(commands))

    def compare(self, commands: list[Any]) -> None:
        left = self.file.apply(commands, self.now_us)
        right = self.model.apply(commands, self.now_us)
        for command, one, other in zip(commands, left.results, right.results, strict=True):
            if isinstance(one, MeterError) or isinstance(other, MeterError):
                assert (type(one), getattr(one, "field", None)) == (type(other), getattr(other, "field", None)), (
                    command, one, other,
                )  # fmt: skip
            else:
                assert one == other, (command, one, other)
        assert left.alerts == right.alerts

    # Time, processes

    @rule(pause=pauses)
    def wait(self, pause: int) -> None:
        self.now_us += pause

    @rule(jump=st.sampled_from([-5 * SECOND, -3 * 3600 * SECOND, 26 * 3600 * SECOND]))
    def jump(self, jump: int) -> None:
        self.now_us += jump

    @rule()
    def let_the_other_process_go_on(self) -> None:
        self.turn = 1 - self.turn

    @rule()
    def restart(self) -> None:
        self.file.close()
        self.files[self.turn] = open_store(self.path, synchronous="NORMAL")

    @rule()
    @precondition(lambda self: not self.batch)
    def begin_batch(self) -> None:
        self.batch = [SetAgent("ann", (), "op")]

    @rule()
    @precondition(lambda self: self.batch)
    def end_batch(self) -> None:
        commands, self.batch = self.batch, []
        self.compare(commands)

    # Usage

    @rule(who=whos, usage=usages, ago=back, trusted=st.booleans(), wanted=st.booleans(), ahead=st.booleans())
    def record(self, who: Who, usage: Usage, ago: int | None, trusted: bool, wanted: bool, ahead: bool) -> None:
        occurred = None if ago is None else self.now_us + SECOND if ahead else self.now_us - ago
        event = UsageEvent(self.new_id(), who, usage, "op" if wanted else None, "self", occurred)
        command = Record(event, trusted, wanted)
        self.recorded.append(command)
        self.apply(command)

    @rule(data=st.data(), more=st.integers(0, 3), wanted=st.booleans())
    @precondition(lambda self: self.recorded)
    def record_again(self, data: st.DataObject, more: int, wanted: bool) -> None:
        old = data.draw(st.sampled_from(self.recorded))
        usage = old.event.usage
        event = old.event.replace(usage=usage.replace(input_tokens=(usage.input_tokens or 0) + more))
        if more == 3:
            event = event.replace(operation="other")
        self.apply(old.replace(event=event, want_limits=wanted))

    @rule(who=whos, usage=usages, ttl=st.sampled_from([1, 30, 3600]), own_id=st.booleans())
    def reserve(self, who: Who, usage: Usage, ttl: int, own_id: bool) -> None:
        reservation_id = self.new_id()
        event_id = self.new_id() if own_id else reservation_id
        command = Reserve(reservation_id, event_id, who, usage, ttl * SECOND)
        self.reserved.append((reservation_id, command))
        self.apply(command)

    @rule(data=st.data())
    @precondition(lambda self: self.reserved)
    def reserve_again(self, data: st.DataObject) -> None:
        _, old = data.draw(st.sampled_from(self.reserved))
        if old.event_id != old.reservation_id:
            self.apply(old.replace(reservation_id=self.new_id()))

    @rule(data=st.data(), usage=st.none() | usages, wanted=st.booleans())
    @precondition(lambda self: self.reserved)
    def settle(self, data: st.DataObject, usage: Usage | None, wanted: bool) -> None:
        reservation_id, _ = data.draw(st.sampled_from(self.reserved))
        self.apply(Settle(reservation_id, usage, 200, None, None, wanted))

    @rule(data=st.data(), extend=st.booleans())
    @precondition(lambda self: self.reserved)
    def release_or_extend(self, data: st.DataObject, extend: bool) -> None:
        reservation_id, _ = data.draw(st.sampled_from(self.reserved))
        self.apply(Extend(reservation_id, 40 * SECOND) if extend else Release(reservation_id))

    @rule(data=st.data())
    @precondition(lambda self: self.reserved)
    def record_under_a_reserved_id(self, data: st.DataObject) -> None:
        _, old = data.draw(st.sampled_from(self.reserved))
        self.apply(Record(UsageEvent(old.event_id, old.who, Usage())))

    @rule(who=whos, usage=usages, count=st.integers(1, 3), known=st.booleans())
    def refuse(self, who: Who, usage: Usage, count: int, known: bool) -> None:
        limit_id = "limit" if known else None
        self.apply(Refuse((Refusal(who, None, "self", usage, limit_id, self.now_us, count),)))

    # Control

    @rule(key=keys, maximum=st.integers(0, 20), action=st.sampled_from([None, "reject", "warn"]), data=st.data())
    def set_limit(self, key: LimitKey, maximum: int, action: Any, data: st.DataObject) -> None:
        zone = data.draw(st.none() | st.sampled_from(ZONES)) if key.window in ("hour", "day", "month") else None
        thresholds = data.draw(st.none() | st.just((10, 100)))
        self.apply(SetLimit(self.new_id(), key, maximum, "op", action, zone, thresholds))

    @rule(data=st.data())
    def remove_limit(self, data: st.DataObject) -> None:
        known = sorted(self.model.policy().limits)
        if known:
            self.apply(RemoveLimit("op", data.draw(st.sampled_from(known))))

    @rule(agent=agents, tier=st.sampled_from([None, "gold", "iron"]))
    def set_tier(self, agent: str, tier: str | None) -> None:
        self.apply(SetAgent(agent, (("tier", tier), ("owner", "team")), "op"))

    @rule(agent=agents, parent=st.none() | agents)
    def set_parent(self, agent: str, parent: str | None) -> None:
        if agent != parent:
            self.apply(SetAgent(agent, (("parent", parent),), "op"))

    @rule(
        kind=st.sampled_from(["agent", "service", "everything"]),
        agent=agents,
        engaged=st.booleans(),
    )
    def switch(self, kind: Any, agent: str, engaged: bool) -> None:
        name = None if kind == "everything" else agent if kind == "agent" else "api"
        self.apply(SetSwitch(kind, name, engaged, "drill" if engaged else None, "op"))

    # Reading

    @rule(who=whos, usage=usages, anywhere=st.booleans())
    @precondition(lambda self: not self.batch)
    def peek(self, who: Who, usage: Usage, anywhere: bool) -> None:
        ask = Ask(who.replace(service=None) if anywhere else who, usage)
        assert self.file.peek([ask], self.now_us) == self.model.peek([ask], self.now_us)

    @rule(
        group_by=st.lists(
            st.sampled_from(["agent", "service", "model", "project", "tier", "owner", "outcome", "hour", "day", "month"]),
            unique=True,
            max_size=3,
        ),
        zone=st.sampled_from(ZONES),
        since=st.none() | st.integers(0, 80 * 3600),
        until=st.none() | st.integers(0, 3600),
        order_by=st.sampled_from(["cost_usd", "rejected", "key"]),
        chosen=st.sampled_from(["agent", "service", "tier", "outcome", "none"]),
    )  # fmt: skip
    @precondition(lambda self: not self.batch)
    def summarise(self, group_by: Any, zone: str, since: Any, until: Any, order_by: str, chosen: str) -> None:
        filters: dict[str, Any] = {
            "agent": {"agent": "ann", "include_children": True},
            "service": {"service": "api"},
            "tier": {"tier": "gold"},
            "outcome": {"outcome": "over_limit"},
            "none": {},
        }[chosen]
        wanted = UsageFilter(
            None if since is None else self.now_us - since * SECOND,
            None if until is None else self.now_us - until * SECOND,
            **filters,
        )
        query = SummaryQuery(wanted, tuple(group_by), zone, order_by, 5)
        assert self.file.summary(query, self.now_us) == self.model.summary(query, self.now_us)
        events = EventsQuery(wanted, 3)
        assert self.file.events(events) == self.model.events(events)

    @rule(status=st.sampled_from([None, "active", "idle", "over_limit", "stopped"]))
    @precondition(lambda self: not self.batch)
    def list_all(self, status: Any) -> None:
        query = AgentsQuery(status=status, limit=2)
        assert self.file.agents(query, self.now_us) == self.model.agents(query, self.now_us)
        assert self.file.limits(None, self.now_us) == self.model.limits(None, self.now_us)
        who = Who("ann", "api", None, "p", "s")
        assert self.file.limits(who, self.now_us) == self.model.limits(who, self.now_us)
        assert self.file.reservations(self.now_us) == self.model.reservations(self.now_us)
        assert self.file.alerts() == self.model.alerts()
        assert self.file.audit() == self.model.audit()
        assert self.file.names("agent", "") == self.model.names("agent", "")

    @rule()
    @precondition(lambda self: not self.batch)
    def verify(self) -> None:
        assert list(self.file.verify()) == []


sqlite_rollups.ROLL_AT = 5
sqlite_rollups.LOOK_EVERY = 2

TestStores = Stores.TestCase
TestStores.settings = settings(
    max_examples=3000 if DEEP else int(os.environ.get("N", "60")),
    stateful_step_count=80 if DEEP else 40,
    deadline=None,
    print_blob=True,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
