"""Of agents that are new, other processes read those alone: what they then know is what is in the file."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent_meter_mcp.core.commands import Record, RemoveLimit, SetAgent, SetLimit, SetSwitch
from agent_meter_mcp.core.errors import MeterError
from agent_meter_mcp.core.limits import Policy
from agent_meter_mcp.core.models import LimitKey, Subject, Usage, UsageEvent, Who
from agent_meter_mcp.store.sqlite import SqliteStore, open_store

if TYPE_CHECKING:
    from agent_meter_mcp.core.commands import Command

NOW_US = 1_790_000_000_000_000
AGENTS = [f"agent-{number}" for number in range(12)]
STEPS = 60


@pytest.mark.parametrize("seed", range(8))
def test_all_who_have_the_file_open_know_the_same_agents(seed: int, tmp_path: Path) -> None:
    """Whoever wrote, and however the clocks jump."""
    rng = random.Random(seed)
    path = str(tmp_path / "meter.db")
    stores = [open_store(path) for _ in range(3)]
    at_us = NOW_US
    try:
        for number in range(STEPS):
            at_us = max(at_us + rng.choice([0, 1, 1000, 10**7, -1000, -(10**7)]), NOW_US)
            for answer in rng.choice(stores).apply(_commands(rng, number), at_us).results:
                assert not isinstance(answer, Exception) or isinstance(answer, MeterError)
            anew = open_store(path)
            try:
                known = _known(anew.policy())
            finally:
                anew.close()
            for store in rng.sample(stores, rng.choice([1, 3])):  # who looks seldom has more to take over
                assert _known(store.policy()) == known
                assert _known(_of_its_writer(store, number, at_us)) == known
    finally:
        for store in stores:
            store.close()


def _commands(rng: random.Random, number: int) -> list[Command]:
    """One or two, in one transaction."""
    return [_command(rng, f"{number}-{part}") for part in range(rng.choice([1, 1, 2]))]


def _command(rng: random.Random, name: str) -> Command:
    agent, other = rng.sample(AGENTS, 2)
    kind = rng.choice(["child", "child", "child", "alone", "agent", "limit", "remove", "stop"])
    if kind in ("child", "alone"):
        who = Who(agent, "s", other if kind == "child" else None)
        return Record(UsageEvent(name, who, Usage(), None, "self"))
    if kind == "agent":
        changes = rng.choice([("tier", "gold"), ("tier", None), ("parent", other), ("parent", None)])
        return SetAgent(agent, (changes,), "olga")
    if kind == "limit":
        key = LimitKey(Subject("agent", agent), None, "requests", "day")
        return SetLimit(name, key, 10**6, "olga")
    if kind == "remove":
        return RemoveLimit("olga", key=LimitKey(Subject("agent", agent), None, "requests", "day"))
    return SetSwitch("agent", agent, rng.choice([True, False]), "drill", "olga")


def _of_its_writer(store: SqliteStore, number: int, at_us: int) -> Policy:
    """What it decides by, once it has written: what it writes changes nothing of it."""
    event = UsageEvent(f"look-{number}-{id(store)}", Who("looker", "s"), Usage(), None, "self")
    store.apply([Record(event)], at_us)
    return store._writer.book.policy  # pyright: ignore[reportPrivateUsage] - there is no other way


def _known(policy: Policy) -> object:
    described = {
        agent: (policy.agents[agent].tier, policy.agents[agent].parent) if agent in policy.agents else None
        for agent in AGENTS
    }
    return (
        {agent: about for agent, about in described.items() if about not in (None, (None, None))},
        {agent: (policy.lineage(agent), sorted(policy.tree(agent))) for agent in AGENTS},
        sorted(policy.limits),
        sorted(str(switch) for switch in policy.switches),
    )
