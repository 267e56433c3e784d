"""Two SQLite stores on one file, restarted at will, against the store that walks everything.

All get the same commands, in the same order and at the same times, and must give the same answers. What
limits promise is checked beside that: in no interval as long as its window, more is accepted than it allows.
`AGENT_METER_HYPOTHESIS=deep` makes the run long.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent_meter_mcp.core.commands import (
    Ask,
    CreateKey,
    Extend,
    Record,
    Refusal,
    Refuse,
    Release,
    RemoveLimit,
    Reserve,
    RevokeKey,
    SetAgent,
    SetLimit,
    SetSwitch,
    Settle,
    TouchKeys,
)
from agent_meter_mcp.core.errors import MeterError
from agent_meter_mcp.core.models import METRICS, Agent, LimitKey, Usage, UsageEvent, Who
from agent_meter_mcp.core.queries import AgentsQuery, EventsQuery, SummaryQuery, UsageFilter
from agent_meter_mcp.core.windows import parse_window, period
from agent_meter_mcp.store.memory import MemoryStore
from agent_meter_mcp.store.sqlite import SqliteStore, by_scope, open_store
from agent_meter_mcp.store.sqlite import remembered as sqlite_remembered
from agent_meter_mcp.store.sqlite import rollups as sqlite_rollups

from . import drawing as draws
from .drawing import SECOND

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent_meter_mcp.core.commands import Command
    from agent_meter_mcp.core.models import Limit, Source, StoredEvent, SwitchKind
    from agent_meter_mcp.store.base import Store

    Booked = list[tuple[int, int]]

DEEP = os.environ.get("AGENT_METER_HYPOTHESIS") == "deep"
EVERYTHING = 1_000_000
ASKS = [
    Ask(Who("ann", "api", None, "p", "s"), Usage(2, 3, input_tokens=3, cost_nano_usd=3)),
    Ask(Who("bob", "llm", None, "q"), Usage(0)),
    Ask(Who("cy", None, "ann"), Usage(1, input_tokens=9)),
]
NAMED = ("agent", "service", "operation", "model", "project", "session")


@contextmanager
def frequent_rollups() -> Generator[None]:
    """SQLite rolls up after a few events, so that summaries and sums are made of rollups and of events; takes
    three agents for a crowd; and from the second agent on reads what each has used together."""
    before = sqlite_rollups.ROLL_AT, sqlite_rollups.LOOK_EVERY, sqlite_remembered.CROWD
    before_by_scope = by_scope.ALONE, by_scope.STEP
    sqlite_rollups.ROLL_AT, sqlite_rollups.LOOK_EVERY, sqlite_remembered.CROWD = 5, 2, 3
    by_scope.ALONE, by_scope.STEP = 1, 2
    try:
        yield
    finally:
        sqlite_rollups.ROLL_AT, sqlite_rollups.LOOK_EVERY, sqlite_remembered.CROWD = before
        by_scope.ALONE, by_scope.STEP = before_by_scope


class Stores(RuleBasedStateMachine):
    """The machine. `recorded` and `reserved` are what commands can come back to."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.folder.name, "meter.db")
        self.rollups = frequent_rollups()
        self.rollups.__enter__()
        self.model: Store = MemoryStore()
        self.files: list[SqliteStore] = []
        self.turn = 0
        self.now_us = draws.START_US
        self.count = 0
        self.recorded: list[Record] = []
        self.reserved: list[Reserve] = []
        self.batch: list[Command] | None = None
        self.ruled: tuple[object, ...] = ()
        """The configuration that limits are judged by, and since which seq it is in force."""
        self.ruled_since = 0
        self.highest_seq = 0
        """No seq is higher: a command takes at most two."""

    @initialize()
    def open(self) -> None:
        self.files = [open_store(self.path, synchronous="NORMAL") for _ in range(2)]

    def teardown(self) -> None:
        try:
            if self.files:
                self.end_batch_if_any()
                self.list_all()
                self.verify()
        finally:
            for store in self.files:
                store.close()
            self.rollups.__exit__(None, None, None)
            self.folder.cleanup()

    @property
    def file(self) -> SqliteStore:
        return self.files[self.turn]

    def new_id(self) -> str:
        """Every third one is an id that is no UUID."""
        self.count += 1
        return f"{'id' if self.count % 3 == 0 else '01a20b12-8731-7b81-b52b-'}{self.count:012x}"

    def apply(self, command: Command) -> None:
        if self.batch is not None:
            self.batch.append(command)
        else:
            self.compare([command])

    def compare(self, commands: list[Command]) -> None:
        """The same to both. Raises AssertionError when they differ."""
        left = self.file.apply(commands, self.now_us)
        right = self.model.apply(commands, self.now_us)
        for command, one, other in zip(commands, left.results, right.results, strict=True):
            assert comparable(one) == comparable(other), command
        assert left.alerts == right.alerts
        self.note_ruling(len(commands))

    def agree(self, read: Callable[[Store], object]) -> None:
        """The same answer to one read from all, whichever process has written last."""
        expected = read(self.model)
        for store in self.files:
            assert read(store) == expected

    # Time, processes

    @rule(pause=draws.pauses)
    def wait(self, pause: int) -> None:
        self.now_us += pause

    @rule(jump=draws.jumps)
    def jump(self, jump: int) -> None:
        self.now_us += jump

    @rule(beside=draws.nearly)
    def wait_for_the_end_of_a_hold(self, beside: int) -> None:
        ends = [held.expires_at_us for held in self.model.reservations(self.now_us)]
        self.now_us = min(ends, default=self.now_us) + beside

    @rule(beside=draws.nearly, data=st.data())
    def wait_for_the_end_of_a_window(self, beside: int, data: st.DataObject) -> None:
        states = [view.state for view in self.model.limits(None, self.now_us) if view.state is not None]
        ends = [end for state in states for end in (state.resets_at_us, state.frees_at_us) if end is not None]
        if ends:
            self.now_us = data.draw(st.sampled_from(sorted(ends))) + beside

    @rule()
    def let_the_other_process_go_on(self) -> None:
        self.turn = 1 - self.turn

    @rule()
    def restart(self) -> None:
        self.file.close()
        self.files[self.turn] = open_store(self.path, synchronous="NORMAL")

    @rule()
    @precondition(lambda self: self.batch is None)
    def begin_batch(self) -> None:
        self.batch = []

    @rule()
    @precondition(lambda self: self.batch is not None)
    def end_batch(self) -> None:
        self.end_batch_if_any()

    def end_batch_if_any(self) -> None:
        commands, self.batch = self.batch, None
        if commands is not None:
            self.compare(commands)

    # Usage

    @rule(
        who=draws.whos,
        usage=draws.usages,
        ago=draws.agos,
        trusted=st.booleans(),
        wanted=st.booleans(),
        source=draws.sources,
    )
    def record(
        self, who: Who, usage: Usage, ago: int | None, trusted: bool, wanted: bool, source: Source
    ) -> None:
        occurred_us = None if ago is None else self.now_us - ago
        event = UsageEvent(self.new_id(), who, usage, "op" if wanted else None, source, occurred_us)
        command = Record(event, trusted, wanted)
        self.recorded.append(command)
        self.apply(command)

    @rule(
        data=st.data(),
        change=st.sampled_from(
            ["none", "none", "grown", "repriced", "reported", "shrunk", "other", "source", "agent", "moment"]
        ),
    )
    @precondition(lambda self: self.recorded)
    def record_again(self, data: st.DataObject, change: str) -> None:
        old = data.draw(st.sampled_from(self.recorded))
        event, usage = old.event, old.event.usage
        more = data.draw(st.integers(1, 5))
        if change == "grown":
            event = event.replace(
                usage=usage.replace(input_tokens=(usage.input_tokens or 0) + more), status_code=200
            )
        elif change == "repriced":
            cost = data.draw(st.none() | st.integers(0, 5))
            more_of_it = usage.replace(requests=usage.requests + 1)
            event = event.replace(
                usage=more_of_it.replace(cost_nano_usd=cost, cost_source="computed", price_version="list 2")
            )
        elif change == "moment":
            moment = None if event.occurred_at_us else self.now_us
            grown = usage.replace(requests=usage.requests + more // 3)
            event = event.replace(occurred_at_us=moment, usage=grown)
        elif change == "reported":
            event = event.replace(
                usage=usage.replace(cost_nano_usd=more, cost_source="reported", price_version=None)
            )
        elif change == "shrunk":
            event = event.replace(usage=usage.replace(requests=max(usage.requests - 1, 0)))
        elif change == "other":
            event = event.replace(operation="other")
        elif change == "source":
            event = event.replace(source="proxy")
        elif change == "agent":
            event = event.replace(who=event.who.replace(parent="dan"))
        stated = data.draw(st.booleans())
        again = old.replace(event=event, want_limits=data.draw(st.booleans()), source_is_stated=stated)
        self.recorded.append(again)
        self.apply(again)

    @rule(who=draws.whos, usage=draws.usages, ttl_us=draws.lifetimes, own_id=st.booleans())
    def reserve(self, who: Who, usage: Usage, ttl_us: int, own_id: bool) -> None:
        reservation_id = self.new_id()
        event_id = self.new_id() if own_id else reservation_id
        operation = "op" if own_id else None
        command = Reserve(reservation_id, event_id, who, usage, ttl_us, operation, is_new=not own_id)
        self.reserved.append(command)
        self.apply(command)

    @rule(data=st.data(), change=st.booleans())
    @precondition(lambda self: self.reserved)
    def reserve_again(self, data: st.DataObject, change: bool) -> None:
        """With an id of its own, as a caller's retry has; an id that we made is used once."""
        old = data.draw(st.sampled_from(self.reserved))
        if old.event_id != old.reservation_id:
            again = old.replace(reservation_id=self.new_id())
            stated = data.draw(st.booleans())
            self.apply(again.replace(source="sdk", source_is_stated=stated) if change else again)

    @rule(data=st.data(), usage=st.none() | draws.usages, wanted=st.booleans())
    @precondition(lambda self: self.reserved)
    def settle(self, data: st.DataObject, usage: Usage | None, wanted: bool) -> None:
        held = data.draw(st.sampled_from(self.reserved))
        self.apply(Settle(held.reservation_id, usage, 200, None, None, wanted))

    @rule(data=st.data(), ttl_us=st.none() | draws.lifetimes)
    @precondition(lambda self: self.reserved)
    def release_or_extend(self, data: st.DataObject, ttl_us: int | None) -> None:
        held = data.draw(st.sampled_from(self.reserved)).reservation_id
        self.apply(Release(held) if ttl_us is None else Extend(held, ttl_us))

    @rule(data=st.data())
    @precondition(lambda self: self.reserved)
    def record_under_a_reserved_id(self, data: st.DataObject) -> None:
        held = data.draw(st.sampled_from(self.reserved))
        self.apply(Record(UsageEvent(held.event_id, held.who, held.usage, held.operation)))

    @rule(data=st.data())
    @precondition(lambda self: self.recorded)
    def reserve_under_a_recorded_id(self, data: st.DataObject) -> None:
        event = data.draw(st.sampled_from(self.recorded)).event
        self.apply(Reserve(self.new_id(), event.id, event.who, event.usage, SECOND))

    @rule(who=draws.whos, usage=draws.usages, count=st.integers(1, 3), known=st.booleans(), ago=st.booleans())
    def refuse(self, who: Who, usage: Usage, count: int, known: bool, ago: bool) -> None:
        limit_id = "limit" if known else None
        first_us = self.now_us - (SECOND if ago else 0)
        one = Refusal(who, None, "self", usage, limit_id, first_us, count)
        self.apply(Refuse((one, one.replace(count=1, limit_id=None))))

    # Control

    @rule(
        key=draws.keys,
        maximum=draws.maxima,
        action=draws.actions,
        thresholds=draws.thresholds,
        zone=draws.zones,
    )
    def set_limit(
        self, key: LimitKey, maximum: int, action: Any, thresholds: tuple[int, ...] | None, zone: str | None
    ) -> None:
        zone = zone if parse_window(key.window).kind == "calendar" else None
        self.apply(SetLimit(self.new_id(), key, maximum, "op", action, zone, thresholds))

    @rule(data=st.data(), maximum=st.none() | draws.maxima, action=draws.actions, by_key=st.booleans())
    def change_or_remove_limit(
        self, data: st.DataObject, maximum: int | None, action: Any, by_key: bool
    ) -> None:
        known = sorted(self.model.policy().limits.values(), key=lambda limit: limit.limit_id)
        if not known:
            return
        limit = data.draw(st.sampled_from(known))
        if maximum is not None:
            self.apply(SetLimit(self.new_id(), limit.key, maximum, "op", action))
        elif by_key:
            self.apply(RemoveLimit("op", key=limit.key))
        else:
            self.apply(RemoveLimit("op", limit.limit_id))

    @rule(agent=draws.agents, tier=draws.tiers)
    def set_tier(self, agent: str, tier: str | None) -> None:
        self.apply(SetAgent(agent, (("tier", tier), ("owner", "team")), "op"))

    @rule(agent=draws.agents, parent=st.none() | draws.agents)
    def set_parent(self, agent: str, parent: str | None) -> None:
        self.apply(SetAgent(agent, (("parent", parent),), "op"))

    @rule(whom=draws.switches, engaged=st.sampled_from([True, False, False]))
    def switch(self, whom: tuple[SwitchKind, str | None], engaged: bool) -> None:
        self.apply(SetSwitch(*whom, engaged, "drill" if engaged else None, "op"))

    @rule(number=st.integers(0, 5), lasts=st.none() | st.integers(1, SECOND))
    def make_key(self, number: int, lasts: int | None) -> None:
        """Some have the prefix and the token of another one."""
        expires_at_us = None if lasts is None else self.now_us + lasts
        who = ("viewer", None, None, expires_at_us)
        self.apply(CreateKey(self.new_id(), f"am_{number:08}", bytes([number] * 32), *who, "op"))

    @rule(number=st.integers(0, 6))
    def revoke_key(self, number: int) -> None:
        self.apply(RevokeKey(f"am_{number:08}", "op"))

    @rule()
    @precondition(lambda self: self.batch is None)
    def touch_keys(self) -> None:
        self.apply(TouchKeys(tuple((key.key_id, self.now_us) for key in self.model.keys())))

    # Reading

    @rule(who=draws.whos, usage=draws.usages, anywhere=st.booleans())
    @precondition(lambda self: self.batch is None)
    def peek(self, who: Who, usage: Usage, anywhere: bool) -> None:
        ask = Ask(who.replace(service=None) if anywhere else who, usage)
        self.agree(lambda store: store.peek([ask], self.now_us))

    @invariant()
    def all_would_decide_alike(self) -> None:
        if self.files and self.batch is None:
            expected = self.model.peek(ASKS, self.now_us)
            assert self.files[self.count % 2].peek(ASKS, self.now_us) == expected

    @rule(data=st.data(), before=st.booleans())
    @precondition(lambda self: self.batch is None)
    def summarise(self, data: st.DataObject, before: bool) -> None:
        query: SummaryQuery = data.draw(draws.summaries(self.now_us))
        self.agree(lambda store: store.summary(query, self.now_us))
        events = EventsQuery(query.filter, 3, self.now_us - SECOND if before else None)
        self.agree(lambda store: store.events(events))

    @rule()
    @precondition(lambda self: self.batch is None)
    def list_all(self) -> None:
        now_us, who = self.now_us, Who("ann", "api", None, "p", "s")
        self.agree(lambda store: store.events(EventsQuery(UsageFilter(), EVERYTHING)))
        self.agree(lambda store: store.agents(AgentsQuery(limit=2), now_us))
        self.agree(lambda store: store.agents(AgentsQuery("idle", after_agent="ann", within="bob"), now_us))
        self.agree(lambda store: [store.limits(None, now_us), store.limits(who, now_us)])
        self.agree(lambda store: [store.reservation(one.reservation_id, now_us) for one in self.reserved])
        self.agree(lambda store: store.reservations(now_us))
        self.agree(lambda store: [store.alerts(limit=EVERYTHING), store.alerts(after=2, limit=3)])
        self.agree(lambda store: [store.audit(limit=EVERYTHING), store.audit(before_seq=now_us, limit=2)])
        self.agree(lambda store: [store.names(kind, "") for kind in NAMED])
        keys = {(one.event.who.service or "", one.event.id) for one in self.recorded}
        self.agree(lambda store: [store.event(*key) for key in sorted(keys)])
        self.agree(lambda store: ruling(store)[1:])
        self.agree(lambda store: [store.keys(), store.has_keys()])
        self.agree(lambda store: [store.key_of(bytes([number] * 32)) for number in range(7)])

    @rule()
    @precondition(lambda self: self.batch is None)
    def verify(self) -> None:
        assert list(self.file.verify()) == []

    # What limits promise

    def everything(self) -> tuple[StoredEvent, ...]:
        """Events, in order of seq."""
        found = self.model.events(EventsQuery(UsageFilter(), EVERYTHING)).events[::-1]
        return tuple(one for one in found if one.outcome != "rejected")

    def note_ruling(self, commands: int) -> None:
        """Whether this batch changed what limits count, so that nothing is promised about what was before."""
        self.highest_seq = max(self.now_us, self.highest_seq) + 2 * commands
        now_ruled = ruling(self.model)
        if now_ruled != self.ruled:
            self.ruled, self.ruled_since = now_ruled, self.highest_seq

    @invariant()
    def no_more_is_accepted_in_any_window_than_its_limit_allows(self) -> None:
        policy = self.model.policy()
        booked: dict[tuple[str, str], Booked] = {}
        held = {one.event_id: one.reservation_id for one in self.reserved}
        for one in self.everything():
            reservation = self.model.reservation(held.get(one.event.id, ""), self.now_us)
            began_us = one.seq if reservation is None else reservation.reserved_at_us
            if one.outcome != "accepted" or began_us <= self.ruled_since:
                continue
            for bound in policy.binding(one.event.who):
                amount = one.event.usage.amounts[METRICS.index(bound.limit.key.metric)]
                booked.setdefault((bound.limit.limit_id, bound.scope), []).append((one.booked_at_us, amount))
        for (limit_id, _), usage in booked.items():
            limit = policy.limits[limit_id]
            if limit.action == "reject":
                assert most_in_a_window(limit, usage) <= limit.max, limit


def most_in_a_window(limit: Limit, usage: Booked) -> int:
    """The largest sum in any calendar period, or in any interval as long as the window."""
    window = parse_window(limit.key.window)
    most = 0
    for moment_us, _ in usage:
        if window.kind == "rolling":
            first_us, end_us = moment_us - window.length_us + 1, moment_us + 1
        else:
            first_us, end = period(window, limit.zone, moment_us)
            end_us = moment_us * 2 if end is None else end
        most = max(most, sum(amount for booked_us, amount in usage if first_us <= booked_us < end_us))
    return most


def ruling(store: Store) -> tuple[object, ...]:
    """What limits count and allow: (agents with a tier or a parent, limits, switches)."""
    policy = store.policy()
    placed = {
        agent
        for agent in policy.agents.values()
        if agent.replace(name=None, owner=None) != Agent(agent.agent_id)
    }
    return placed, tuple(policy.limits.values()), {*policy.switches}


def comparable(result: object) -> object:
    """Errors are the same when they are of one kind and name the same fields."""
    if isinstance(result, MeterError):
        return type(result), getattr(result, "field", None), getattr(result, "fields", None)
    return result


TestStores = cast("Any", Stores).TestCase
TestStores.settings = settings(
    max_examples=3000 if DEEP else 60,
    stateful_step_count=80 if DEEP else 40,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
