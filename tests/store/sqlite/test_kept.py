"""What is kept from summary to summary: of tens of thousands of groups, and of no more than is said."""

from __future__ import annotations

import pytest

from agent_meter_mcp.store.sqlite import driver, told
from agent_meter_mcp.store.sqlite.remembered import Remembered
from agent_meter_mcp.store.sqlite.told import Told

MANY = 50_000
FIGURES = tuple(range(12))


def sums_of(count: int) -> dict[tuple[str | int | None, ...], tuple[int, ...]]:
    return {(f"agent-{number:06}",): FIGURES for number in range(count)}


def test_of_many_groups_those_are_the_same_that_have_not_changed() -> None:
    teller, sums = Told(), sums_of(MANY)
    _, before = teller.groups(("agent",), sums)
    sums["agent-000007",] = tuple(figure + 1 for figure in FIGURES)
    _, now = teller.groups(("agent",), sums)
    assert [one.key for one, other in zip(before, now, strict=True) if one is not other] == [
        ("agent-000007",)
    ]


def test_no_more_groups_are_kept_than_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(told, "GROUPS_MAX", 10)
    teller = Told()
    _, agents = teller.groups(("agent",), sums_of(6))
    _, few = teller.groups(("service",), sums_of(4))
    for kept, dimension in ((agents, "agent"), (few, "service")):
        _, again = teller.groups((dimension,), sums_of(len(kept)))  # pyright: ignore[reportArgumentType]  one of two
        assert all(one is other for one, other in zip(kept, again, strict=True))
    _, models = teller.groups(("model",), sums_of(5))
    _, again = teller.groups(("model",), sums_of(5))
    assert models[0] is again[0]
    assert teller.groups(("agent",), sums_of(6))[1][0] is not agents[0], "they were asked for longest ago"


def test_the_sums_of_many_are_read_once() -> None:
    connection = driver.Connection(":memory:")
    remembered, read = Remembered(connection), 0

    def all_of_them() -> list[tuple[tuple[str | int | None, ...], tuple[int, ...]]]:
        nonlocal read
        read += 1
        return [*sums_of(MANY).items()]

    for _ in range(3):
        assert len(remembered.events((0, 1), ("a place",), all_of_them, lambda _: [])) == MANY
    assert read == 1
    connection.close()
