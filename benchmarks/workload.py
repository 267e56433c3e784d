"""Plausible usage: 50 agents, 300 combinations of dimensions, 76 bytes of metadata. The same on every run."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from agent_meter_mcp.core.commands import Record, SetLimit
from agent_meter_mcp.core.models import LimitKey, Subject, Usage, UsageEvent, Who
from agent_meter_mcp.runtime import id_of
from agent_meter_mcp.store.sqlite.rows import amount_columns, key_of

if TYPE_CHECKING:
    from agent_meter_mcp.core.models import Metric

START_US = 1_790_000_000_000_000
"""When the history of every benchmark ends and its present begins."""
AGENTS = tuple(f"agent-{number:02}" for number in range(50))
OPERATIONS = ("chat", "embed", "search")
MODELS = ("gpt-5", "claude-opus-4-5")
DIMS = len(AGENTS) * len(OPERATIONS) * len(MODELS)
METADATA = '{"trace":"0af7651916cd43dd8448eb211c80319c","step":"retrieve","attempt":123}'
STEP_US = 1000

Ids = Callable[[random.Random, int], str]
RawRow = tuple[object, ...]

_WHOS = tuple(Who(agent, "openai") for agent in AGENTS)
_LIMITS: tuple[tuple[str, Metric], ...] = (
    ("60s", "requests"),
    ("1h", "tokens"),
    ("day", "cost_usd"),
    ("month", "cost_usd"),
    ("total", "requests"),
    ("24h", "tokens"),
    ("hour", "tokens"),
    ("7d", "requests"),
)


def random_id(rng: random.Random, at_us: int) -> str:
    """A UUID of version 4: each lands anywhere in an index."""
    digits = f"{rng.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def ordered_id(rng: random.Random, at_us: int) -> str:
    """A UUID of version 7: later ones sort later. What the ledger makes when the caller gives none."""
    return id_of(at_us, rng.getrandbits(62))


class Workload:
    """An endless stream of usage, one event every millisecond from `at_us` on."""

    def __init__(self, ids: Ids = ordered_id, *, seed: int = 1, at_us: int = START_US) -> None:
        self.at_us = at_us
        self._ids = ids
        self._rng = random.Random(seed)
        self._row_id = at_us

    def record(self, *, want_limits: bool = False) -> Record:
        return Record(self.event(), want_limits=want_limits)

    def event(self) -> UsageEvent:
        rng = self._rng
        self.at_us += STEP_US
        return UsageEvent(
            self._ids(rng, self.at_us),
            rng.choice(_WHOS),
            self.usage(),
            rng.choice(OPERATIONS),
            "self",
            None,
            200,
            rng.randrange(100, 9000),
            METADATA,
        )

    def usage(self) -> Usage:
        """Of one call of a model; its cost is reported, so that no price has to be looked up."""
        rng = self._rng
        inputs, outputs = rng.randrange(200, 8000), rng.randrange(20, 2000)
        return Usage(
            input_tokens=inputs,
            output_tokens=outputs,
            model=rng.choice(MODELS),
            cost_nano_usd=inputs * 1250 + outputs * 10_000,
            cost_source="reported",
        )

    def records(self, count: int) -> list[Record]:
        return [self.record() for _ in range(count)]

    def rows(self, count: int) -> list[RawRow]:
        """Rows of the event table, as such events would be stored."""
        return [self._row(self.event()) for _ in range(count)]

    def _row(self, event: UsageEvent) -> RawRow:
        self._row_id = max(self._row_id + 1, self.at_us)
        dim = self._rng.randrange(1, DIMS + 1)
        amounts = amount_columns(event.usage)
        described = (event.status_code, event.duration_ms, event.metadata)
        return (self._row_id, key_of(event.id), 1, dim, *amounts, None, None, None, *described)


class NoPrices:
    """All usage here comes with its cost: there is nothing to look up."""

    def price(self, usage: Usage, at_us: int, service: str) -> Usage:
        return usage


def binding_limits(count: int) -> list[SetLimit]:
    """So many limits, of all kinds of windows, that bind every event: each agent's own, and everybody's."""
    subjects = (Subject("agent", "*"), Subject())
    return [
        SetLimit(f"limit-{number}", LimitKey(subjects[number % 2], None, metric, window), 10**15, "operator")
        for number, (window, metric) in enumerate(_LIMITS[:count])
    ]
