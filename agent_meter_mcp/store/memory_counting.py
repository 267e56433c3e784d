"""Counters, by walking the ledger: rules 4 and 16 to 20, and the outcomes and decisions that come of them."""

from __future__ import annotations

from agent_meter_mcp.core.decide import (
    HOLDERS_MAX,
    Decision,
    Holder,
    LimitState,
    Reason,
    asked_of,
    decision,
    unfitting,
)
from agent_meter_mcp.core.limits import Bound, Policy
from agent_meter_mcp.core.models import METRICS, Usage, Who
from agent_meter_mcp.core.windows import bucket, bucket_range, oldest_bucket, parse_window, period

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from agent_meter_mcp.core.models import Amounts, Stated

    from .memory_book import Book

    Within = Callable[[int], bool]


class Counter:
    """What one counter of a limit counts, as the ledger is at `at_us`."""

    def __init__(self, book: Book, policy: Policy, bound: Bound, at_us: int) -> None:
        self.limit, self.scope, self.at_us = bound.limit, bound.scope, at_us
        self.index = METRICS.index(bound.limit.key.metric)
        self.is_hard = bound.limit.action == "reject"
        self._window = parse_window(bound.limit.key.window)
        self._zone = bound.limit.zone
        coverage = policy.coverage(bound.limit, bound.scope)
        self._usage = [
            (one.booked_at_us, one.event.usage.amounts[self.index])
            for one in book.events
            if coverage.includes(one.event.who)
        ]
        self._holds = [one for one in book.open_holds(at_us) if coverage.includes(one.who)]

    # Sums

    def _used(self, within: Within) -> int:
        return sum(amount for booked_us, amount in self._usage if within(booked_us))

    def _held(self, within: Within) -> int:
        return sum(one.usage.amounts[self.index] for one in self._holds if within(one.reserved_at_us))

    def _around(self, moment_us: int) -> Within:
        """What S(moment) counts (rule 4)."""
        if self._window.kind == "rolling":
            length_us = self._window.length_us
            return lambda booked_us: moment_us - length_us < booked_us < moment_us + length_us
        start_us, end_us = period(self._window, self._zone, moment_us)
        return lambda booked_us: start_us <= booked_us and (end_us is None or booked_us < end_us)

    def _current(self, booked_us: int) -> bool:
        """What the state of a limit counts (rule 16)."""
        if self._window.kind == "rolling":
            return self._bucket(booked_us) >= oldest_bucket(self._window, self.at_us)
        return self._around(self.at_us)(booked_us)

    def _bucket(self, booked_us: int) -> int:
        return bucket(self._window, self._zone, booked_us)

    def _leaves_at(self, booked_us: int) -> int | None:
        """When what is booked there is in the window no longer; None: never."""
        end_us = bucket_range(self._window, self._bucket(booked_us), self._zone)[1]
        return None if end_us is None else end_us + self._window.length_us

    def fits_around(self, amount: int, booked_us: int) -> bool:
        """Whether S(booked) has room for the amount, for usage that happened."""
        near = self._around(booked_us)
        return self._used(near) + self._held(near) + amount <= self.limit.max

    # States

    def state(self) -> LimitState:
        """By buckets."""
        return self._state(self._current)

    def state_for(self, asked: Stated) -> LimitState:
        """By buckets where the request fits so; else exactly."""
        by_buckets = self.state()
        return self._state(self.is_current) if unfitting([by_buckets], asked) else by_buckets

    def _state(self, within: Within) -> LimitState:
        resets_at_us = frees_at_us = None
        counted = [booked_us for booked_us, amount in self._usage if amount > 0 and self._current(booked_us)]
        if self._window.kind == "rolling":
            since_us = self.at_us - self._window.length_us
            frees_at_us = self._leaves_at(min(counted)) if counted else None
        elif self._window.kind == "calendar":
            since_us, resets_at_us = period(self._window, self._zone, self.at_us)
        else:
            since_us = min(counted, default=self.at_us)
        used, held = self._used(within), self._held(within)
        return LimitState(self.limit, self.scope, used, held, since_us, resets_at_us, frees_at_us, self.at_us)

    def is_current(self, booked_us: int) -> bool:
        """Whether it lies in the window current now, exactly."""
        return self._around(self.at_us)(booked_us)

    def period_start_us(self) -> int:
        """What stands for the current window in an alert (rule 21)."""
        if self._window.kind == "rolling":
            return self.at_us // self._window.length_us * self._window.length_us
        return period(self._window, self._zone, self.at_us)[0]

    # Explanations

    def reason(self, state: LimitState, asked: int | None) -> Reason:
        code = "limit" if self.is_hard else "soft_limit"
        return Reason(code, state, None, asked, self.retry_at(asked), self._holders())

    def _holders(self) -> tuple[Holder, ...]:
        holders = [
            Holder(one.reservation_id, one.who.agent, one.usage.amounts[self.index], one.expires_at_us)
            for one in self._holds
            if one.usage.amounts[self.index] > 0 and self.is_current(one.reserved_at_us)
        ]
        return tuple(sorted(holders, key=lambda one: (-one.amount, one.reservation_id))[:HOLDERS_MAX])

    def retry_at(self, asked: int | None) -> int | None:
        """When `asked` fits by the passing of time alone; None: never (rule 18)."""
        needed = 1 if asked is None else asked
        if needed > self.limit.max:
            return None
        leaving = [
            (amount, self._leaves_at(booked_us))
            for booked_us, amount in self._usage
            if self._current(booked_us)
        ]
        for one in self._holds:
            if self._current(one.reserved_at_us):
                leaves_us = self._leaves_at(one.reserved_at_us)
                ends_us = one.expires_at_us if leaves_us is None else min(one.expires_at_us, leaves_us)
                leaving.append((one.usage.amounts[self.index], ends_us))
        for moment_us in sorted({leaves_us for _, leaves_us in leaving if leaves_us is not None}):
            left = sum(amount for amount, leaves_us in leaving if leaves_us is None or leaves_us > moment_us)
            if left + needed <= self.limit.max:
                return moment_us
        return None


def counters_of(book: Book, policy: Policy, who: Who, at_us: int) -> list[Counter]:
    """The counters that bind `who`, in the order of the limits."""
    return [Counter(book, policy, bound, at_us) for bound in policy.binding(who)]


def is_over_limit(counters: list[Counter], amounts: Amounts, booked_us: int) -> bool:
    """Rule 7, before the usage is counted."""
    return any(
        counter.is_hard and not counter.fits_around(amounts[counter.index], booked_us) for counter in counters
    )


def decide(book: Book, who: Who, usage: Usage, at_us: int) -> Decision:
    """Rules 11 and 20."""
    policy = book.policy().with_stated_parent(who)
    counters = counters_of(book, policy, who, at_us)
    asked = usage.stated
    states = [counter.state_for(asked) for counter in counters]
    tight = unfitting(states, asked)
    reasons = [
        counter.reason(state, asked_of(state, asked))
        for counter, state in zip(counters, states, strict=True)
        if state in tight
    ]
    return decision(states, policy.stopped_by(who), reasons, at_us)
