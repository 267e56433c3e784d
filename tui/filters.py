"""What a person types to see fewer rows: words, `state:over`, `cost>10`; `!` before one inverts it. Pure."""

from __future__ import annotations

import operator
import re
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from agent_meter_mcp.core.value import Value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_CONDITION = r"(?s)(\w+)(:|>=|<=|>|<|=)(.*)"
_NUMBER = r"\$?(\d{1,15}(?:\.\d{0,9})?)([kmb]?)%?"
_SCALES = {"": 1, "k": 1_000, "m": 1_000_000, "b": 1_000_000_000}
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
    "=": operator.eq,
}


class Facts(Value):
    """What a row says to a filter: all its text, and fields of it, which have a name.

    `amounts` are as people write them: dollars, not nano-USD.
    """

    text: str
    words: Mapping[str, str | None] = MappingProxyType({})
    amounts: Mapping[str, Decimal | int | float] = MappingProxyType({})


def wanted(typed: str) -> Callable[[Facts], bool] | None:
    """Whether a row has all that was typed; None where nothing was.

    A condition without a value yet (`cost>`) is still being typed: every row has it.
    """
    tests = [test for word in typed.casefold().split() if (test := _test(word)) is not None]
    if not tests:
        return None
    return lambda facts: all(test(facts) for test in tests)


def _test(word: str) -> Callable[[Facts], bool] | None:
    is_inverted, word = word.startswith("!"), word.removeprefix("!")
    condition = re.fullmatch(_CONDITION, word)
    if not word or (condition is not None and not condition[3]):
        return None
    return lambda facts: _has(facts, word, condition) != is_inverted


def _has(facts: Facts, word: str, condition: re.Match[str] | None) -> bool:
    if condition is not None:
        field, sign, value = condition.groups()
        if sign in ":=" and field in facts.words:
            return value in (facts.words[field] or "").casefold()
        number = number_of(value)
        if sign in _COMPARISONS and field in facts.amounts and number is not None:
            return _COMPARISONS[sign](facts.amounts[field], number)
    return word in facts.text.casefold()


def number_of(text: str) -> Decimal | None:
    """ "10", "$0.5", "1.5M", "80%": what it says; None where that is no number."""
    found = re.fullmatch(_NUMBER, text.casefold())
    return None if found is None else Decimal(found[1]) * _SCALES[found[2]]
