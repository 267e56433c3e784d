"""The built-in list: the models of genai-prices, with their prices as integers."""

from __future__ import annotations

from .core.models import Usage
from .core.money import nano_usd
from .core.pricing import (
    ATTO_PER_USD,
    PROVIDERS,
    TokenPrice,
    cost_of,
    has_price,
    normalised_model,
    split_variant,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from decimal import Decimal

    from genai_prices.types import ModelInfo, ModelPrice, Provider, TieredPrices

_AT_MAX_US = 253_402_300_799_000_000  # the last second of the year 9999
_CONTEXTS = {
    "fast": {"speed": "fast", "service_tier": "fast"},
    "batch": {"processing": "batch"},
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
}
"""What genai-prices calls each variant of `core.pricing`."""


class PriceList:
    """The models of genai-prices. Making one imports it; `find` and `forget` are for one thread at a time."""

    def __init__(self) -> None:
        import genai_prices
        from genai_prices import data, data_snapshot

        self.version = f"genai-prices {genai_prices.__version__}"
        self._snapshot_type = data_snapshot.DataSnapshot
        self._providers = data.providers
        self._provider_ids = {provider.id for provider in data.providers}
        self.forget()

    def forget(self) -> None:
        """Frees the memory of looked up names: a snapshot remembers each one, found or not."""
        self._snapshot = self._snapshot_type(self._providers, from_auto_update=False)

    def find(self, name: str, service: str) -> ListedModel | None:
        variant = split_variant(name)[1]
        for model, provider_id in self._meanings(name, service):
            try:
                provider, found = self._snapshot.find_provider_model(model, None, provider_id, None)
            except LookupError:
                continue
            return ListedModel(found, provider, variant, self.version)
        return None

    def _meanings(self, name: str, service: str) -> Iterator[tuple[str, str | None]]:
        """What a name may mean, as (model, provider), the likeliest first.

        A service that is a provider calls models by its own names. Elsewhere a name with a slash is
        OpenRouter's if it has that one: there `anthropic/claude-opus-4.6-fast` has a price, whereas
        Anthropic's part of the list goes by how the name begins.
        """
        written = split_variant(name)[0]
        model, provider = normalised_model(name)
        seller = PROVIDERS.get(service.lower(), service.lower())
        if seller in self._provider_ids:
            yield written, seller
            if provider in (None, seller):
                yield model, seller
        if "/" in written:
            yield written, "openrouter"
        yield model, provider


class ListedModel:
    """A model of the list, with its prices as integers once they were needed."""

    def __init__(self, model: ModelInfo, provider: Provider, variant: str | None, version: str) -> None:
        from datetime import UTC, datetime, timedelta

        self.version = version
        self._model = model
        # As genai-prices has it: a provider that sells the model of another one has no variants of it.
        is_own = any(model is own for own in provider.models)
        self._context = _CONTEXTS[variant] if variant and is_own else None
        self._epoch, self._microsecond = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
        self._known: dict[object, TokenPrice | None] = {}

    def has_price(self) -> bool:
        price = self.integer_price(_AT_MAX_US)
        return price is None or has_price(price)

    def integer_price(self, at_us: int) -> TokenPrice | None:
        """Its prices at that moment; None if integers cannot say them."""
        return self._as_integers(self._prices_at(at_us))

    def cost_of(self, usage: Usage, at_us: int) -> int | None:
        prices = self._prices_at(at_us)
        price = self._as_integers(prices)
        return cost_of(price, usage) if price is not None else _library_cost(prices, usage)

    def _prices_at(self, at_us: int) -> ModelPrice:
        """By date, and by the time of day where the list has that."""
        moment = self._epoch + self._microsecond * min(max(at_us, 0), _AT_MAX_US)
        return self._model.get_prices(moment, self._context)

    def _as_integers(self, prices: ModelPrice) -> TokenPrice | None:
        # With a context the list makes a new object each time, of numbers that stay.
        key = id(prices) if self._context is None else (*vars(prices), *map(id, vars(prices).values()))
        try:
            return self._known[key]
        except KeyError:
            price = self._known[key] = _integer_price(prices, free=self._model.id.endswith(":free"))
            return price


_SAMPLE = Usage(
    input_tokens=4001,
    output_tokens=5003,
    cache_read_tokens=1009,
    cache_write_tokens=2003,
    cache_write_1h_tokens=3001,
)


def _integer_price(prices: ModelPrice, *, free: bool) -> TokenPrice | None:
    """The same prices as integers; None if they would not be the same, which samples show."""
    from decimal import Decimal

    if free and not vars(prices):
        return TokenPrice(0, 0, 0, 0, 0)
    tiered = [
        price for price in vars(prices).values() if price is not None and not isinstance(price, Decimal)
    ]
    starts = sorted({tier.start for price in tiered for tier in price.tiers}, reverse=True)
    try:
        above = tuple((start, _prices_of_kinds(prices, start + 1)) for start in starts)
        price = _prices_of_kinds(prices, 0).replace(above=above)
        samples = [_SAMPLE, *(_SAMPLE.replace(input_tokens=start) for start in starts)]
        if has_price(price) and any(
            cost_of(price, usage) != _library_cost(prices, usage) for usage in samples
        ):
            return None
    except ValueError:
        return None
    return price


def _prices_of_kinds(prices: ModelPrice, input_total: int) -> TokenPrice:
    """What applies to a request with so much input. Raises ValueError if atto-USD are too coarse."""
    from decimal import Decimal

    def atto(price: Decimal | TieredPrices | None, per: int = 1) -> int | None:
        if price is None:
            return None
        if not isinstance(price, Decimal):
            price = next(
                (tier.price for tier in reversed(price.tiers) if input_total > tier.start), price.base
            )
        numerator, denominator = price.as_integer_ratio()
        amount, rest = divmod(numerator * ATTO_PER_USD, denominator * per)
        if rest:
            raise ValueError(price)
        return amount

    uncached, write = atto(prices.input_mtok), atto(prices.cache_write_mtok)
    read, write_5m, write_1h = (
        atto(price)
        for price in (prices.cache_read_mtok, prices.cache_write_5m_mtok, prices.cache_write_1h_mtok)
    )
    write = uncached if write is None else write
    return TokenPrice(
        input=uncached,
        output=atto(prices.output_mtok),
        cache_read=uncached if read is None else read,
        cache_write=write if write_5m is None else write_5m,
        cache_write_1h=write if write_1h is None else write_1h,
        request=atto(prices.requests_kcount, 1000),
    )


def _library_cost(prices: ModelPrice, usage: Usage) -> int | None:
    """As `cost_of`, by genai-prices' own arithmetic: slow, for any prices. None also for what it refuses."""
    from genai_prices import Usage as LibraryUsage

    read, write_5m, write_1h = (
        tokens or 0
        for tokens in (usage.cache_read_tokens, usage.cache_write_tokens, usage.cache_write_1h_tokens)
    )
    amounts = LibraryUsage(
        input_tokens=(usage.input_tokens or 0) + read + write_5m + write_1h,
        output_tokens=usage.output_tokens or 0,
        cache_read_tokens=read,
        cache_write_tokens=write_5m + write_1h,
        cache_write_5m_tokens=write_5m,
        cache_write_1h_tokens=write_1h,
    )
    try:
        total = prices.calc_price(amounts)["total_price"]
    except ValueError:
        return None
    return nano_usd(total, maximum=10**15) if total else None
