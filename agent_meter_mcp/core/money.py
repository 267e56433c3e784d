"""Exact amounts: money as integers of nano-USD (1e-9), units as integers of micro-units (1e-6).

Decimal numbers enter and leave here and nowhere else. The one rounding rule is half-even, applied once, when
a decimal with more places than the integer holds comes in."""

from __future__ import annotations

from .errors import InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from decimal import Decimal

NANO_PER_USD = 1_000_000_000
MICRO_PER_UNIT = 1_000_000

COST_USD_MAX = 1_000_000
UNITS_MAX = 1_000_000_000
TOKENS_MAX = 1_000_000_000_000
REQUESTS_MAX = 1_000_000_000
LIMIT_MAX_INTEGER = 9_000_000_000_000_000_000
"""Largest `max` of a limit, in its integer unit: below 2**63, with room for one event above it."""


def scaled(value: Decimal | int | float | str, scale: int, *, field: str, maximum: int) -> int:
    """`value * scale` as an integer, rounded half-even.

    A float is read as the decimal number that it prints as, so 0.1 is one tenth.

    Raises:
        InvalidInput: not a number, NaN, infinite, negative, or above `maximum` (in whole units); names
        `field`.
    """
    if isinstance(value, bool):
        raise InvalidInput(field, "must be a number, not a boolean")
    if isinstance(value, str) and len(value) > 64:
        raise InvalidInput(field, "must be a decimal number of at most 64 characters")
    from decimal import (  # 5 ms that most one-shot records never need
        ROUND_HALF_EVEN,
        Decimal,
        InvalidOperation,
    )

    try:
        number = value if isinstance(value, Decimal) else Decimal(str(value))
    except (InvalidOperation, ValueError):
        raise InvalidInput(field, "must be a decimal number") from None
    if not number.is_finite():
        raise InvalidInput(field, "must be a finite number")
    if number < 0:
        raise InvalidInput(field, "must not be negative")
    if number > maximum:
        raise InvalidInput(field, f"must be at most {maximum}")
    return int((number * scale).to_integral_value(rounding=ROUND_HALF_EVEN))


def nano_usd(
    value: Decimal | int | float | str, *, field: str = "cost_usd", maximum: int = COST_USD_MAX
) -> int:
    """Dollars as nano-USD. Raises as `scaled`."""
    return scaled(value, NANO_PER_USD, field=field, maximum=maximum)


def micro_units(value: Decimal | int | float | str, *, field: str = "units", maximum: int = UNITS_MAX) -> int:
    """Units as micro-units. Raises as `scaled`."""
    return scaled(value, MICRO_PER_UNIT, field=field, maximum=maximum)


def usd(cost_nano_usd: int) -> Decimal:
    """Nano-USD as an exact decimal number of dollars."""
    from decimal import Decimal

    return Decimal(cost_nano_usd) / NANO_PER_USD


def units(units_micro: int) -> Decimal:
    """Micro-units as an exact decimal number of units."""
    from decimal import Decimal

    return Decimal(units_micro) / MICRO_PER_UNIT
