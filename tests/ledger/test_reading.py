"""What a ledger answers, and how much of it an agent sees."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from agent_meter_mcp.core.errors import Forbidden, InvalidInput, StoreBusy
from agent_meter_mcp.core.models import LimitKey, Subject, Usage, Who
from agent_meter_mcp.core.queries import AgentsQuery, EventsQuery, SummaryQuery, UsageFilter
from agent_meter_mcp.core.roles import Caller
from agent_meter_mcp.intake import Report
from agent_meter_mcp.ledger import Ledger, Looking

from .conftest import (
    AGENT,
    OPERATOR,
    SERVICE,
    VIEWER,
    AnyStore,
    ManualClock,
    ledger_on,
    report,
    requests_per_day,
)


def key(subject: Subject, service: str | None = None) -> LimitKey:
    return LimitKey(subject, service, "requests", "day")


async def two_families(ledger: Ledger) -> None:
    """bot with its child, other with its pup: each works in a project and a session of its family."""
    for agent, parent in (("bot", None), ("child", "bot"), ("other", None), ("pup", "other")):
        root = parent or agent
        who = Who(agent, f"{root}'s service", parent, f"{root}'s project", f"{root}'s session")
        await ledger.record(
            OPERATOR, Report(who, Usage(input_tokens=1, model=f"{root}'s model"), operation=f"{root}'s work")
        )


async def test_usage_is_narrowed_to_the_tree_of_an_agent(ledger: Ledger) -> None:
    async with ledger:
        await two_families(ledger)
        query = SummaryQuery(UsageFilter(), ("agent",), order_by="key")
        assert [group.key for group in (await ledger.summary(AGENT, query)).groups] == [("bot",), ("child",)]
        assert (await ledger.summary(AGENT, query)).total.events == 2
        assert (await ledger.summary(VIEWER, query)).total.events == 4
        listed = (await ledger.events(AGENT, EventsQuery(UsageFilter()))).events
        assert [event.event.who.agent for event in listed] == ["child", "bot"]
        assert len((await ledger.events(VIEWER, EventsQuery(UsageFilter()))).events) == 4
        known = (await ledger.agents(AGENT, AgentsQuery())).agents
        assert [view.agent.agent_id for view in known] == ["bot", "child"]
        assert len((await ledger.agents(VIEWER, AgentsQuery())).agents) == 4


async def test_an_agent_cannot_widen_its_view(ledger: Ledger) -> None:
    async with ledger:
        await two_families(ledger)
        wide = UsageFilter(within="other")
        assert (await ledger.summary(AGENT, SummaryQuery(wide))).total.events == 2
        assert len((await ledger.events(AGENT, EventsQuery(wide))).events) == 2
        known = (await ledger.agents(AGENT, AgentsQuery(within="other"))).agents
        assert [view.agent.agent_id for view in known] == ["bot", "child"]
        # For somebody who sees everything it is a filter like any other.
        assert len((await ledger.agents(VIEWER, AgentsQuery(within="other"))).agents) == 2


@pytest.mark.parametrize("kind", ["agent", "service", "operation", "model", "project", "session"])
async def test_names_are_those_that_the_caller_may_see(ledger: Ledger, kind: str) -> None:
    async with ledger:
        await two_families(ledger)
        bots, others = ["bot", "child"], ["other", "pup"]
        if kind != "agent":
            named = "work" if kind == "operation" else kind
            bots, others = [f"bot's {named}"], [f"other's {named}"]
        assert await ledger.names(AGENT, kind) == bots
        assert await ledger.names(VIEWER, kind, "") == [*bots, *others]
        assert await ledger.names(VIEWER, kind, "o") == others[:1]
        assert await ledger.names(AGENT, kind, "o") == []
        assert await ledger.names(AGENT, kind, "b") == bots[:1]
        assert await ledger.names(VIEWER, kind, "", limit=1) == bots[:1]
        assert await ledger.names(AGENT, kind, "", limit=1) == bots[:1]


async def test_only_known_kinds_of_names_and_bounded_lists(ledger: Ledger) -> None:
    async with ledger:
        with pytest.raises(InvalidInput, match="kind"):
            await ledger.names(OPERATOR, "password")
        for call in (
            ledger.names(OPERATOR, "agent", limit=1001),
            ledger.alerts(OPERATOR, limit=1001),
            ledger.alerts(OPERATOR, limit=-1),
            ledger.audit(OPERATOR, limit=1001),
        ):
            with pytest.raises(InvalidInput, match="limit"):
                await call
        for number in (-1, 2**63):
            with pytest.raises(InvalidInput, match="after"):
                await ledger.alerts(OPERATOR, after=number)
            with pytest.raises(InvalidInput, match="before_seq"):
                await ledger.audit(OPERATOR, before_seq=number)


async def test_an_agent_sees_the_limits_that_match_it_at_every_service(
    ledger: Ledger, clock: ManualClock
) -> None:
    async with ledger:
        await two_families(ledger)
        for subject, service in [
            (Subject("agent", "bot"), None),
            (Subject("agent", "*"), "openai"),
            (Subject("agent", "bot"), "openai"),
            (Subject(), "stripe"),
            (Subject("agent", "other"), None),
            (Subject("project", "p"), None),
            (Subject("session", "s"), None),
        ]:
            clock.advance(1)
            await ledger.set_limit(OPERATOR, key(subject, service), 10)

        async def seen(caller: Caller, who: Who | None = None) -> list[tuple[str, str | None, bool]]:
            return [
                (
                    str(view.limit.key.subject),
                    view.limit.key.service,
                    view.bound is None or not view.bound.replaced_by,
                )
                for view in await ledger.limits(caller, who)
            ]

        mine = [
            ("agent bot", None, True),
            ("agent *", "openai", False),
            ("agent bot", "openai", True),
            ("everyone", "stripe", True),
        ]
        assert await seen(AGENT) == mine
        assert await seen(AGENT, Who("bot")) == mine
        assert await seen(OPERATOR, Who("bot")) == mine
        assert await seen(OPERATOR, Who("bot", "stripe")) == [mine[0], mine[3]]
        assert await seen(AGENT, Who("child")) == [mine[0], ("agent *", "openai", True), *mine[2:]]
        working = Caller("agent", "bot", bound_to="bot", default_project="p", default_session="s")
        assert [one[0] for one in await seen(working)][-2:] == ["project p", "session s"]
        assert len(await seen(OPERATOR)) == 7

        def told(looking: Looking) -> tuple[list[str], list[str]]:
            pools = [str(view.limit.key.subject) for view in looking.limits(kind="pool")]
            return [str(limit.key.subject) for limit in looking.rules()], pools

        assert await ledger.look(AGENT, told) == ([one[0] for one in mine], ["everyone"])
        rules, pools = await ledger.look(VIEWER, told)
        assert (len(rules), pools) == (7, ["everyone"])


async def test_a_look_is_of_one_moment_while_others_write(ledger: Ledger) -> None:
    started, written = threading.Event(), threading.Event()

    def looks(looking: Looking) -> list[object]:
        def seen() -> object:
            usage = looking.summary(SummaryQuery(UsageFilter(), ("agent",)))
            return (
                usage,
                looking.events(EventsQuery(UsageFilter())),
                looking.switches(),
                looking.reservations(),
            )

        first = seen()
        started.set()
        assert written.wait(10)
        return [first, seen()]

    async with ledger:
        await two_families(ledger)
        looking = asyncio.create_task(ledger.look(VIEWER, looks))
        assert await asyncio.to_thread(started.wait, 10)
        await ledger.record(OPERATOR, report("bot", "openai"))
        await ledger.reserve(OPERATOR, report("bot", "openai"))
        await ledger.set_switch(OPERATOR, "agent", "pup", True, "drill")
        written.set()
        first, second = await looking
        assert first == second
        assert (await ledger.look(VIEWER, looks))[0] != first
        with pytest.raises(Forbidden):
            await ledger.look(SERVICE, looks)


async def test_limits_for_an_impossible_somebody_are_an_error(ledger: Ledger) -> None:
    async with ledger:
        with pytest.raises(InvalidInput, match="agent"):
            await ledger.limits(OPERATOR, Who("no\nname"))


async def test_a_limit_comes_with_its_state(ledger: Ledger) -> None:
    async with ledger:
        await ledger.record(OPERATOR, report())
        done, state = await ledger.set_limit(OPERATOR, requests_per_day("bot"), 10, thresholds=(90,))
        assert (done.status, done.limit.max, done.limit.thresholds) == ("created", 10, (90,))
        assert state is not None
        assert (state.used, state.remaining) == (1, 9)
        changed, _ = await ledger.set_limit(OPERATOR, requests_per_day("bot"), 20)
        assert (changed.status, changed.limit.limit_id) == ("changed", done.limit.limit_id)
        removed = await ledger.remove_limit(OPERATOR, limit_id=done.limit.limit_id)
        assert removed == changed.limit
        assert await ledger.limits(OPERATOR) == []


async def test_a_limit_is_set_even_if_its_state_cannot_be_told(
    ledger: Ledger, store: AnyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: Any) -> Any:
        raise StoreBusy("locked")

    async with ledger:
        monkeypatch.setattr(store, "limits", busy, raising=False)
        done, state = await ledger.set_limit(OPERATOR, requests_per_day("bot"), 10)
        assert (done.status, state) == ("created", None)


async def test_an_agent_sees_the_switches_that_stop_its_tree(ledger: Ledger) -> None:
    async with ledger:
        await two_families(ledger)
        for agent in ("bot", "child", "other"):
            await ledger.set_switch(OPERATOR, "agent", agent, True, "a test")
        await ledger.set_switch(OPERATOR, "service", "openai", True, "a test")
        await ledger.set_switch(OPERATOR, "everything", None, True, "a test")
        expected = {"agent bot", "agent child", "service openai", "everything"}
        assert {str(switch) for switch in await ledger.switches(AGENT)} == expected
        assert {str(switch) for switch in await ledger.switches(VIEWER)} == {*expected, "agent other"}
        child = Caller("agent", "child", bound_to="child")
        assert {str(switch) for switch in await ledger.switches(child)} == expected
        released = await ledger.set_switch(OPERATOR, "agent", "bot", False, None)
        assert (released.changed, released.engaged) == (True, False)
        assert "agent bot" not in {str(switch) for switch in await ledger.switches(AGENT)}


async def test_an_agent_sees_the_alerts_about_its_tree(ledger: Ledger) -> None:
    async with ledger:
        await two_families(ledger)
        limits = {
            name: (await ledger.set_limit(OPERATOR, key(subject), 1, thresholds=(100,)))[0].limit.limit_id
            for name, subject in {
                "each": Subject("agent", "*"),
                "own": Subject("agent", "bot"),
                "other's": Subject("agent", "other"),
                "all": Subject(),
                "project": Subject("project", "*"),
                "session": Subject("session", "*"),
            }.items()
        }
        await two_families(ledger)
        names = {number: name for name, number in limits.items()}

        async def seen(caller: Caller) -> set[tuple[str, str]]:
            seen = [view.alert for view in await ledger.alerts(caller)]
            return {(names[alert.limit_id], alert.scope) for alert in seen}

        mine = {("own", ""), ("each", "child"), ("all", "")}
        assert await seen(AGENT) == mine
        here = Caller(
            "agent",
            "bot",
            bound_to="bot",
            default_project="bot's project",
            default_session="bot's session",
        )
        assert await seen(here) == mine | {("project", "bot's project"), ("session", "bot's session")}
        everything = await seen(VIEWER)
        assert mine < everything
        assert {scope for _, scope in everything} >= {"pup", "other's project", "other's session"}
        assert ("other's", "") in everything
        newest = await ledger.alerts(VIEWER, limit=2)
        assert [view.alert.number for view in newest] == [len(everything), len(everything) - 1]
        assert {view.key for view in await ledger.alerts(VIEWER)} >= {key(Subject("agent", "other"))}
        assert await ledger.alerts(VIEWER, after=len(everything)) == []
        assert len(await ledger.alerts(AGENT, limit=1)) == 1
        await ledger.remove_limit(OPERATOR, limit_id=limits["own"])
        assert ("own", "") not in await seen(AGENT)


async def test_an_alert_is_of_its_limit_also_where_that_does_not_bind_who_sees_it(ledger: Ledger) -> None:
    async with ledger:
        await two_families(ledger)
        of_the_child, of_its_tier = key(Subject("agent", "child")), key(Subject("tier", "gold"), "exa")
        await ledger.set_agent(OPERATOR, "child", {"tier": "gold"})
        await ledger.set_limit(OPERATOR, of_the_child, 1, thresholds=(100,))
        gone = (await ledger.set_limit(OPERATOR, of_its_tier, 1, thresholds=(100,)))[0].limit.limit_id
        await ledger.record(OPERATOR, Report(Who("child", "exa"), Usage()))
        assert {view.key for view in await ledger.alerts(AGENT)} == {of_the_child, of_its_tier}
        await ledger.remove_limit(OPERATOR, limit_id=gone)
        assert {view.key for view in await ledger.alerts(VIEWER)} == {of_the_child, None}


async def test_an_agent_sees_the_holds_of_its_tree(ledger: Ledger) -> None:
    async with ledger:
        await two_families(ledger)
        for agent in ("bot", "child", "other"):
            await ledger.reserve(OPERATOR, report(agent))
        assert [held.who.agent for held in await ledger.reservations(AGENT)] == ["bot", "child"]
        assert len(await ledger.reservations(VIEWER)) == 3


async def test_control_actions_are_listed_with_their_actor(ledger: Ledger) -> None:
    async with ledger:
        await ledger.set_agent(OPERATOR, "bot", {"tier": "free"})
        await ledger.set_switch(AGENT, "agent", "bot", True, "I loop")
        entries = await ledger.audit(VIEWER)
        assert [(entry.actor, entry.reason) for entry in entries] == [("agent bot", "I loop"), ("olga", None)]
        assert await ledger.audit(VIEWER, before_seq=entries[0].seq, limit=1) == entries[1:]


async def test_long_reads_run_beside_writes(ledger: Ledger, store: AnyStore) -> None:
    async with ledger:
        store.seen.hold()
        writing = asyncio.create_task(ledger.record(OPERATOR, report()))
        reads = [ledger.summary(OPERATOR, SummaryQuery(UsageFilter())) for _ in range(10)]
        assert [summary.total.events for summary in await asyncio.gather(*reads)] == [0] * 10
        assert (await ledger.check(OPERATOR, Who("bot"), Usage())).allowed
        store.seen.let_go()
        await writing


async def test_peeks_gather_too(store: AnyStore, clock: ManualClock) -> None:
    async with ledger_on(store, clock) as ledger:
        asked = [ledger.check(OPERATOR, Who("bot"), Usage()) for _ in range(100)]
        assert all(decision.allowed for decision in await asyncio.gather(*asked))
        assert store.seen.peeks < 50


async def test_a_bad_question_is_its_askers_alone(ledger: Ledger) -> None:
    async with ledger:
        answers = await asyncio.gather(
            ledger.check(OPERATOR, Who("bot"), Usage()),
            ledger.check(OPERATOR, Who(""), Usage()),
            ledger.check(OPERATOR, Who("bot"), Usage(requests=-1)),
            ledger.check(OPERATOR, Who("bot"), Usage()),
            return_exceptions=True,
        )
        assert [type(answer).__name__ for answer in answers] == [
            "Decision",
            "InvalidInput",
            "InvalidInput",
            "Decision",
        ]


async def test_the_clock_is_the_ledgers(ledger: Ledger, clock: ManualClock) -> None:
    async with ledger:
        assert ledger.now_us() == clock.now_us
