"""What happens in a month: work by the clock, and a few stories in between. Pure, from a seed."""

from __future__ import annotations

import random
from collections import deque
from datetime import UTC, datetime
from heapq import heappop, heappush
from typing import TYPE_CHECKING, TypeAlias

from agent_meter_mcp.core.commands import RemoveLimit, SetAgent, SetLimit, SetSwitch
from agent_meter_mcp.core.models import LimitKey, Subject, Usage, Who
from agent_meter_mcp.core.value import Value
from agent_meter_mcp.intake import Report
from agent_meter_mcp.runtime import id_of

from . import cast
from .cast import CRAWLER, PAYER, READER, RUNAWAY, STOPPED, Shifts, waiting_us

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent_meter_mcp.core.models import Action, Metric

    from .cast import Member, Work

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US
DAYS = 30
GROWTH = 1.6
"""How much more the last day is than the first."""
COST_NANO_USD = 15_000_000
"""What a piece of work costs on average; budgets are made from it."""
STORIES_NANO_USD = 40 * 10**9
"""What the stories cost beside it."""
SESSION_GAP_US = 40 * MINUTE_US
DANA, MARIA, LI = "dana", "maria", "li"


class Asked(Value):
    """Work that its agent asks for first. `report` is the estimate."""

    report: Report
    ttl_us: int = 10 * MINUTE_US


class Finished(Value):
    """What came of it, if it was granted. `usage` None: nothing was used after all."""

    service: str
    id: str
    usage: Usage | None


Deed: TypeAlias = Report | Asked | Finished | SetAgent | SetLimit | RemoveLimit | SetSwitch


class Step(Value):
    at_us: int
    deed: Deed


class _Desk(Value):
    """Where an agent is: its session, and the project that this is for."""

    session: str
    project: str
    seen_us: int


class Month:
    """`events` pieces of work by so many agents in the 30 days before `until_us`, and a little more."""

    def __init__(self, seed: int, agents: int, events: int, until_us: int) -> None:
        self.members = cast.cast(random.Random(seed), agents)
        self.until_us = until_us
        self.since_us = until_us - DAYS * DAY_US
        self._rng = random.Random(seed + 1)
        self._events = events
        self._by_name = {member.agent.agent_id: member for member in self.members}
        self._shifts = Shifts(self.members)
        self._desks: dict[str, _Desk] = {}
        self._ahead: list[tuple[int, int, Deed]] = []
        self._pushed = 0
        self._stopped: dict[str, tuple[int, int]] = {}
        self._reviewed: deque[int] = deque()

    def steps(self) -> Iterator[Step]:
        """In the order of their times; the last ones are just before `until_us`."""
        self._open_office()
        self._tell_stories()
        first = self.since_us // HOUR_US
        hours = range(first, self.until_us // HOUR_US + 1)
        shares = [self._share(hour) for hour in hours]
        whole, done, given = sum(shares), 0.0, 0
        for hour, share in zip(hours, shares, strict=True):
            done += share
            count = round(self._events * done / whole) - given
            given += count
            self._plan_hour(hour, count)
            if hour == hours[-1]:
                self._tighten(max(self.until_us - 5 * MINUTE_US, hour * HOUR_US))
            yield from self._until(min((hour + 1) * HOUR_US, self.until_us))

    def live(self) -> Iterator[Step]:
        """What goes on after that, one piece of work after the other, without times."""
        rng = self._rng
        while True:
            hour = rng.randrange(9, 17)
            for member in self._shifts.chosen(rng, hour, False, 64):
                if member.agent.agent_id == STOPPED:
                    continue
                if member.agent.agent_id == RUNAWAY:
                    yield Step(0, Asked(self._report(member, self.until_us)))
                else:
                    yield Step(0, self._report(member, self.until_us))

    def _until(self, end_us: int) -> Iterator[Step]:
        while self._ahead and self._ahead[0][0] < end_us:
            at_us, _, deed = heappop(self._ahead)
            yield Step(at_us, deed)

    def _push(self, at_us: int, deed: Deed) -> None:
        if at_us < self.until_us:
            self._pushed += 1
            heappush(self._ahead, (at_us, self._pushed, deed))

    # Work by the clock

    def _share(self, hour: int) -> float:
        """How much of the month's work is done in an hour (since 1970)."""
        start_us = max(hour * HOUR_US, self.since_us)
        end_us = min((hour + 1) * HOUR_US, self.until_us)
        age = (start_us - self.since_us) / (DAYS * DAY_US)
        of_day, is_weekend = _clock(hour)
        return self._shifts.busy(of_day, is_weekend) * GROWTH**age * (end_us - start_us) / HOUR_US

    def _plan_hour(self, hour: int, count: int) -> None:
        start_us = max(hour * HOUR_US, self.since_us)
        end_us = min((hour + 1) * HOUR_US, self.until_us)
        moments = sorted(self._rng.randrange(start_us, end_us) for _ in range(count))
        for at_us, member in zip(moments, self._shifts.chosen(self._rng, *_clock(hour), count), strict=True):
            stopped = self._stopped.get(member.agent.agent_id)
            if stopped is None or not stopped[0] <= at_us < stopped[1]:
                self._work(member, at_us)

    def _work(self, member: Member, at_us: int) -> None:
        """One piece, as it usually goes: some ask first, some are told of in parts or twice."""
        rng, report = self._rng, self._report(member, at_us)
        if member.agent.agent_id == "code-reviewer":
            self._reviewed.append(at_us)
        luck = rng.random()
        if luck < (0.3 if member.careful else 0.02):
            self._ask(report, at_us, gives_back=luck < 0.001)
        elif luck > 0.997 and report.usage.output_tokens:
            partial = report.usage.replace(output_tokens=report.usage.output_tokens // 3)
            self._push(at_us, report.replace(usage=partial))
            self._push(at_us + waiting_us(rng, 6), report)
        else:
            self._push(at_us, report)
            if luck > 0.996:
                self._push(at_us + waiting_us(rng, 3), report)

    def _ask(self, report: Report, at_us: int, *, gives_back: bool = False, late_us: int = 0) -> None:
        """Asks, works, and says what it took; `late_us` after its hold was over."""
        self._push(at_us, Asked(report))
        used = None if gives_back else self._less(report.usage)
        ended_us = at_us + (Asked(report).ttl_us + late_us if late_us else waiting_us(self._rng, 8))
        self._push(ended_us, Finished(report.who.service or "", report.id or "", used))

    def _less(self, estimate: Usage) -> Usage:
        """What it really was."""
        if estimate.output_tokens is None:
            return estimate
        return estimate.replace(output_tokens=round(estimate.output_tokens * self._rng.uniform(0.5, 1.05)))

    def _report(
        self, member: Member, at_us: int, work: Work | None = None, session: str | None = None
    ) -> Report:
        rng, agent = self._rng, member.agent.agent_id
        if work is None:
            work = rng.choices(member.work, weights=(5, 3, 2)[: len(member.work)])[0]
        desk = self._desk(member, at_us) if session is None else _Desk(session, member.projects[0], at_us)
        luck = rng.random()
        return Report(
            Who(agent, work.service, None, desk.project, desk.session),
            work.usage(rng),
            id_of(at_us, rng.getrandbits(62)),
            work.operation,
            "sdk" if work.model is not None else "middleware" if member.careful else "self",
            None,
            200 if luck < 0.98 else 529 if luck < 0.99 else 500,
            waiting_us(rng, 2.5 if work.model is not None else 0.4) // 1000,
            f'{{"trace":"{rng.getrandbits(64):016x}","attempt":{1 if luck < 0.95 else 2}}}'
            if luck > 0.6
            else None,
        )

    def _desk(self, member: Member, at_us: int) -> _Desk:
        agent = member.agent.agent_id
        desk = self._desks.get(agent)
        if desk is None or at_us - desk.seen_us > SESSION_GAP_US:
            begun = datetime.fromtimestamp(at_us // 1_000_000, UTC)
            desk = _Desk(f"{agent}-{begun:%m%d-%H%M}", self._rng.choice(member.projects), at_us)
        self._desks[agent] = _Desk(desk.session, desk.project, at_us)
        return desk

    # Rules

    def _open_office(self) -> None:
        at_us = self.since_us
        for member in self.members:
            agent = member.agent.as_dict()
            named = tuple((field, agent[field]) for field in ("name", "tier", "owner", "parent"))
            given = tuple((field, value) for field, value in named if value is not None)
            self._push(at_us, SetAgent(member.agent.agent_id, given, member.agent.owner or DANA))
        month = self._events * COST_NANO_USD
        agent_day = 12 * 10**9
        self._limit(at_us, Subject(), None, "cost_usd", "month", _rounded(month * 5 // 4 + STORIES_NANO_USD))
        self._limit(at_us, Subject(), None, "tokens", "7d", self._events * 4000, action="warn")
        self._limit(at_us, Subject(), "web-search", "units", "day", self._events * 10**6)
        self._limit(at_us, Subject("agent", "*"), None, "cost_usd", "day", agent_day, zone="Europe/Berlin")
        self._limit(at_us, Subject("tier", "trusted"), None, "cost_usd", "day", 2 * agent_day)
        self._limit(at_us, Subject("tier", "untrusted"), None, "requests", "1h", 120)
        self._limit(at_us, Subject("agent", CRAWLER), None, "requests", "5m", 40)
        self._limit(at_us, Subject("agent", "research-lead"), None, "cost_usd", "week", month // 3)
        self._limit(at_us, Subject("agent", RUNAWAY), None, "cost_usd", "24h", 8 * 10**9)
        self._limit(at_us, Subject("project", "spring-campaign"), None, "cost_usd", "total", month)
        self._limit(at_us, Subject("session", "*"), "github", "requests", "hour", 200, action="warn")
        self._limit(at_us, Subject("agent", PAYER), "payments-api", "requests", "day", 60)

    def _limit(
        self,
        at_us: int,
        subject: Subject,
        service: str | None,
        metric: Metric,
        window: str,
        maximum: int,
        *,
        action: Action | None = None,
        zone: str | None = None,
    ) -> None:
        key = LimitKey(subject, service, metric, window)
        limit_id = id_of(at_us, self._rng.getrandbits(62))
        self._push(at_us, SetLimit(limit_id, key, maximum, MARIA, action, zone))

    def _tighten(self, at_us: int) -> None:
        """A budget that is nearly used up as soon as it is set."""
        lately = sum(done_us > at_us - DAY_US for done_us in self._reviewed)
        maximum = lately + max(lately // 7, 1)
        self._limit(at_us, Subject("agent", "code-reviewer"), None, "requests", "24h", maximum)

    # Stories

    def _tell_stories(self) -> None:
        day, until_us = self.since_us, self.until_us
        self._run_wild(READER, day + 9 * DAY_US, 40 * MINUTE_US, 15, asks_from=60)
        self._run_wild(RUNAWAY, until_us - 3 * HOUR_US, 3 * HOUR_US, 22, asks_from=330)
        self._hold_up(day + 12 * DAY_US, 2 * HOUR_US)
        self._stop(PAYER, day + 20 * DAY_US, 90 * MINUTE_US, MARIA, "sends reminders twice")
        self._stop(STOPPED, until_us - 6 * HOUR_US, 7 * HOUR_US, LI, "wrong prices in the report")
        for number in (6, 13, 21, 27):
            self._burst(day + number * DAY_US + 11 * HOUR_US)
        coder = self._by_name["coder"]
        late_us = day + 8 * DAY_US
        self._ask(self._report(coder, late_us, session="coder-slow"), late_us, late_us=4 * MINUTE_US)
        raised = Subject("agent", "coder")
        self._limit(day + 10 * DAY_US, raised, None, "cost_usd", "day", 15 * 10**9)
        self._limit(day + 17 * DAY_US, raised, None, "cost_usd", "day", 30 * 10**9)
        trial = LimitKey(Subject("agent", RUNAWAY), None, "requests", "day")
        self._limit(day + 2 * DAY_US, trial.subject, None, "requests", "day", 50)
        self._push(day + 5 * DAY_US, RemoveLimit(DANA, key=trial))
        for agent in ("research-lead", "coder", "support-writer"):
            at_us = until_us - self._rng.randrange(MINUTE_US, 4 * MINUTE_US)
            self._push(
                at_us, Asked(self._report(self._by_name[agent], at_us, session=f"{agent}-now"), HOUR_US)
            )

    def _run_wild(self, agent: str, at_us: int, length_us: int, every_s: float, *, asks_from: int) -> None:
        """A loop that costs more with each turn, because its context grows. At last it asks, and hears no."""
        member = self._by_name[agent]
        end_us, turn = at_us + length_us, 0
        while at_us < end_us:
            loop = member.work[0]
            worse = loop.replace(inputs=loop.inputs * 2 + turn * 60)
            report = self._report(member, at_us, worse, f"{agent}-loop")
            self._push(at_us, report if turn < asks_from else Asked(report))
            at_us += waiting_us(self._rng, every_s)
            turn += 1

    def _hold_up(self, at_us: int, length_us: int) -> None:
        """A service is stopped for everybody."""
        service = "payments-api"
        reason = "the bank reports charges that were made twice"
        self._push(at_us, SetSwitch("service", service, True, reason, MARIA))
        self._knock(PAYER, at_us, length_us)
        self._push(at_us + length_us, SetSwitch("service", service, False, None, MARIA))

    def _stop(self, agent: str, at_us: int, length_us: int, actor: str, reason: str) -> None:
        """An agent is stopped, knocks now and then, and (unless the month ends before) goes on."""
        self._stopped[agent] = (at_us, at_us + length_us)
        self._push(at_us, SetSwitch("agent", agent, True, reason, actor))
        self._knock(agent, at_us, length_us)
        self._push(at_us + length_us, SetSwitch("agent", agent, False, None, actor))

    def _knock(self, agent: str, at_us: int, length_us: int) -> None:
        member = self._by_name[agent]
        for _ in range(8):
            then_us = at_us + self._rng.randrange(MINUTE_US, length_us)
            self._push(then_us, Asked(self._report(member, then_us, member.work[0], f"{agent}-again")))

    def _burst(self, at_us: int) -> None:
        """More pages than the crawler may fetch in five minutes."""
        member = self._by_name[CRAWLER]
        for _ in range(90):
            at_us += waiting_us(self._rng, 2.5)
            self._ask(self._report(member, at_us, member.work[0], f"{CRAWLER}-burst"), at_us)


def _clock(hour: int) -> tuple[int, bool]:
    """The hour of the day, and whether it is on a weekend. 1 January 1970 was a Thursday."""
    return hour % 24, (hour // 24 + 3) % 7 >= 5


def _rounded(nano_usd: int) -> int:
    """To ten dollars, as a person sets a budget."""
    return max(nano_usd // 10**10, 1) * 10**10
