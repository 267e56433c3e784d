"""What usage costs at given prices, what a model's name means, and how an operator writes prices.

Prices are integers of atto-USD (1e-18 USD): every decimal place that a published price has fits, so nothing
is rounded before the one rounding of the result to nano-USD.
"""

from __future__ import annotations

from .errors import InvalidInput
from .money import COST_USD_MAX, scaled
from .value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date, time
    from decimal import Decimal
    from typing import Any, TypeAlias, TypeVar

    from .models import Usage

    Toml: TypeAlias = "str | int | Decimal | date | time | list[Toml] | dict[str, Toml]"
    Period: TypeAlias = tuple[int | None, int | None]
    P = TypeVar("P")

MODEL_NAME_MAX = 256
"""Longer names have no price."""

ATTO_PER_USD = 10**18
_ATTO_PER_NANO = 10**9
_MILLION = 10**6


class TokenPrice(Value):
    """A model's prices: atto-USD per million tokens of each kind, and per request.

    None: the list has no price for that kind. `above` are pairs of a number and the prices of *all* tokens of
    a request with more input tokens (cached or not) than that, highest number first.
    """

    input: int | None = None
    output: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    cache_write_1h: int | None = None
    request: int | None = None
    above: tuple[tuple[int, TokenPrice], ...] = ()


class ServicePrice(Value):
    """A service's prices without a model: atto-USD per request, and per unit (of `unit_type`, if given)."""

    request: int | None = None
    unit: int | None = None
    unit_type: str | None = None


def cost_of(price: TokenPrice, usage: Usage) -> int | None:
    """Nano-USD, rounded half-even once. None when nothing that was used has a price.

    Usage of several requests costs what as many requests of its average size cost.
    """
    cached = (usage.cache_read_tokens or 0, usage.cache_write_tokens or 0, usage.cache_write_1h_tokens or 0)
    uncached, output = usage.input_tokens or 0, usage.output_tokens or 0
    if price.above:
        requests, input_total = max(usage.requests, 1), uncached + sum(cached)
        for start, prices in price.above:
            if input_total > start * requests:
                price = prices
                break
    total, used, priced = 0, False, price.request is not None
    for tokens, per_million in (
        (uncached, price.input),
        (output, price.output),
        (cached[0], price.cache_read),
        (cached[1], price.cache_write),
        (cached[2], price.cache_write_1h),
    ):
        if tokens:
            used = True
            if per_million is not None:
                priced = True
                total += tokens * per_million
    if not priced and (used or not has_price(price)):
        return None
    return half_even(total + (price.request or 0) * usage.requests * _MILLION, _MILLION * _ATTO_PER_NANO)


def has_price(price: TokenPrice) -> bool:
    """Whether there is a price of anything."""
    kinds = (
        price.input,
        price.output,
        price.cache_read,
        price.cache_write,
        price.cache_write_1h,
        price.request,
    )
    return any(kind is not None for kind in kinds)


def service_cost_of(price: ServicePrice, usage: Usage) -> int | None:
    """Nano-USD, rounded half-even once. None when the usage does not state what the price is for."""
    if price.unit_type is not None and usage.unit_type != price.unit_type:
        return None
    if price.unit is not None and usage.units_micro is None:
        return None
    total = (price.request or 0) * usage.requests * _MILLION + (price.unit or 0) * (usage.units_micro or 0)
    return half_even(total, _MILLION * _ATTO_PER_NANO)


def half_even(numerator: int, denominator: int) -> int:
    """The quotient of two integers, not negative, rounded to the nearest one; a tie goes to the even one."""
    quotient, remainder = divmod(numerator, denominator)
    twice = 2 * remainder
    return quotient + (twice > denominator or (twice == denominator and quotient & 1))


VARIANTS = ("fast", "batch", "flex", "priority")
"""Ways to run a model that have prices of their own, written behind its name: `claude-opus-5-5[fast]`."""

PROVIDERS = {
    "anthropic": "anthropic",
    "aws": "aws",
    "azure": "azure",
    "azure_ai": "azure",
    "azure_openai": "azure",
    "bedrock": "aws",
    "bedrock_converse": "aws",
    "aws_bedrock": "aws",
    "cerebras": "cerebras",
    "cohere": "cohere",
    "databricks": "databricks",
    "deepseek": "deepseek",
    "fireworks": "fireworks",
    "fireworks_ai": "fireworks",
    "gemini": "google",
    "github_copilot": "github-copilot",
    "google": "google",
    "google-gla": "google",
    "google-vertex": "google",
    "google_genai": "google",
    "google_vertexai": "google",
    "groq": "groq",
    "mistral": "mistral",
    "mistralai": "mistral",
    "moonshot": "moonshotai",
    "moonshotai": "moonshotai",
    "openai": "openai",
    "openrouter": "openrouter",
    "perplexity": "perplexity",
    "together": "together",
    "together_ai": "together",
    "vertex": "google",
    "vertex_ai": "google",
    "voyage": "voyageai",
    "x-ai": "x-ai",
    "xai": "x-ai",
}
"""What gateways and client libraries write in front of a model's name, and that provider in genai-prices."""

_BEDROCK_REGIONS = frozenset(("us", "eu", "apac", "au", "ca", "global", "jp", "us-gov"))
_BEDROCK_VENDORS = frozenset(
    "ai21 amazon anthropic cohere deepseek google meta minimax mistral moonshot moonshotai nvidia openai qwen"
    " stability writer zai".split()
)


def split_variant(name: str) -> tuple[str, str | None]:
    """The name in lower case without its bracketed marks, and which of `VARIANTS` one of them was.

    `[1m]` only asks for a longer context; what a long context costs depends on the tokens that were used.
    """
    base, variant = name.strip().lower(), None
    while base.endswith("]"):
        rest, _, mark = base[:-1].rpartition("[")
        if not rest or (mark != "1m" and (mark not in VARIANTS or variant is not None)):
            break
        base, variant = rest.rstrip(), variant if mark == "1m" else mark
    return base, variant


def normalised_model(name: str) -> tuple[str, str | None]:
    """A model's name at its provider, and the provider in genai-prices; None when the name does not tell.

    >>> normalised_model("azure/gpt-5"), normalised_model("us.anthropic.claude-opus-5-5")
    (('gpt-5', 'azure'), ('us.anthropic.claude-opus-5-5', 'aws'))
    """
    model = split_variant(name)[0]
    if model.startswith("arn:aws:bedrock:"):
        return model.rpartition("/")[2], "aws"
    if model.startswith(("projects/", "publishers/", "models/")):
        return model.rpartition("/")[2], "google"
    for separator in "/:":
        prefix, _, rest = model.partition(separator)
        provider = PROVIDERS.get(prefix)
        if provider and rest:
            # Bedrock's name may follow a route and a region: bedrock/converse/us.amazon.nova-pro-v1:0
            return (rest.rpartition("/")[2] or rest) if provider == "aws" else rest, provider
    first, _, rest = model.partition(".")
    vendor = rest.partition(".")[0] if first in _BEDROCK_REGIONS else first
    if rest and vendor in _BEDROCK_VENDORS and "/" not in model:
        return model, "aws"
    if model.startswith("claude") and "@" in model:
        return model, "google"  # Vertex AI writes the date of a version behind an @
    return model, None


class OwnPrices:
    """Prices as an operator writes them, in USD. Of several valid ones for the same thing the last counts.

    [models."my-model"]         # per million tokens; cached tokens cost as input unless said otherwise
    input = 1.25
    output = 10
    cache_read = 0.125          # also cache_write (5 minutes), cache_write_1h, usd_per_request
    from = 2026-01-31           # optional: valid from this day (UTC) ...
    until = 2026-06-30          # ... to before this one; another period is another [[models."my-model"]]

    [services.search]           # needs no model
    usd_per_request = 0.005     # and/or usd_per_unit, with unit_type if only that unit has the price
    """

    def __init__(self, document: dict[str, Toml], source: str) -> None:
        """Raises InvalidInput, which names `source`, the key in it and what to write instead."""
        _only(document, ("models", "services"), source)
        self._models: dict[str, list[tuple[TokenPrice, Period]]] = {}
        for name, where, table in _tables(document, "models", source):
            price = _token_price(table, where)
            self._models.setdefault(_own_key(name), []).append((price, _period(table, where)))
        self._services: dict[str, list[tuple[ServicePrice, Period]]] = {}
        for name, where, table in _tables(document, "services", source):
            price = _service_price(table, where)
            self._services.setdefault(name, []).append((price, _period(table, where)))

    def has_model(self, name: str) -> bool:
        return any(key in self._models for key in _own_keys(name))

    def cost_of(self, usage: Usage, at_us: int, service: str) -> int | None:
        """Nano-USD, or None without a price for it: a model's price comes before a service's."""
        for key in _own_keys(usage.model or "") if self._models else ():
            for price in _valid(self._models.get(key, []), at_us):
                if usage.tokens is not None or price.input is None:
                    return cost_of(price, usage)
        for price in _valid(self._services.get(service, []), at_us):
            cost = service_cost_of(price, usage)
            if cost is not None:
                return cost
        return None


def _own_key(name: str) -> str:
    base, variant = split_variant(name)
    return f"{base}[{variant}]" if variant else base


def _own_keys(name: str) -> tuple[str, ...]:
    """What an operator may have called this model, as it is written first."""
    if len(name) > MODEL_NAME_MAX:
        return ()
    written = _own_key(name)
    return (written,) if written.endswith("]") else (written, normalised_model(name)[0])


def _valid(prices: list[tuple[P, Period]], at_us: int) -> Iterator[P]:
    for price, (from_us, until_us) in reversed(prices):
        if (from_us is None or from_us <= at_us) and (until_us is None or at_us < until_us):
            yield price


_TOKEN_KEYS = ("input", "output", "cache_read", "cache_write", "cache_write_1h")
_PERIOD_KEYS = ("from", "until")


def _token_price(table: dict[str, Toml], where: str) -> TokenPrice:
    _only(table, (*_TOKEN_KEYS, "usd_per_request", *_PERIOD_KEYS), where)
    request = _atto_usd(table, "usd_per_request", where)
    prices: dict[str, Any] = {key: _atto_usd(table, key, where) for key in _TOKEN_KEYS}
    if request is None or any(price is not None for price in prices.values()):
        for key in ("input", "output"):
            if prices[key] is None:
                raise InvalidInput(
                    f"{where}.{key}", "is missing; write USD per million tokens, 0 if they are free"
                )
        for key, otherwise in (
            ("cache_read", "input"),
            ("cache_write", "input"),
            ("cache_write_1h", "cache_write"),
        ):
            if prices[key] is None:
                prices[key] = prices[otherwise]
    return TokenPrice(**prices, request=request)


def _service_price(table: dict[str, Toml], where: str) -> ServicePrice:
    _only(table, ("usd_per_request", "usd_per_unit", "unit_type", *_PERIOD_KEYS), where)
    request, unit = _atto_usd(table, "usd_per_request", where), _atto_usd(table, "usd_per_unit", where)
    if request is None and unit is None:
        raise InvalidInput(where, "has no price; write usd_per_request = 0.005 or usd_per_unit = 0.01")
    unit_type = table.get("unit_type")
    if unit_type is not None and not isinstance(unit_type, str):
        raise InvalidInput(f"{where}.unit_type", 'must be text: unit_type = "page"')
    return ServicePrice(request, unit, unit_type)


def _tables(document: dict[str, Toml], kind: str, source: str) -> Iterator[tuple[str, str, dict[str, Toml]]]:
    """Name, place and content of each `[kind.NAME]` and `[[kind.NAME]]`."""
    for name, content in _table(document.get(kind, {}), f"{source}: {kind}").items():
        where = f"{source}: {kind}.{name!r}"
        for entry in content if isinstance(content, list) else [content]:
            yield name, where, _table(entry, where)


def _table(value: Toml, where: str) -> dict[str, Toml]:
    if not isinstance(value, dict):
        raise InvalidInput(
            where, 'must be a table; write [models."NAME"] or [services."NAME"] above its prices'
        )
    return value


def _only(table: dict[str, Toml], keys: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in keys:
            raise InvalidInput(f"{where}: {key!r}", f"is not known; use {', '.join(keys)}")


def _atto_usd(table: dict[str, Toml], key: str, where: str) -> int | None:
    from decimal import Decimal

    value = table.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        raise InvalidInput(f"{where}.{key}", f"must be a number of USD, without quotes: {key} = 1.25")
    return scaled(value, ATTO_PER_USD, field=f"{where}.{key}", maximum=COST_USD_MAX)


def _period(table: dict[str, Toml], where: str) -> Period:
    from_us, until_us = (_moment(table.get(key), f"{where}.{key}") for key in _PERIOD_KEYS)
    if from_us is not None and until_us is not None and from_us >= until_us:
        raise InvalidInput(
            f"{where}.until", "must be later than from: it is when the price is no longer valid"
        )
    return from_us, until_us


def _moment(value: Toml | None, where: str) -> int | None:
    from datetime import UTC, date, datetime, time, timedelta

    if value is None:
        return None
    if not isinstance(value, date):
        raise InvalidInput(where, "must be a date without quotes: 2026-01-31 (it begins at midnight UTC)")
    moment = value if isinstance(value, datetime) else datetime.combine(value, time(), UTC)
    if moment.tzinfo is None:
        raise InvalidInput(where, "needs an offset behind the time: 2026-01-31T00:00:00Z")
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
