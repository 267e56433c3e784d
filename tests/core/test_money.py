"""Amounts in and out: exact, whatever decimal context somebody has chosen for his own numbers."""

from __future__ import annotations

from decimal import ROUND_UP, Decimal, Inexact, localcontext

import pytest

from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.core.money import micro_units, nano_usd, typed_maximum


def test_the_callers_decimal_context_changes_no_amount() -> None:
    with localcontext(prec=3, rounding=ROUND_UP) as narrow:
        narrow.traps[Inexact] = True
        assert nano_usd("1234.567890123") == 1_234_567_890_123
        assert nano_usd("0.0000000014") == 1
        assert micro_units(Decimal("999999999.999999")) == 999_999_999_999_999


@pytest.mark.parametrize(
    ("text", "nano"),
    [
        ("0.0000000005", 0),
        ("0.0000000015", 2),
        ("0.00000000050000000000000000000000000000001", 1),
        ("0.00000000049999999999999999999999999999999", 0),
        ("1e-999999", 0),
    ],
)
def test_an_amount_is_rounded_once_and_a_tie_goes_to_the_even_one(text: str, nano: int) -> None:
    assert nano_usd(text) == nano


@pytest.mark.parametrize(("text", "nano"), [("$.5k", 500), (".25M", 250_000), ("1.5 k", 1_500)])
def test_a_letter_is_never_dropped(text: str, nano: int) -> None:
    assert typed_maximum("cost_usd", text) == nano * 10**9


@pytest.mark.parametrize("text", ["1e3k", "+5k", "1_000k", "k", ".k", "5kk"])
def test_a_letter_behind_anything_but_a_plain_number_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"^max: must be a plain number before the k"):
        typed_maximum("requests", text)
