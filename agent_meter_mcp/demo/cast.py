"""Who works there: agents in teams, their hours, and what a piece of their work uses. Pure."""

from __future__ import annotations

from itertools import accumulate
from math import log
from typing import TYPE_CHECKING

from agent_meter_mcp.core.models import Agent, Usage
from agent_meter_mcp.core.value import Value

if TYPE_CHECKING:
    import random
    from typing import Literal

    Rhythm = Literal["office", "night", "always"]

NAMED = 12
"""So many have a part of their own in the month; the others are the rest of a large company."""
RUNAWAY, STOPPED, PAYER, CRAWLER, READER = (
    "growth-bot",
    "nightly-batch",
    "invoice-bot",
    "data-crawler",
    "paper-scout",
)
"""Who runs wild today, who is stopped now, who was stopped for a while, who is throttled, who ran wild on a
weekend."""


class Work(Value):
    """A kind of work. A model's cost comes from the price list; any other service says what it took.

    `inputs`, `outputs` and `cached` are typical token counts, `units` and `cost_nano_usd` what a call of
    another service counts and costs.
    """

    service: str
    operation: str
    model: str | None = None
    inputs: int = 0
    outputs: int = 0
    cached: int = 0
    unit_type: str | None = None
    units: int = 0
    cost_nano_usd: int = 0

    def usage(self, rng: random.Random) -> Usage:
        """What one call uses."""
        if self.model is None:
            units = max(round(self.units * _around_one(rng)), 1)
            return Usage(
                units_micro=units * 1_000_000 if self.unit_type else None,
                unit_type=self.unit_type,
                cost_nano_usd=self.cost_nano_usd * (units if self.unit_type else 1),
                cost_source="reported",
            )
        return Usage(
            input_tokens=round(self.inputs * _around_one(rng)),
            output_tokens=round(self.outputs * _around_one(rng)) if self.outputs else None,
            cache_read_tokens=round(self.cached * _around_one(rng)) if self.cached else None,
            model=self.model,
        )


def _around_one(rng: random.Random) -> float:
    """Usually near 1, now and then several times that."""
    return min(rng.lognormvariate(0, 0.6), 12)


class Member(Value):
    """An agent at work. `busy` is its share of all that happens; a `careful` one asks before it spends."""

    agent: Agent
    rhythm: Rhythm
    busy: float
    work: tuple[Work, ...]
    projects: tuple[str, ...]
    careful: bool = False


_RESEARCH = (
    Work("anthropic", "chat", "claude-opus-4-5", 5200, 900, 9000),
    Work("anthropic", "summarise", "claude-sonnet-5", 7800, 700, 4000),
    Work("web-search", "search", unit_type="result", units=10, cost_nano_usd=500_000),
)
_CODING = (
    Work("anthropic", "edit", "claude-sonnet-5", 3800, 1400, 26_000),
    Work("anthropic", "plan", "claude-opus-4-5", 4400, 1100, 18_000),
    Work("github", "pull_request"),
)
_SUPPORT = (
    Work("openai", "classify", "gpt-5-mini", 900, 60),
    Work("openai", "reply", "gpt-5", 2600, 420, 1500),
)
_DATA = (
    Work("web-search", "fetch", unit_type="page", units=3, cost_nano_usd=120_000),
    Work("openai", "embed", "text-embedding-3-small", 6400),
    Work("house-llm", "extract", "house-llama-70b", 5200, 300),
)
_FINANCE = (
    Work("payments-api", "charge", unit_type="invoice", units=1, cost_nano_usd=30_000_000),
    Work("openai", "check", "gpt-5-mini", 1800, 150),
)
_GROWTH = (
    Work("google", "draft", "gemini-2.5-pro", 2400, 1100),
    Work("google", "rank", "gemini-2.5-flash", 3600, 120),
)

_TEAMS: dict[str, tuple[str, Rhythm, tuple[Work, ...], tuple[str, ...], tuple[str, ...]]] = {
    "research": ("dana", "office", _RESEARCH, ("atlas", "market-watch"), ("scout", "reader", "checker")),
    "platform": ("bo", "office", _CODING, ("checkout", "mobile-app"), ("coder", "reviewer", "tester")),
    "support": ("imani", "always", _SUPPORT, ("helpdesk",), ("triage", "writer", "caller")),
    "data": ("li", "always", _DATA, ("lake", "atlas"), ("crawler", "indexer", "cleaner")),
    "finance": ("maria", "office", _FINANCE, ("invoicing",), ("booker", "auditor", "chaser")),
    "growth": ("sam", "office", _GROWTH, ("spring-campaign",), ("writer", "ranker", "mailer")),
}
"""Owner, hours, work, projects, and what its subagents are called."""
_TIERS = ("standard", "standard", "trusted", "standard", "untrusted")
_SQUAD = 8
_PARTS: tuple[tuple[str, str, str, str | None, float], ...] = (
    ("research-lead", "research", "trusted", None, 9),
    (READER, "research", "standard", "research-lead", 14),
    ("fact-checker", "research", "standard", "research-lead", 6),
    ("coder", "platform", "trusted", None, 16),
    ("code-reviewer", "platform", "standard", "coder", 10),
    ("test-writer", "platform", "standard", "coder", 7),
    ("support-triage", "support", "standard", None, 22),
    ("support-writer", "support", "standard", "support-triage", 12),
    (CRAWLER, "data", "standard", None, 30),
    (STOPPED, "data", "standard", CRAWLER, 11),
    (PAYER, "finance", "trusted", None, 5),
    (RUNAWAY, "growth", "untrusted", None, 6),
)
"""Agent, team, tier, parent, share of the work."""
_TITLES = {"research-lead": "Research lead", PAYER: "Invoice bot", RUNAWAY: "Growth bot (trial)"}


def cast(rng: random.Random, agents: int) -> list[Member]:
    """So many agents, at least `NAMED`; the same from the same state of `rng`."""
    members = [
        _member(agent, team, tier, parent, busy, careful=agent in (PAYER, CRAWLER))
        for agent, team, tier, parent, busy in _PARTS
    ]
    teams = list(_TEAMS)
    lead = ""
    for number in range(agents - NAMED):
        squad, place = divmod(number, _SQUAD)
        team = teams[squad % len(teams)]
        busy = min(rng.paretovariate(1.2), 30)
        tier = rng.choice(_TIERS)
        if place == 0:
            lead = f"{team}-{squad + 1:03}"
            members.append(_member(lead, team, tier, None, busy))
        else:
            role = _TEAMS[team][4][place % 3]
            members.append(_member(f"{lead}-{role}-{place}", team, tier, lead, busy))
    return members


def _member(
    agent: str, team: str, tier: str, parent: str | None, busy: float, *, careful: bool = False
) -> Member:
    owner, rhythm, work, projects, _ = _TEAMS[team]
    hours: Rhythm = "night" if agent == STOPPED else rhythm
    return Member(Agent(agent, _TITLES.get(agent), tier, owner, parent), hours, busy, work, projects, careful)


_OFFICE = [1, 1, 0, 0, 0, 1, 3, 12, 40, 75, 95, 100, 70, 80, 100, 95, 80, 55, 25, 12, 8, 6, 4, 2]
_NIGHT = [90, 100, 100, 90, 60, 20, 5, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 4, 8, 20, 45, 70]
_ALWAYS = [35, 30, 28, 28, 30, 38, 50, 62, 75, 85, 92, 95, 90, 92, 95, 92, 88, 80, 75, 70, 62, 55, 48, 40]
_HOURS: dict[Rhythm, list[int]] = {"office": _OFFICE, "night": _NIGHT, "always": _ALWAYS}
_WEEKEND: dict[Rhythm, float] = {"office": 0.08, "night": 0.9, "always": 0.55}


class Shifts:
    """Who is likely to work in an hour of the week."""

    def __init__(self, members: list[Member]) -> None:
        self._members = members
        self._weights: dict[tuple[int, bool], list[float]] = {}

    def busy(self, hour: int, weekend: bool) -> float:
        """How much happens in that hour, in comparison with others."""
        return self._cumulative(hour, weekend)[-1]

    def chosen(self, rng: random.Random, hour: int, weekend: bool, count: int) -> list[Member]:
        """Who does so many pieces of work in that hour."""
        return rng.choices(self._members, cum_weights=self._cumulative(hour, weekend), k=count)

    def _cumulative(self, hour: int, weekend: bool) -> list[float]:
        key = (hour, weekend)
        if key not in self._weights:
            factors = {
                rhythm: hours[hour] * (_WEEKEND[rhythm] if weekend else 1.0)
                for rhythm, hours in _HOURS.items()
            }
            self._weights[key] = list(
                accumulate(member.busy * factors[member.rhythm] for member in self._members)
            )
        return self._weights[key]


def waiting_us(rng: random.Random, usual_s: float) -> int:
    """How long something takes that usually takes so many seconds; sometimes a multiple of that."""
    return int(rng.lognormvariate(log(usual_s), 0.5) * 1_000_000)
