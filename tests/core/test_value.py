"""Values: they are made alike before and after the class has an `__init__` of its own."""

from __future__ import annotations

from typing import Any

import pytest

from agent_meter_mcp.core.value import FEW, Value


def point() -> Any:
    """A class of which none was made yet. Its type is not told: wrong arguments are given on purpose."""

    class Point(Value):
        x: int
        y: int = 2
        z: tuple[int, ...] = ()

    return Point


def made(kind: Any, *values: Any, **named: Any) -> list[Any] | str:
    try:
        one = kind(*values, **named)
    except TypeError as error:
        return str(error)
    return [one.x, one.y, one.z, one.as_dict()]


ARGUMENTS: list[tuple[list[Any], dict[str, Any]]] = [
    ([1], {}),
    ([1, 3, (4,)], {}),
    ([1], {"z": (5,)}),
    ([], {"y": 7, "x": 1}),
    ([], {}),
    ([], {"y": 1}),
    ([1, 2, (), 4], {}),
    ([1], {"x": 1}),
    ([1], {"w": 1}),
    ([], {"w": 1, "y": 2, "z": ()}),
]


@pytest.mark.parametrize(("values", "named"), ARGUMENTS)
def test_the_first_is_made_as_the_last_is(values: list[Any], named: dict[str, Any]) -> None:
    first, last = point(), point()
    for number in range(2 * FEW):
        assert last(number).x == number
    assert made(first, *values, **named) == made(last, *values, **named)
    assert first(1) == first(1) and hash(first(1)) == hash(first(1)) and first(1) != first(2)


def test_a_class_gets_an_init_of_its_own_when_it_is_worth_it() -> None:
    kind = point()
    before = kind.__init__
    for _ in range(FEW):
        kind(1)
    assert kind.__init__ is before
    kind(1)
    assert kind.__init__ is not before
    assert kind(1, z=(3,)).as_dict() == {"x": 1, "y": 2, "z": (3,)}


def test_each_of_a_family_is_made_with_all_its_fields() -> None:
    class Named(Value):
        name: str

    class Aged(Named):
        age: int = 3

    for _ in range(2 * FEW):
        assert Aged("ann").as_dict() == {"name": "ann", "age": 3}
        assert Named("bob").as_dict() == {"name": "bob"}
    assert Aged("ann") != Named("ann")
