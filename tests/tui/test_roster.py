"""The table of agents: its order, its trees, and what a filter leaves. Rules, on any forest of agents."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_meter_mcp.core.models import Agent
from agent_meter_mcp.core.queries import AgentView, Totals
from agent_meter_mcp.sources.base import Snapshot
from tests.tui.test_words import CENT, NOW_US, agent, snapshot, state
from tui.roster import SORTS, STATES, Roster, as_tree, children_of, members_of, ranked, standing
from tui.totals import Tally

LATER_S = 3.0


def roster_of(found: Snapshot) -> Roster:
    roster = Roster()
    roster.take(found, 0)
    return roster


def names(roster: Roster) -> list[str]:
    return [place.agent_id for place in roster.places]


def child(name: str, parent: str | None, **changes: str) -> AgentView:
    return agent(name).replace(agent=Agent(name, parent=parent, **changes))


FAMILY = (
    child("boss", None),
    child("cod", "boss"),
    child("ann", "boss"),
    child("sub", "ann"),
    child("zed", None),
)


@pytest.mark.parametrize("sort", SORTS)
def test_equal_agents_are_in_the_order_of_their_names(sort: str) -> None:
    roster = Roster()
    roster.sort = sort
    roster.take(snapshot(agent("c"), agent("a"), agent("b")), 0)
    assert names(roster) == ["a", "b", "c"]


def test_the_gravest_the_largest_and_the_most_urgent_come_first() -> None:
    found = snapshot(
        agent("idle", "idle"),
        agent("over", "over_limit", state(200)),
        agent("held", "stopped"),
        agent("ok", "active", state(60)),
        ok=Totals(requests=5, cost_nano_usd=CENT),
        over=Totals(requests=9),
    )
    standings = {
        view.agent.agent_id: standing(view, found.used.get(view.agent.agent_id, Totals()))
        for view in found.agents
    }
    assert ranked(standings, "state") == ["held", "over", "ok", "idle"]
    assert ranked(standings, "cost")[0] == "ok"
    assert ranked(standings, "requests")[:2] == ["over", "ok"]
    assert ranked(standings, "budget")[:2] == ["over", "ok"]
    assert ranked(standings, "runs out")[:2] == ["over", "ok"]
    assert ranked(standings, "requests", reverse=True)[-1] == "over"


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("", ["bot", "coder"]),
        ("BO", ["bot"]),
        ("over", ["coder"]),
        ("!over", ["bot"]),
        ("o !bot", ["coder"]),
        ("state:over", ["coder"]),
        ("!state:over", ["bot"]),
        ("cost>1", ["bot"]),
        ("tier:pro", ["bot"]),
        ("owner:olga tier:pro", ["bot"]),
        ("budget>=100", ["coder"]),
        ("x", []),
    ],
)
def test_a_filter_takes_words_states_and_figures(typed: str, found: list[str]) -> None:
    bot = agent("bot").replace(agent=Agent("bot", tier="pro", owner="olga"))
    used = Totals(requests=1, cost_nano_usd=200 * CENT)
    roster = roster_of(snapshot(bot, agent("coder", "over_limit", state(100)), bot=used))
    roster.typed = typed
    roster.arrange()
    assert sorted(names(roster)) == found


def test_children_stand_beneath_their_parents_whatever_it_is_sorted_by() -> None:
    roster = roster_of(snapshot(*FAMILY, zed=Totals(cost_nano_usd=5), sub=Totals(cost_nano_usd=9)))
    assert [(place.agent_id, place.depth) for place in roster.places] == [
        ("boss", 0), ("ann", 1), ("sub", 2), ("cod", 1), ("zed", 0),
    ]  # fmt: skip
    roster.sort = "agent"
    roster.reversed = True
    roster.resort(1)
    assert names(roster) == ["zed", "boss", "cod", "ann", "sub"]
    roster.is_flat = True
    roster.resort(2)
    assert names(roster) == ["zed", "sub", "cod", "boss", "ann"]


def test_a_folded_parent_shows_the_sums_of_its_tree_and_the_gravest_state() -> None:
    family = (*FAMILY[:3], child("sub", "ann").replace(status="over_limit", tightest=state(120)), FAMILY[4])
    used = {
        name: Totals(requests=1, cost_nano_usd=CENT * 100) for name in ("boss", "cod", "ann", "sub", "zed")
    }
    roster = roster_of(snapshot(*family, **used))
    assert roster.rows()[0].cells[4].text == "$1.00"
    assert roster.fold("boss") == "boss"
    row = roster.rows()[0]
    assert names(roster) == ["boss", "zed"]
    assert [cell.text for cell in row.cells[:5]] == ["▸ boss +3", "✖ OVER", "4", "0", "$4.00"]
    assert row.cells[6].text == "120 %"
    roster.typed = "sub"
    roster.arrange()
    assert names(roster) == ["sub"]  # a filter shows every match, folded or not


def test_left_goes_to_the_parent_where_nothing_can_be_folded() -> None:
    roster = roster_of(snapshot(*FAMILY))
    assert roster.fold("sub", True) == "ann"
    assert roster.fold("ann", True) == "ann"
    assert "sub" not in names(roster)
    assert roster.fold("ann", True) == "boss"
    roster.fold("ann", False)
    assert "sub" in names(roster)
    assert roster.fold("zed") == "zed"
    assert roster.fold("nobody") == "nobody"


def test_the_order_stays_for_a_while_and_whoever_is_new_stands_at_the_end() -> None:
    first = snapshot(agent("a"), agent("b"), a=Totals(cost_nano_usd=2), b=Totals(cost_nano_usd=1))
    roster = roster_of(first)
    then = snapshot(
        agent("a"), agent("b"), agent("new"), b=Totals(cost_nano_usd=9), new=Totals(cost_nano_usd=99)
    )
    assert roster.take(then, LATER_S, resort_s=5)
    assert names(roster) == ["a", "b", "new"]
    assert not roster.take(then, LATER_S + 5, resort_s=5)
    assert names(roster) == ["new", "b", "a"]
    roster.take(snapshot(agent("b")), LATER_S + 6, resort_s=5)
    assert names(roster) == ["b"]


PARENTS = st.dictionaries(st.sampled_from("abcdefgh"), st.none() | st.sampled_from("abcdefghi"), min_size=1)


@given(PARENTS, st.sets(st.sampled_from("abcdefgh")), st.randoms(use_true_random=False))
def test_in_any_forest_each_is_there_once_and_beneath_its_parent(
    parents: dict[str, str | None], folded: set[str], random: object
) -> None:
    """Rings too, which a ledger refuses."""
    ids = sorted(parents)
    places = as_tree(ids, parents, set())
    assert sorted(place.agent_id for place in places) == ids
    for number, place in enumerate(places):
        above = [other for other in places[:number] if other.depth < place.depth]
        if place.depth:
            assert parents[place.agent_id] == above[-1].agent_id
            assert above[-1].depth == place.depth - 1
    seen = {place.agent_id for place in as_tree(ids, parents, folded)}
    children = children_of(parents)
    roots = [agent_id for agent_id in ids if parents[agent_id] not in parents]
    hidden = {
        below
        for root in roots
        for agent_id in members_of(root, children)
        if agent_id in folded
        for below in members_of(agent_id, children)[1:]
    }
    in_trees = {one for root in roots for one in members_of(root, children)}
    assert seen & in_trees == in_trees - hidden


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from(sorted(STATES)), st.integers(0, 10**6)),
        min_size=1,
        max_size=12,
    )
)
def test_the_sums_of_a_tree_are_those_of_its_members(made: list[tuple[int, str, int]]) -> None:
    views: list[AgentView] = []
    used: dict[str, Totals] = {}
    for number, (above, status, cost) in enumerate(made):
        name = f"n{number:02}"
        parent = None if number == 0 else f"n{above % number:02}"
        if status == "warn":
            view = agent(name, "active", state(85))
        else:
            view = agent(name).replace(status=status)
        views.append(view.replace(agent=Agent(name, parent=parent)))
        used[name] = Totals(events=1, requests=1, cost_nano_usd=cost, input_tokens=cost)
    roster = roster_of(Snapshot(NOW_US, tuple(views), used, Totals(), (), (), (), ()))
    roster.fold("n00", True)
    (row,) = roster.rows()
    if len(made) == 1:
        return
    assert row.cells[2].text == str(len(made))
    gravest = min((status for _, status, _ in made), key=list(STATES).index)
    assert row.cells[1].text == STATES[gravest][0]
    assert roster._tree("n00").used.cost_nano_usd == sum(cost for _, _, cost in made)  # pyright: ignore[reportPrivateUsage] - exact, where the cell is rounded


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 9)), max_size=6), min_size=1
    )
)
def test_what_is_kept_from_look_to_look_is_what_a_first_look_finds(
    looks: list[list[tuple[int, int, int]]],
) -> None:
    """Agents that are as before are the same objects, as a file's source has them."""
    kept, tally = Roster(), Tally()
    known: dict[object, AgentView] = {}
    spent: dict[object, Totals] = {}
    for number, made in enumerate(looks):
        views: dict[str, AgentView] = {}
        for name, above, full in made:
            view = known.setdefault(
                (name, above, full),
                agent(f"n{name}", "active", state(full * 12)).replace(
                    agent=Agent(f"n{name}", parent=f"n{above}" if above < name else None)
                ),
            )
            views[f"n{name}"] = view
        agents = tuple(views[name] for name in sorted(views))
        used = {
            view.agent.agent_id: spent.setdefault((view.agent.agent_id, at % 2), Totals(requests=at % 2))
            for at, view in enumerate(agents, number)
        }
        found = Snapshot(NOW_US + number, agents, used, Totals(), (), (), (), ())
        kept.take(found, 0.0)
        kept.resort(0.0)
        first = roster_of(found)
        assert list(kept.rows()) == list(first.rows())
        assert tally.of(agents) == Tally().of(agents)
