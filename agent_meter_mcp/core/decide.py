"""Decisions: does it fit, what is left, and when does enough come back.

One rule of admission: `used + held + asked <= max` for every hard limit that binds. Where an estimate says
nothing about a metric, its amount is unknown, and it fits while anything at all is left."""

from __future__ import annotations

from .models import METRICS, KillSwitch, Limit
from .value import Value
from .windows import YEAR_9000_US

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Literal

    from .models import Metric, Stated

    ReasonCode = Literal["kill_switch", "limit", "soft_limit"]

HOUR_US = 3_600_000_000
HOLDERS_MAX = 5


def fits(used: int, held: int, asked: int | None, maximum: int) -> bool:
    """The admission rule. `asked` None is an unknown amount."""
    return used + held < maximum if asked is None else used + held + asked <= maximum


def percent_of(part: int, whole: int) -> float:
    """To one decimal; 100 of nothing. It is not rounded up to 100: what leaves something is below."""
    if not whole:
        return 100.0
    percent = round(100 * part / whole, 1)
    return percent if part >= whole else min(percent, 99.9)


class LimitState(Value):
    """A limit's counter at one moment, in the metric's integer unit.

    `since_us` is the start of the window. `resets_at_us` is the end of a calendar window; `frees_at_us` the
    moment at which the oldest usage in a rolling window leaves it; both None for `total`, or when nothing is
    used. A rolling `used` counts by sixtieths of the window, the oldest one whole, unless it was needed
    exactly."""

    limit: Limit
    scope: str
    used: int
    held: int
    since_us: int
    resets_at_us: int | None
    frees_at_us: int | None
    at_us: int

    @property
    def leaves_at_us(self) -> int | None:
        """When usage leaves it next: all of it as it resets, the oldest of a rolling window as that frees."""
        return self.resets_at_us or self.frees_at_us

    @property
    def remaining(self) -> int:
        """What is left beside what is held; negative when overspent."""
        return self.limit.max - self.used - self.held

    @property
    def percent(self) -> float:
        """Used and held, of the maximum; over 100 when overspent. 100 for a limit of 0."""
        return percent_of(self.used + self.held, self.limit.max)

    @property
    def exceeded(self) -> bool:
        """Nothing is left."""
        return self.used + self.held >= self.limit.max

    @property
    def burn_per_hour(self) -> int:
        """Usage per hour over the window so far, in the metric's integer unit."""
        return self.used * HOUR_US // self._elapsed_us

    @property
    def _elapsed_us(self) -> int:
        """The window so far; its first minute says little about the rate."""
        return max(self.at_us - self.since_us, 60_000_000)

    @property
    def runs_out_at_us(self) -> int | None:
        """When the limit is reached at this rate; None when it is not burning, resets before, or it is so far
        off that no calendar has it. In a rolling window, all that is counted now has left it when as long
        again has passed."""
        if self.remaining <= 0:
            return self.at_us
        if not self.used:
            return None
        out_us = self.at_us + self.remaining * self._elapsed_us // self.used
        is_rolling = self.frees_at_us is not None
        ends_us = 2 * self.at_us - self.since_us if is_rolling else self.resets_at_us
        return out_us if out_us < (YEAR_9000_US if ends_us is None else ends_us) else None


class Holder(Value):
    """An open reservation that holds part of a limit."""

    reservation_id: str
    agent: str
    amount: int
    expires_at_us: int


class Reason(Value):
    """Why not (or, for `soft_limit`, what to mind).

    `retry_at_us` None: no time will bring it back by itself.
    """

    code: ReasonCode
    state: LimitState | None = None
    switch: KillSwitch | None = None
    asked: int | None = None
    retry_at_us: int | None = None
    holders: tuple[Holder, ...] = ()


class Decision(Value):
    """Whether it would be allowed, and everything that explains it.

    `reasons` come in this order: kill switch, hard limits, soft limits."""

    allowed: bool
    reasons: tuple[Reason, ...]
    limits: tuple[LimitState, ...]
    retry_after_us: int | None

    @property
    def affordable(self) -> Stated:
        """The largest amount per metric that fits now (None: no limit counts that metric).

        All zero under a kill switch."""
        if any(reason.code == "kill_switch" for reason in self.reasons):
            return (0, 0, 0, 0)
        most: list[int | None] = [None, None, None, None]
        for state in self.limits:
            if state.limit.action == "reject":
                index = METRICS.index(state.limit.key.metric)
                left = max(state.remaining, 0)
                best = most[index]
                most[index] = left if best is None else min(best, left)
        return (most[0], most[1], most[2], most[3])

    @property
    def would_fit(self) -> tuple[tuple[Metric, int], ...]:
        """How much of each metric that is short would still fit; empty where of one of them nothing would."""
        short = {why.state.limit.key.metric for why in self.reasons if why.state and why.code == "limit"}
        left: list[tuple[Metric, int]] = [
            (metric, most)
            for metric, most in zip(METRICS, self.affordable, strict=True)
            if most and metric in short
        ]
        return tuple(left) if len(left) == len(short) else ()


def tightest(states: Iterable[LimitState]) -> LimitState | None:
    """The limit with the least room."""
    return max(states, key=lambda state: state.percent, default=None)


def asked_of(state: LimitState, asked: Stated) -> int | None:
    """The part of an estimate that this limit counts."""
    return asked[METRICS.index(state.limit.key.metric)]


def unfitting(states: Sequence[LimitState], asked: Stated) -> list[LimitState]:
    """The limits, soft ones too, in which the estimate does not fit."""
    return [
        state for state in states if not fits(state.used, state.held, asked_of(state, asked), state.limit.max)
    ]


def decision(
    states: Sequence[LimitState], switch: KillSwitch | None, limit_reasons: Sequence[Reason], at_us: int
) -> Decision:
    """Puts a decision together from the states of all binding limits and a reason for each that does not
    fit.
    """
    if switch is None and not limit_reasons:
        return Decision(True, (), tuple(states), None)  # most are, and nobody looks further
    hard = [reason for reason in limit_reasons if reason.code == "limit"]
    soft = [reason for reason in limit_reasons if reason.code == "soft_limit"]
    stop = [Reason("kill_switch", switch=switch)] if switch is not None else []
    retry_after_us: int | None = None
    if hard and not stop:
        times = [reason.retry_at_us for reason in hard]
        known = [time for time in times if time is not None]
        retry_after_us = max(max(known) - at_us, 1) if len(known) == len(times) else None
    return Decision(
        allowed=not stop and not hard,
        reasons=(*stop, *hard, *soft),
        limits=tuple(states),
        retry_after_us=retry_after_us,
    )


def reached(limit: Limit, used: int) -> tuple[int, ...]:
    """The thresholds (percent) that this much usage has reached."""
    return tuple(threshold for threshold in limit.thresholds if used and used * 100 >= threshold * limit.max)
