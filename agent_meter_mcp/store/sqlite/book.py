"""The book: configuration and counters as one connection sees them, kept while the file says that nobody else
wrote.

Used by the writer under its lock and by each reader in its snapshot. `PRAGMA data_version` tells whether
another connection has committed; `meta.epoch` whether the configuration changed."""

from __future__ import annotations

from agent_meter_mcp.core.decide import (
    HOLDERS_MAX,
    Decision,
    Holder,
    LimitState,
    Reason,
    asked_of,
    decision,
    fits,
)
from agent_meter_mcp.core.errors import StoreTooNew
from agent_meter_mcp.core.limits import Policy
from agent_meter_mcp.core.models import KillSwitch, Limit, Usage, Who
from agent_meter_mcp.core.windows import bucket

from .counters import Counter, heads_of
from .rows import RESERVATION_COLUMNS, agents_since, reservation_of, stored_policy
from .schema import VERSION
from .sums import FAR_US

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent_meter_mcp.core.models import Reservation, Stated

    from .by_scope import ByScope
    from .counters import Head
    from .driver import Connection

_LOOK = """
SELECT max(coalesce((SELECT max(id) FROM event), 0), coalesce((SELECT max(id) FROM reservation), 0),
    coalesce((SELECT max(id) FROM refusal), 0), coalesce((SELECT max(id) FROM audit), 0),
    (SELECT v FROM meta WHERE k = 'swept')),
    (SELECT v FROM meta WHERE k = 'epoch'),
    (SELECT min(expires) FROM reservation WHERE state = 0)"""
"""The highest seq in the file, which configuration it has, and when the next hold is over."""
NEW_AGENTS = "new_agents"
"""The row of `meta` that counts how many of the changes of the configuration were no more than an agent that
nobody had heard of before. Whatever else changes raises the epoch alone, and so does an older version."""
_NEW_AGENTS = f"SELECT coalesce((SELECT v FROM meta WHERE k = '{NEW_AGENTS}'), 0)"
COUNTERS_MAX = 20_000
PLANS_MAX = 20_000


class Plan:
    """What binds one (agent, service, project, session): its counters, and the switch that stops it."""

    __slots__ = ("counters", "dims", "switch")

    def __init__(self, counters: list[Counter], switch: KillSwitch | None) -> None:
        self.counters = counters
        self.switch = switch
        self.dims: dict[tuple[str | None, ...], int] = {}

    def leave(self) -> None:
        """Forgets counters that were looked at by a command that takes no seq.

        Kept in the file, one would be short of usage when the clock goes back: nothing says that it holds a
        later window.
        """
        for counter in self.counters:
            if counter.id is None:
                counter.generation = -1


class Book:
    """Policy, plans and counters of one connection. `last` is the highest seq in the file (and given out)."""

    def __init__(self, connection: Connection, *, writes: bool = False) -> None:
        self.connection = connection
        self.cursor = connection.cursor()
        """For what each transaction says: to make one for each statement takes as long as some of them."""
        self._writes = writes
        self.policy = Policy()
        self.last = 0
        self.next_expiry_us: int | None = None
        """When the first of the open holds is over, as others have left them."""
        self.generation = 0
        self.expired: list[Reservation] = []
        """Holds that are over, but still counted in the cells. A reader takes them off as it loads a
        counter."""
        self.settle_events: Callable[[int], None] = lambda cutoff_us: None
        """Called before events are read that were booked before a cutoff (in microseconds), so that a writer
        puts down what it has not written yet."""
        self.put_down: Callable[[], None] = lambda: None
        """Writes all that is pending, before a counter is read from the file again."""
        self.replaced: Callable[[], None] = lambda: None
        """Called when the content may be another: whatever was read of the one before is to be forgotten."""
        self._schema = -1
        """SQLite's number of the schema: a backup that is restored into the file counts it up, too."""
        self._version = -1
        self._epoch = -1
        self._known_changed: int = -1
        """How many changes of the configuration were about more than new agents."""
        self._looked_upto = 0
        """The highest seq in the file when it was looked at: an agent that is new since came after it."""
        self._newest_counter = 0
        self._plans: dict[tuple[str, str | None, str | None, str | None], Plan] = {}
        self._counters: dict[tuple[str, str], Counter] = {}
        self._by_scope: ByScope | None = None

    def forget(self) -> None:
        """Nothing that is cached may be used again (after a rollback)."""
        self._version = self._epoch = self._known_changed = -1
        self._by_scope = None

    def refresh(self) -> bool:
        """Within a transaction: looks whether somebody else wrote. True if so (or after `forget`).

        Raises StoreTooNew: a newer version has changed the format since the file was opened.
        """
        if len(self._counters) > COUNTERS_MAX:
            self._counters.clear()
            self._plans.clear()
        [(version,)] = self.cursor.execute("PRAGMA data_version").fetchall()
        if version == self._version:
            return False
        [(schema,)] = self.cursor.execute("PRAGMA schema_version").fetchall()
        if schema != self._schema:
            self._schema = schema
            self.forget()
            self.replaced()
        self._version = version
        self.generation += 1
        [(self.last, epoch, self.next_expiry_us)] = self.cursor.execute(_LOOK).fetchall()
        if epoch != self._epoch:
            self._check_format()
            self._read_changes(epoch)
        self._looked_upto = self.last
        return True

    def _read_changes(self, epoch: int) -> None:
        """Takes the configuration of that epoch: only the new agents, if that is all."""
        (new_agents,) = self.connection.execute(_NEW_AGENTS).fetchone()
        known_changed = epoch - new_agents
        if known_changed == self._known_changed:
            self.load_policy(self.policy.with_agents(agents_since(self.connection, self._looked_upto)))
        else:
            self.load_policy()
        self._epoch, self._known_changed = epoch, known_changed

    def _check_format(self) -> None:
        (version,) = self.connection.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            self.forget()
            raise StoreTooNew(
                f"a newer version of agent-meter has changed the ledger to format {version} while this"
                f" process had it open, which knows {VERSION}. Start it again, with the newer version."
            )

    def load_policy(self, policy: Policy | None = None) -> None:
        """Takes the configuration, or reads it; plans and counters are made anew."""
        self.policy = policy or stored_policy(self.connection)
        self._plans.clear()
        self._counters.clear()
        newest = self.cursor.execute("SELECT coalesce(max(id), 0) FROM counter").fetchall()
        [(self._newest_counter,)] = newest

    def plan(self, who: Who) -> Plan:
        key = (who.agent, who.service, who.project, who.session)
        plan = self._plans.get(key)
        if plan is None:
            if len(self._plans) >= PLANS_MAX:
                self._plans.clear()
            counters = [self.counter(bound.limit, bound.scope) for bound in self.policy.binding(who)]
            for counter in counters:
                counter.binds = True
            plan = self._plans[key] = Plan(counters, self.policy.stopped_by(who))
        return plan

    def _plan_with_parent(self, who: Who) -> Plan:
        """As if the parent that is stated were linked, where it could be (rule 20); nothing of it is kept."""
        linked = self.policy.with_stated_parent(who)
        if linked is self.policy:
            return self.plan(who)
        has_past = self.connection.execute("SELECT 1 FROM agent WHERE agent_id = ?", (who.agent,)).fetchone()
        counters: list[Counter] = []
        for limit, scope in [(bound.limit, bound.scope) for bound in linked.binding(who)]:
            if not has_past or linked.coverage(limit, scope) == self.policy.coverage(limit, scope):
                counters.append(self.counter(limit, scope))
            else:
                counters.append(
                    Counter(self.connection, limit, scope, linked, looks_back=False, stored=False)
                )
        return Plan(counters, linked.stopped_by(who))

    def counter(self, limit: Limit, scope: str) -> Counter:
        counter = self._counters.get((limit.limit_id, scope))
        if counter is None:
            counter = Counter(
                self.connection, limit, scope, self.policy, looks_back=self._writes, by_scope=self.by_scope
            )
            self._counters[limit.limit_id, scope] = counter
        return counter

    def by_scope(self) -> ByScope:
        """What each agent, session or project has used. Who records once does not import it."""
        if self._by_scope is None:
            from .by_scope import ByScope

            self._by_scope = ByScope(self.connection, in_steps=self._writes)
        return self._by_scope

    def ready(self, counters: Sequence[Counter], at_us: int) -> None:
        """Loads and advances to `at_us` those of the counters that are not there already."""
        generation = self.generation
        behind = [counter for counter in counters if counter.generation != generation]
        if behind:
            heads = heads_of(self.cursor, behind)
            if not self._writes:
                self._look_for_new_counters()
            for counter in behind:
                if self._is_untouched(counter, at_us):
                    counter.generation = generation
                else:
                    self._bring(counter, heads.get(counter.id), at_us)
        for counter in counters:
            if at_us >= counter.until:
                counter.advance(at_us)
            elif at_us < counter.since:
                # A clock went back behind what a read has seen: what had left the window then is in it again.
                self.put_down()
                counter.head = None
                self._bring(counter, None, at_us)

    def take_off(self, expired: list[Reservation]) -> None:
        """These holds are over, and still in the cells: every counter is loaded anew, and has them taken off
        then; what was computed may have had others taken off."""
        self.expired = expired
        self.generation += 1
        for counter in self._counters.values():
            if counter.id is None:
                counter.generation = -1

    def _look_for_new_counters(self) -> None:
        """What others have begun to count is to be read from the file; it was computed until now."""
        found = self.cursor.execute(
            "SELECT id, limit_id, scope FROM counter WHERE id > ?", (self._newest_counter,)
        )
        for number, limit_id, scope in found:
            self._newest_counter = number
            counter = self._counters.get((limit_id, scope))
            if counter is not None:
                counter.generation = -1

    def _is_untouched(self, counter: Counter, at_us: int) -> bool:
        """Whether what was computed for a reader still holds: whoever counts something writes a row for it.

        Only what binds is counted; and a hold that is over is taken off anew.
        """
        return (
            counter.id is None
            and counter.binds
            and counter.generation >= 0
            and at_us >= counter.since
            and not self.expired
            and not self._writes
        )

    def _bring(self, counter: Counter, head: Head | None, at_us: int) -> None:
        """What the counter is in the file, from its head alone or from all that is written of it."""
        if not counter.catch_up(head, at_us):
            counter.load(self.connection, at_us)
            counter.advance(at_us)
        elif at_us >= counter.until:
            counter.advance(at_us)
        counter.generation = self.generation
        for held in self.expired:
            if counter.coverage.includes(held.who):
                counter.add(held.reserved_at_us, 0, -held.usage.amounts[counter.metric])
                counter.head = None

    def make_final(self, at_us: int) -> None:
        """What was changed at `at_us` without a seq stays: the clock may not go back before it (rule 1)."""
        if self.last < at_us - 1:
            self.last = at_us - 1
            self.connection.execute("UPDATE meta SET v = ? WHERE k = 'swept'", (at_us - 1,))

    def overdue(self, at_us: int) -> list[Reservation]:
        """Holds that are over, and still counted as held."""
        rows = self.connection.execute(
            f"SELECT {RESERVATION_COLUMNS} FROM reservation WHERE state = 0 AND expires <= ?", (at_us,)
        ).fetchall()
        return [reservation_of(row, at_us) for row in rows]

    # -- decisions -------------------------------------------------------------------------------------------

    def states(
        self, counters: Sequence[Counter], at_us: int, asked: Stated | None = None
    ) -> list[LimitState]:
        """How they stand; where what is asked does not fit by buckets, exactly (rules 16 and 17)."""
        self.ready(counters, at_us)
        if asked is None:
            return [self._state(counter, at_us) for counter in counters]
        return [self._state(counter, at_us, asked[counter.metric], exact=True) for counter in counters]

    def _state(
        self, counter: Counter, at_us: int, asked: int | None = 0, *, exact: bool = False
    ) -> LimitState:
        used, held = counter.used, counter.held
        window = counter.window
        if counter.rolling:
            if exact and not fits(used, held, asked, counter.maximum):
                self.settle_events(at_us - window.length_us + 1)
                used, held = counter.exact(at_us)
            frees_at = counter.frees_at()
            return LimitState(
                counter.limit, counter.scope, used, held, at_us - window.length_us, None, frees_at, at_us
            )
        since = counter.current
        if window.kind == "total":
            since = at_us if counter.first_us is None else counter.first_us
        return LimitState(counter.limit, counter.scope, used, held, since, counter.period_end, None, at_us)

    def decide(self, who: Who, usage: Usage, at_us: int) -> Decision:
        """Would it be allowed at `at_us`?"""
        plan = self.plan(who) if who.parent is None else self._plan_with_parent(who)
        asked = usage.stated
        states = self.states(plan.counters, at_us, asked)
        reasons = [
            self._reason(counter, state, asked, at_us)
            for counter, state in zip(plan.counters, states, strict=True)
            if not fits(state.used, state.held, asked_of(state, asked), state.limit.max)
        ]
        return decision(states, plan.switch, reasons, at_us)

    def _reason(self, counter: Counter, state: LimitState, asked: Stated, at_us: int) -> Reason:
        amount = asked_of(state, asked)
        code = "limit" if counter.hard else "soft_limit"
        start_us, end_us = counter.oldest, FAR_US
        if counter.rolling:
            start_us = max(counter.oldest * counter.window.grain_us, at_us - counter.window.length_us + 1)
        holds = self._holds(counter, start_us, end_us, at_us)
        largest = sorted((hold for hold in holds if hold[3] > 0), key=lambda hold: (-hold[3], hold[1]))
        holders = tuple(Holder(hold[1], hold[2], hold[3], hold[4]) for hold in largest[:HOLDERS_MAX])
        return Reason(code, state, None, amount, self.retry_at(counter, amount, at_us), holders)

    def retry_at(self, counter: Counter, asked: int | None, at_us: int) -> int | None:
        """When `asked` would fit by the passing of time alone (rule 18); None: never."""
        needed = 1 if asked is None else asked
        if needed > counter.maximum:
            return None
        frees: list[tuple[int, int]] = []
        start_us = counter.oldest * counter.window.grain_us if counter.rolling else counter.oldest
        for reserved_us, _, _, amount, expires_us in self._holds(counter, start_us, FAR_US, at_us):
            if counter.rolling:
                number = bucket(counter.window, counter.limit.zone, reserved_us)
                expires_us = min(expires_us, counter.leaves_at(number))
            frees.append((expires_us, amount))
        if counter.rolling:
            frees += [
                (counter.leaves_at(number), cell[0])
                for number, cell in counter.buckets.items()
                if number >= counter.oldest and cell[0]
            ]
        elif counter.period_end is not None:
            frees = [free for free in frees if free[0] < counter.period_end]
            frees.append((counter.period_end, counter.used + counter.held))
        left = counter.used + counter.held
        for moment, amount in sorted(frees):
            left -= amount
            if left + needed <= counter.maximum:
                return moment
        return None

    def _holds(
        self, counter: Counter, start_us: int, end_us: int, at_us: int
    ) -> Sequence[tuple[int, str, str, int, int]]:
        return counter.sums.held(start_us, end_us, at_us) if counter.held else ()
