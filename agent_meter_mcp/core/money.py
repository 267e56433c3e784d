"""Exact amounts: money as integers of nano-USD (1e-9), units as integers of micro-units (1e-6).

Decimal numbers enter and leave here and nowhere else. The one rounding rule is half-even, applied once, when
a decimal with more places than the integer holds comes in."""

from __future__ import annotations

from .errors import InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from decimal import Context, Decimal

    from .models import Metric

_exact: dict[int, tuple[Context, Decimal, Decimal]] = {}
"""By scale: how to round exactly, to what, and the scale. The caller's own context may be a narrow one."""

NANO_PER_USD = 1_000_000_000
MICRO_PER_UNIT = 1_000_000
SCALES: dict[Metric, int] = {"requests": 1, "units": MICRO_PER_UNIT, "tokens": 1, "cost_usd": NANO_PER_USD}
"""By metric, how many of its integer unit one is."""

COST_USD_MAX = 1_000_000
UNITS_MAX = 1_000_000_000
TOKENS_MAX = 1_000_000_000_000
REQUESTS_MAX = 1_000_000_000
_DIGITS_MAX = 40
"""More than any amount has in its integer unit."""
LIMIT_MAX_INTEGER = 9_000_000_000_000_000_000
"""Largest `max` of a limit, in its integer unit: below 2**63, with room for one event above it."""


def scaled(value: Decimal | int | float | str, scale: int, *, field: str, maximum: int) -> int:
    """`value * scale`, a power of ten, as an integer, rounded half-even.

    A float is read as the decimal number that it prints as, so 0.1 is one tenth. The decimal context of
    whoever calls does not matter.

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
        Context,
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
    known = _exact.get(scale)
    if known is None:
        places = len(str(scale)) - 1
        context = Context(prec=_DIGITS_MAX, rounding=ROUND_HALF_EVEN, traps=[InvalidOperation])
        known = _exact[scale] = context, Decimal((0, (1,), -places)), Decimal(scale)
    context, smallest, by = known
    return int(context.multiply(context.quantize(number, smallest), by))


def nano_usd(
    value: Decimal | int | float | str, *, field: str = "cost_usd", maximum: int = COST_USD_MAX
) -> int:
    """Dollars as nano-USD. Raises as `scaled`."""
    return scaled(value, NANO_PER_USD, field=field, maximum=maximum)


def micro_units(value: Decimal | int | float | str) -> int:
    """Units as micro-units. Raises as `scaled`."""
    return scaled(value, MICRO_PER_UNIT, field="units", maximum=UNITS_MAX)


def limit_maximum(metric: Metric, value: Decimal | int | float | str) -> int:
    """The maximum of a limit in the metric's integer unit.

    Raises:
        InvalidInput: as `scaled`; a part of what cannot be divided; or so little that it would be nothing,
        and everything be refused.
    """
    from decimal import Decimal

    scale = SCALES[metric]
    maximum = scaled(value, scale, field="max", maximum=LIMIT_MAX_INTEGER // scale)
    exact = Decimal(str(value))
    if scale == 1 and exact != maximum:
        raise InvalidInput("max", f"must be a whole number of {metric}")
    if exact and not maximum:
        raise InvalidInput("max", f"is less than {Decimal(1) / scale:f}, the smallest amount that is counted")
    return maximum


_SIZES = {"k": 1_000, "M": 1_000_000, "B": 1_000_000_000}


def typed_maximum(metric: Metric, text: str) -> int:
    """The maximum of a limit as a person types it, in the metric's integer unit: "5", "$1,204.50", "1.5M".

    Raises:
        InvalidInput: it is no number, negative, too large, or a part of what cannot be divided.
    """
    import re
    from decimal import Decimal

    written = text.strip()
    if metric == "cost_usd":
        written = written.removeprefix("$").strip()
    letter = written[-1:] if written[-1:] in _SIZES else "k" if written.endswith("K") else ""
    digits = written[:-1].strip() if letter else written
    if re.fullmatch(r"[0-9]{1,3}(,[0-9]{3})+(\.[0-9]*)?", digits):
        digits = digits.replace(",", "")
    if not letter:
        return limit_maximum(metric, digits)
    if not re.fullmatch(r"[0-9]{1,30}(\.[0-9]{0,30})?|\.[0-9]{1,30}", digits):
        raise InvalidInput("max", f"must be a plain number before the {letter}, such as 1.5{letter}")
    return limit_maximum(metric, Decimal(digits) * _SIZES[letter])


def number_of(metric: Metric, value: int) -> int | float:
    """An amount in the metric's integer unit, as a JSON number of requests, units, tokens or dollars.

    Of two integers, Python gives the float that is nearest.
    """
    scale = SCALES[metric]
    return value / scale if value % scale else value // scale


def amount_of(metric: Metric, number: float) -> int:
    """The amount that `number_of` told; also that of a sum, which may be larger than what can come in."""
    from decimal import Decimal

    return round(Decimal(str(number)) * SCALES[metric])


def usd(cost_nano_usd: int) -> Decimal:
    """Nano-USD as an exact decimal number of dollars."""
    from decimal import Decimal

    return Decimal(cost_nano_usd) / NANO_PER_USD


def units(units_micro: int) -> Decimal:
    """Micro-units as an exact decimal number of units."""
    from decimal import Decimal

    return Decimal(units_micro) / MICRO_PER_UNIT
