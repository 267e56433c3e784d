"""Who may do what with a ledger, role by role: the table of the README, run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest

from agent_meter_mcp.core.commands import Settle
from agent_meter_mcp.core.errors import Forbidden, InvalidInput, NotFound
from agent_meter_mcp.core.models import LimitKey, Subject, Usage, Who
from agent_meter_mcp.core.queries import AgentsQuery, EventsQuery, SummaryQuery, UsageFilter
from agent_meter_mcp.core.roles import Caller
from agent_meter_mcp.intake import Report
from agent_meter_mcp.ledger import Ledger

from .conftest import AGENT, OPERATOR, SERVICE, VIEWER, AnyStore, report, requests_per_day

if TYPE_CHECKING:
    Deed = Callable[[Ledger, Caller], Awaitable[Any]]

ROLES = {"agent": AGENT, "service": SERVICE, "viewer": VIEWER, "operator": OPERATOR}
USERS = {"agent", "service", "operator"}
READERS = {"agent", "viewer", "operator"}
FREE = Usage(requests=0)


async def hold(ledger: Ledger, agent: str = "bot", service: str = "openai") -> str:
    """A reservation, made by the operator."""
    held = (await ledger.reserve(OPERATOR, report(agent, service))).reservation
    assert held is not None
    return held.reservation_id


async def settle(ledger: Ledger, caller: Caller) -> object:
    return await ledger.settle(caller, Settle(await hold(ledger), None))


async def release(ledger: Ledger, caller: Caller) -> object:
    return await ledger.release(caller, await hold(ledger))


async def extend(ledger: Ledger, caller: Caller) -> object:
    return await ledger.extend(caller, await hold(ledger), 60_000_000)


async def remove_limit(ledger: Ledger, caller: Caller) -> object:
    await ledger.set_limit(OPERATOR, requests_per_day(), 1000)
    return await ledger.remove_limit(caller, key=requests_per_day())


async def revoke_key(ledger: Ledger, caller: Caller) -> object:
    key, _ = await ledger.create_key(OPERATOR, "viewer")
    return await ledger.revoke_key(caller, key.key_id)


async def record_many(ledger: Ledger, caller: Caller) -> None:
    for answer in await ledger.record_many(caller, [report()]):
        if isinstance(answer, Exception):
            raise answer


async def subscribe(ledger: Ledger, caller: Caller) -> None:
    async with ledger.subscribe(caller):
        pass


DEEDS: dict[str, tuple[set[str], Deed]] = {
    "record": (USERS, lambda ledger, caller: ledger.record(caller, report())),
    "record_many": (USERS, record_many),
    "check": (USERS, lambda ledger, caller: ledger.check(caller, Who("bot", "openai"), FREE)),
    "gate": (USERS, lambda ledger, caller: ledger.gate(caller, Who("bot", "openai"), FREE)),
    "reserve": (USERS, lambda ledger, caller: ledger.reserve(caller, report())),
    "settle": (USERS, settle),
    "release": (USERS, release),
    "extend": (USERS, extend),
    "summary": (READERS, lambda ledger, caller: ledger.summary(caller, SummaryQuery(UsageFilter()))),
    "events": (READERS, lambda ledger, caller: ledger.events(caller, EventsQuery(UsageFilter()))),
    "agents": (READERS, lambda ledger, caller: ledger.agents(caller, AgentsQuery())),
    "limits": (READERS, lambda ledger, caller: ledger.limits(caller)),
    "switches": (READERS, lambda ledger, caller: ledger.switches(caller)),
    "alerts": (READERS, lambda ledger, caller: ledger.alerts(caller)),
    "reservations": (READERS, lambda ledger, caller: ledger.reservations(caller)),
    "create_key": ({"operator"}, lambda ledger, caller: ledger.create_key(caller, "viewer")),
    "revoke_key": ({"operator"}, revoke_key),
    "keys": ({"operator"}, lambda ledger, caller: ledger.keys(caller)),
    "names": (READERS, lambda ledger, caller: ledger.names(caller, "agent", "")),
    "subscribe": (READERS, subscribe),
    "audit": ({"viewer", "operator"}, lambda ledger, caller: ledger.audit(caller)),
    "set_agent": ({"operator"}, lambda ledger, caller: ledger.set_agent(caller, "bot", {"tier": "free"})),
    "set_limit": ({"operator"}, lambda ledger, caller: ledger.set_limit(caller, requests_per_day(), 9)),
    "remove_limit": ({"operator"}, remove_limit),
    "stop everything": (
        {"operator"},
        lambda ledger, caller: ledger.set_switch(caller, "everything", None, True, "why"),
    ),
    "stop a service": (
        {"operator"},
        lambda ledger, caller: ledger.set_switch(caller, "service", "openai", True, "why"),
    ),
    "stop the agent": (
        {"agent", "operator"},
        lambda ledger, caller: ledger.set_switch(caller, "agent", "bot", True, "why"),
    ),
    "stop another agent": (
        {"operator"},
        lambda ledger, caller: ledger.set_switch(caller, "agent", "other", True, "why"),
    ),
    "start the agent": (
        {"operator"},
        lambda ledger, caller: ledger.set_switch(caller, "agent", "bot", False, None),
    ),
}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("deed", DEEDS)
async def test_a_role_may_do_what_the_table_says(
    ledger: Ledger, store: AnyStore, deed: str, role: str
) -> None:
    roles, act = DEEDS[deed]
    async with ledger:
        if role in roles:
            await act(ledger, ROLES[role])
        else:
            with pytest.raises(Forbidden):
                await act(ledger, ROLES[role])
            assert [entry.actor for entry in await ledger.audit(OPERATOR) if entry.actor != "olga"] == []


async def test_an_agent_does_not_use_the_budget_of_a_parent_of_its_own_choice(ledger: Ledger) -> None:
    bot = ROLES["agent"]
    async with ledger:
        await ledger.set_limit(OPERATOR, requests_per_day(), 5)
        await ledger.record(OPERATOR, report("other"))
        chosen = Who("bot", "openai", "other")
        for act in (
            lambda: ledger.record(bot, Report(chosen, Usage())),
            lambda: ledger.reserve(bot, Report(chosen, Usage())),
            lambda: ledger.check(bot, chosen, Usage()),
            lambda: ledger.gate(bot, chosen, Usage()),
        ):
            with pytest.raises(Forbidden, match="cannot choose your parent"):
                await act()
        await ledger.set_agent(OPERATOR, "bot", {"parent": "other"})
        await ledger.record(bot, Report(chosen, Usage()))


async def family(ledger: Ledger) -> None:
    """bot has a child and a grandchild; `other` stands alone. Each has one event, at openai."""
    for agent, parent in (("bot", None), ("child", "bot"), ("grandchild", "child"), ("other", None)):
        await ledger.record(OPERATOR, Report(Who(agent, "openai", parent), Usage()))


def acting_as(agent: str, caller: Caller, ledger: Ledger) -> list[Callable[[], Awaitable[Any]]]:
    """All that an agent may do, for this one."""
    who = Who(agent, "openai")
    return [
        lambda: ledger.record(caller, report(agent)),
        lambda: record_one_of_many(ledger, caller, agent),
        lambda: ledger.check(caller, who, Usage()),
        lambda: ledger.gate(caller, who, Usage()),
        lambda: ledger.reserve(caller, report(agent)),
        lambda: ledger.summary(caller, SummaryQuery(UsageFilter(agent=agent))),
        lambda: ledger.events(caller, EventsQuery(UsageFilter(agent=agent))),
        lambda: ledger.agents(caller, AgentsQuery(agent=agent)),
        lambda: ledger.limits(caller, who),
        lambda: extend_that_of(ledger, caller, agent),
        lambda: settle_that_of(ledger, caller, agent),
        lambda: release_that_of(ledger, caller, agent),
    ]


async def record_one_of_many(ledger: Ledger, caller: Caller, agent: str) -> None:
    own, answer = await ledger.record_many(caller, [report(caller.bound_to or ""), report(agent)])
    assert not isinstance(own, Exception)
    if isinstance(answer, Exception):
        raise answer


async def extend_that_of(ledger: Ledger, caller: Caller, agent: str) -> None:
    await ledger.extend(caller, await hold(ledger, agent), 60_000_000)


async def settle_that_of(ledger: Ledger, caller: Caller, agent: str) -> None:
    await ledger.settle(caller, Settle(await hold(ledger, agent), None))


async def release_that_of(ledger: Ledger, caller: Caller, agent: str) -> None:
    await ledger.release(caller, await hold(ledger, agent))


@pytest.mark.parametrize("agent", ["bot", "child", "grandchild"])
async def test_an_agent_acts_for_its_whole_tree(ledger: Ledger, store: AnyStore, agent: str) -> None:
    async with ledger:
        await family(ledger)
        for act in acting_as(agent, AGENT, ledger):
            await act()


@pytest.mark.parametrize("agent", ["other", "unheard of"])
async def test_an_agent_acts_for_nobody_else(ledger: Ledger, store: AnyStore, agent: str) -> None:
    async with ledger:
        await family(ledger)
        for act in acting_as(agent, AGENT, ledger):
            with pytest.raises(Forbidden, match="bound to agent 'bot'"):
                await act()
        child = Caller("agent", "agent child", bound_to="child")
        for act in acting_as("bot", child, ledger):
            with pytest.raises(Forbidden):
                await act()


async def test_an_agent_spawns_and_does_not_adopt(ledger: Ledger) -> None:
    async with ledger:
        await family(ledger)
        await ledger.record(AGENT, Report(Who("new", "openai", "bot"), Usage()))
        assert (await ledger.record(AGENT, report("new"))).status == "recorded"
        with pytest.raises(Forbidden):
            await ledger.record(AGENT, Report(Who("other", "openai", "bot"), Usage()))


async def test_an_agent_that_has_a_key_is_not_adopted_before_it_has_said_a_word(ledger: Ledger) -> None:
    """Whoever did would see what it uses, and could stop it."""
    async with ledger:
        await ledger.create_key(OPERATOR, "agent", "newcomer")
        claimed = Report(Who("newcomer", "openai", "bot"), Usage())
        with pytest.raises(Forbidden):
            await ledger.record(AGENT, claimed)
        with pytest.raises(Forbidden):
            await ledger.reserve(AGENT, claimed)
        newcomer = Caller("agent", "agent newcomer", bound_to="newcomer")
        await ledger.record(newcomer, report("newcomer"))
        (agent,) = (await ledger.agents(newcomer, AgentsQuery())).agents
        assert agent.agent.parent is None


SPOKEN_OF: dict[str, Callable[[Ledger], Awaitable[Any]]] = {
    "a limit": lambda ledger: ledger.set_limit(
        OPERATOR, LimitKey(Subject("agent", "newcomer"), None, "requests", "day"), 5
    ),
    "a kill switch": lambda ledger: ledger.set_switch(OPERATOR, "agent", "newcomer", True, "not yet"),
    "an owner": lambda ledger: ledger.set_agent(OPERATOR, "newcomer", {"owner": "olga"}),
    "a child": lambda ledger: ledger.record(
        OPERATOR, Report(Who("its child", "openai", "newcomer"), Usage())
    ),
}


@pytest.mark.parametrize("thing", SPOKEN_OF)
async def test_who_was_spoken_of_is_not_adopted_before_it_has_said_a_word(ledger: Ledger, thing: str) -> None:
    """An operator gives an agent its budget before it starts: nobody else uses that up meanwhile."""
    async with ledger:
        await SPOKEN_OF[thing](ledger)
        claimed = Report(Who("newcomer", "openai", "bot"), Usage())
        for act in (ledger.record, ledger.reserve):
            with pytest.raises(Forbidden, match="'newcomer' exists already"):
                await act(AGENT, claimed)
        await ledger.record(OPERATOR, report("newcomer"))
        (agent,) = (await ledger.agents(OPERATOR, AgentsQuery(agent="newcomer"))).agents
        assert agent.agent.parent is None


async def test_a_service_credential_is_for_that_service(ledger: Ledger) -> None:
    async with ledger:
        for agent in ("bot", "other"):
            await ledger.record(SERVICE, report(agent))
            await ledger.settle(SERVICE, Settle(await hold(ledger, agent), None))
        with pytest.raises(Forbidden, match="openai"):
            await ledger.record(SERVICE, report(service="stripe"))
        with pytest.raises(Forbidden, match="openai"):
            await ledger.reserve(SERVICE, report(service="stripe"))
        with pytest.raises(Forbidden, match="openai"):
            await ledger.settle(SERVICE, Settle(await hold(ledger, service="stripe"), None))
        with pytest.raises(Forbidden, match="openai"):
            await ledger.check(SERVICE, Who("bot"), Usage())


async def test_an_agent_names_no_other_source_than_itself(ledger: Ledger) -> None:
    async with ledger:
        with pytest.raises(InvalidInput, match="source"):
            await ledger.record(AGENT, report(source="proxy"))
        with pytest.raises(InvalidInput, match="source"):
            await ledger.reserve(AGENT, report(source="proxy"))


@pytest.mark.parametrize("caller", [OPERATOR, AGENT, SERVICE])
async def test_an_unknown_reservation_is_said_to_be_unknown(ledger: Ledger, caller: Caller) -> None:
    async with ledger:
        for call in (
            ledger.settle(caller, Settle("nothing", None)),
            ledger.release(caller, "nothing"),
            ledger.extend(caller, "nothing", 60_000_000),
        ):
            with pytest.raises(NotFound, match="nothing"):
                await call
