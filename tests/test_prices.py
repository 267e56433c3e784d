"""What usage costs, with the real list of genai-prices and real override files."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import genai_prices
import pytest
from genai_prices import data
from genai_prices.types import ClauseEquals, ModelInfo, ModelPrice, PriceContext, Provider
from hypothesis import given
from hypothesis import strategies as st

from agent_meter_mcp import prices
from agent_meter_mcp.core.errors import InvalidInput, PricesUnusable
from agent_meter_mcp.core.models import Usage
from agent_meter_mcp.core.money import COST_USD_MAX, TOKENS_MAX, nano_usd
from agent_meter_mcp.core.pricing import PROVIDERS, VARIANTS
from agent_meter_mcp.price_list import ListedModel
from agent_meter_mcp.prices import PriceBook

ROOT = Path(__file__).parent.parent
LIST = f"genai-prices {genai_prices.__version__}"
SECOND_US = 1_000_000


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * SECOND_US


NOW_US = at("2026-11-20T12:00:00Z")

# What Claude Code used for one request, for which it itself reports 0.048339 USD.
WORKED = Usage(
    input_tokens=12,
    output_tokens=159,
    cache_read_tokens=15555,
    cache_write_tokens=400,
    cache_write_1h_tokens=5000,
    model="claude-opus-5-5",
)


@pytest.fixture(scope="module")
def listed() -> PriceBook:
    """Prices of the list alone."""
    return PriceBook(None)


def directly(
    usage: Usage,
    at_us: int,
    model: str,
    provider: str | None,
    context: PriceContext | None = None,
) -> int:
    """Nano-USD, as genai-prices itself calculates it."""
    cached = [usage.cache_read_tokens, usage.cache_write_tokens, usage.cache_write_1h_tokens]
    read, write_5m, write_1h = (tokens or 0 for tokens in cached)
    calculation = genai_prices.calc_price(
        genai_prices.Usage(
            input_tokens=(usage.input_tokens or 0) + read + write_5m + write_1h,
            output_tokens=usage.output_tokens or 0,
            cache_read_tokens=read,
            cache_write_tokens=write_5m + write_1h,
            cache_write_1h_tokens=write_1h,
        ),
        model,
        provider_id=provider,
        genai_request_timestamp=datetime.fromtimestamp(at_us // SECOND_US, UTC),
        price_context=context,
    )
    return nano_usd(calculation.total_price, maximum=10**12)


# --- the list -----------------------------------------------------------------------------------------------


def test_the_worked_example_costs_what_claude_code_reports(listed: PriceBook) -> None:
    priced = listed.price(WORKED, NOW_US, "anthropic")
    assert priced == WORKED.replace(cost_nano_usd=48_339_000, cost_source="computed", price_version=LIST)


def test_cache_writes_for_five_minutes_cost_less_than_those_for_an_hour(listed: PriceBook) -> None:
    short = WORKED.replace(cache_write_tokens=5400, cache_write_1h_tokens=None)
    assert listed.price(short, NOW_US, "anthropic").cost_nano_usd == 33_339_000


@pytest.mark.parametrize(
    ("name", "service", "model", "provider"),
    [
        ("claude-opus-5-5[1m]", "x", "claude-opus-5-5", "anthropic"),
        ("Claude-Opus-5-5", "x", "claude-opus-5-5", "anthropic"),
        ("anthropic/claude-opus-5-5", "x", "claude-opus-5-5", "anthropic"),
        ("anthropic:claude-opus-5-5", "x", "claude-opus-5-5", "anthropic"),
        ("anthropic/claude-opus-4.5", "x", "anthropic/claude-opus-4.5", "openrouter"),
        ("openrouter/anthropic/claude-opus-4.5", "x", "anthropic/claude-opus-4.5", "openrouter"),
        ("anthropic/claude-opus-4.6-fast", "x", "anthropic/claude-opus-4.6-fast", "openrouter"),
        ("openai/gpt-5", "openrouter", "openai/gpt-5", "openrouter"),
        ("azure/gpt-5", "x", "gpt-5", "azure"),
        ("azure/gpt-5", "openai", "gpt-5", "azure"),
        ("gpt-5", "azure", "gpt-5", "azure"),
        ("gpt-5-2025-08-07", "x", "gpt-5", "openai"),
        ("text-embedding-3-small", "openai", "text-embedding-3-small", "openai"),
        ("openai/gpt-oss-120b", "groq", "openai/gpt-oss-120b", "groq"),
        ("models/gemini-2.5-pro", "x", "gemini-2.5-pro", "google"),
        ("models/gemini-2.5-pro", "google", "gemini-2.5-pro", "google"),
        ("gemini/gemini-2.5-pro", "x", "gemini-2.5-pro", "google"),
        ("vertex_ai/claude-opus-4-5@20251101", "x", "claude-opus-4-5@20251101", "google"),
        ("claude-opus-5-5@20261101", "x", "claude-opus-5-5@20261101", "google"),
        ("us.anthropic.claude-opus-5-5-v1:0", "x", "us.anthropic.claude-opus-5-5-v1:0", "aws"),
        ("global.anthropic.claude-opus-5-5", "x", "global.anthropic.claude-opus-5-5", "aws"),
        ("bedrock/converse/us.anthropic.claude-opus-5-5", "x", "us.anthropic.claude-opus-5-5", "aws"),
        ("claude-opus-5-5", "bedrock", "claude-opus-5-5", "aws"),
        ("xai/grok-4", "x", "grok-4", "x-ai"),
        ("gpt-5", "a-search-engine", "gpt-5", "openai"),
        ("gpt-5", "anthropic", "gpt-5", "openai"),
    ],
)
def test_a_model_is_found_under_every_name_it_goes_by(
    listed: PriceBook, name: str, service: str, model: str, provider: str
) -> None:
    priced = listed.price(WORKED.replace(model=name), NOW_US, service)
    assert priced.cost_nano_usd == directly(WORKED, NOW_US, model, provider)
    assert priced.model == name


@pytest.mark.parametrize(
    ("model", "moment", "tokens", "nano"),
    [
        ("claude-sonnet-4-5", "2026-11-20T12:00:00Z", 199_000, 612_000_000),
        ("claude-sonnet-4-5", "2026-11-20T12:00:00Z", 200_000, 615_000_000),
        ("claude-sonnet-4-5", "2026-11-20T12:00:00Z", 201_000, 1_228_500_000),
        ("claude-sonnet-4-6", "2026-03-12T23:59:59Z", 201_000, 1_228_500_000),
        ("claude-sonnet-4-6", "2026-03-13T00:00:00Z", 201_000, 618_000_000),
        ("claude-haiku-5-5", "2026-11-20T12:00:00Z", 100_000, 10_500_000),
        ("claude-haiku-5-5", "2026-11-20T12:00:00Z", 100_001, 52_500_500),
        ("gemini-3.6-flash", "2026-12-31T23:59:59Z", 100_000, 78_750_000),
        ("gemini-3.6-flash", "2027-01-01T00:00:00Z", 100_000, 157_500_000),
        ("deepseek-flash", "2026-11-20T03:59:59Z", 100_000, 31_200_000),
        ("deepseek-flash", "2026-11-20T04:00:00Z", 100_000, 15_600_000),
        ("deepseek-flash", "2026-11-20T06:00:00Z", 100_000, 31_200_000),
    ],
)
def test_the_price_is_that_of_the_moment_and_of_the_size_of_the_request(
    listed: PriceBook, model: str, moment: str, tokens: int, nano: int
) -> None:
    usage = Usage(input_tokens=tokens, output_tokens=1_000, model=model)
    assert listed.price(usage, at(moment), "x").cost_nano_usd == nano


@pytest.mark.parametrize("at_us", [-(10**20), 0, 10**20])
def test_a_moment_outside_the_calendar_has_a_price_too(listed: PriceBook, at_us: int) -> None:
    usage = Usage(input_tokens=201_000, model="claude-sonnet-4-6")
    assert listed.price(usage, at_us, "x").cost_nano_usd in (1_206_000_000, 603_000_000)


@pytest.mark.parametrize(
    ("model", "context", "nano"),
    [
        ("claude-opus-5-5[fast]", {"speed": "fast"}, 96_678_000),
        ("claude-opus-5-5[1m][fast]", {"speed": "fast"}, 96_678_000),
        ("claude-opus-5-5[batch]", {"processing": "batch"}, 24_169_500),
        ("gpt-5[flex]", {"service_tier": "flex"}, None),
        ("gpt-5[priority]", {"service_tier": "priority"}, None),
        ("claude-opus-4-1[fast]", {}, None),
    ],
)
def test_a_variant_behind_the_name_has_its_own_price(
    listed: PriceBook, model: str, context: PriceContext, nano: int | None
) -> None:
    cost = listed.price(WORKED.replace(model=model), NOW_US, "x").cost_nano_usd
    assert cost == directly(WORKED, NOW_US, model.partition("[")[0], None, context)
    assert nano is None or cost == nano


def test_a_seller_of_the_models_of_others_has_no_variants_of_them(listed: PriceBook) -> None:
    standard = listed.price(WORKED.replace(model="azure/gpt-5"), NOW_US, "x")
    assert listed.price(WORKED.replace(model="azure/gpt-5[flex]"), NOW_US, "x").cost_nano_usd == (
        standard.cost_nano_usd
    )


def test_the_variants_are_those_of_the_list() -> None:
    contexts = {
        (key, value)
        for provider in data.providers
        for model in provider.models
        for variant in model.price_variants or ()
        for key, value in variant.when.items()
    }
    assert {("speed", "fast"), ("processing", "batch"), ("service_tier", "flex")} <= contexts
    assert {value for _, value in contexts} >= set(VARIANTS)


def findable() -> Iterator[tuple[str, str]]:
    """Every model that the list finds by its id, as (provider, model)."""
    for provider in data.providers:
        for model in provider.models:
            if provider.find_model(model.id, all_providers=data.providers):
                yield provider.id, model.id


def used(maximum: int) -> st.SearchStrategy[int | None]:
    return st.none() | st.integers(0, maximum) | st.sampled_from([100_000, 200_000, 200_001, 272_001])


usages = st.builds(
    Usage,
    input_tokens=used(10**9),
    output_tokens=used(10**9),
    cache_read_tokens=used(10**9),
    cache_write_tokens=used(10**9),
    cache_write_1h_tokens=used(10**9),
)
moments = st.integers(at("2024-01-01T00:00:00Z") // SECOND_US, at("2027-06-01T00:00:00Z") // SECOND_US).map(
    lambda second: second * SECOND_US
)


@given(st.sampled_from(sorted(findable())), usages, moments)
def test_what_is_cached_costs_exactly_what_the_list_calculates(
    listed: PriceBook, named: tuple[str, str], usage: Usage, at_us: int
) -> None:
    provider, model = named
    priced = listed.price(usage.replace(model=model), at_us, provider)
    expected = directly(usage, at_us, model, provider) if usage.tokens is not None else 0
    if priced.cost_nano_usd is None:
        assert (priced.cost_source, expected) == ("unpriced", 0)
    else:
        assert (priced.cost_source, priced.cost_nano_usd) == ("computed", expected)


def test_every_price_of_the_list_fits_integers() -> None:
    """Otherwise it is calculated the slow way; none of them has to be."""
    usage = Usage(input_tokens=300_001, output_tokens=7, cache_read_tokens=5)
    for provider in data.providers:
        for model in provider.models:
            listed = ListedModel(model, provider, None, LIST)
            for at_us in (0, at("2026-11-20T02:00:00Z"), NOW_US, at("2027-06-01T00:00:00Z")):
                assert listed.integer_price(at_us) is not None, model.id
                assert (listed.cost_of(usage, at_us) or 0) == nano_usd(
                    model.calc_price(
                        genai_prices.Usage(input_tokens=300_006, output_tokens=7, cache_read_tokens=5),
                        provider,
                        genai_request_timestamp=datetime.fromtimestamp(at_us // SECOND_US, UTC),
                    ).total_price
                ), model.id


def of_one_model(model_prices: ModelPrice) -> ListedModel:
    model = ModelInfo(id="m", match=ClauseEquals("m"), prices=model_prices)
    provider = Provider(id="p", name="P", api_pattern="p", models=[model])
    return ListedModel(model, provider, None, LIST)


def test_a_price_that_integers_cannot_say_is_calculated_by_the_list_itself() -> None:
    finer = of_one_model(ModelPrice(input_mtok=Decimal("0.0000000000000000005")))
    assert finer.integer_price(NOW_US) is None
    assert finer.has_price()
    assert finer.cost_of(Usage(input_tokens=3 * 10**16), NOW_US) == 15


def test_a_price_that_the_list_refuses_to_apply_is_none() -> None:
    without_input = of_one_model(ModelPrice(cache_read_mtok=Decimal(1)))
    assert without_input.cost_of(Usage(cache_read_tokens=5), NOW_US) is None


def test_separate_prices_for_both_times_to_live_are_applied_as_the_list_does() -> None:
    split = of_one_model(
        ModelPrice(
            input_mtok=Decimal(1),
            cache_write_mtok=Decimal(2),
            cache_write_5m_mtok=Decimal(3),
            cache_write_1h_mtok=Decimal(4),
        )
    )
    assert split.integer_price(NOW_US) is not None
    usage = Usage(input_tokens=1, cache_write_tokens=10, cache_write_1h_tokens=100)
    assert split.cost_of(usage, NOW_US) == 431_000


# --- no price -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "usage",
    [
        Usage(),
        Usage(model="claude-opus-5-5"),
        Usage(input_tokens=5),
        Usage(model="", input_tokens=5),
        Usage(model="a-model-that-nobody-sells", input_tokens=5),
        Usage(model="ollama/llama3", input_tokens=5),
        Usage(model="openrouter/", input_tokens=5),
        Usage(model="claude", input_tokens=5),
        Usage(model="claude-opus-5-5[200k]", input_tokens=5),
        Usage(model="openai/whisper-1", input_tokens=5),  # has a price of hours of audio only
        Usage(model="github_copilot/gpt-4.1", input_tokens=5),  # the list knows it, without any price
        Usage(model="x" * 10_000, input_tokens=5),
        Usage(model="claude-opus-5-5" + "x" * 10_000, input_tokens=5),
        Usage(model="\x1b[31mclaude-opus-5-5\x00", input_tokens=5),
        Usage(model="\ud800\udfff", input_tokens=5),
        Usage(model="(((((", input_tokens=5),
        Usage(model="../../etc/passwd", input_tokens=5),
        Usage(model="/" * 200, input_tokens=5),
        Usage(model="[1m]" * 64, input_tokens=5),
    ],
)
def test_without_a_known_price_usage_is_unpriced_and_never_free(listed: PriceBook, usage: Usage) -> None:
    priced = listed.price(usage, NOW_US, "x")
    assert (priced.cost_nano_usd, priced.cost_source, priced.price_version) == (None, "unpriced", None)
    assert priced == usage


def test_a_model_that_the_list_names_free_costs_nothing(listed: PriceBook) -> None:
    usage = Usage(input_tokens=5, output_tokens=5, model="azure/mai-ds-r1:free")
    assert listed.price(usage, NOW_US, "x").cost_nano_usd == 0


def test_no_tokens_of_a_known_model_cost_nothing(listed: PriceBook) -> None:
    priced = listed.price(Usage(input_tokens=0, model="claude-opus-5-5"), NOW_US, "x")
    assert (priced.cost_nano_usd, priced.cost_source) == (0, "computed")


@given(model=st.text(max_size=300), service=st.text(max_size=50))
def test_any_text_may_stand_where_a_model_is_named(listed: PriceBook, model: str, service: str) -> None:
    priced = listed.price(Usage(input_tokens=5, model=model), NOW_US, service)
    assert (priced.cost_nano_usd is None) is (priced.cost_source == "unpriced")


def test_many_unknown_names_are_not_all_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prices, "MODELS_KEPT", 8)
    book = PriceBook(None)
    for number in range(50):
        book.price(Usage(input_tokens=5, model=f"unknown-{number}"), NOW_US, "x")
        assert book.price(WORKED, NOW_US, "x").cost_nano_usd == 48_339_000
    assert book.models_kept <= 8


# --- costs that are given -----------------------------------------------------------------------------------


def test_a_cost_that_the_caller_gives_is_kept_as_reported(listed: PriceBook) -> None:
    for source in ("reported", "unpriced"):
        given_cost = WORKED.replace(cost_nano_usd=7, cost_source=source)
        assert listed.price(given_cost, NOW_US, "x") == WORKED.replace(
            cost_nano_usd=7, cost_source="reported"
        )


def test_a_reported_cost_of_nothing_is_kept(listed: PriceBook) -> None:
    assert listed.price(WORKED.replace(cost_nano_usd=0), NOW_US, "x").cost_nano_usd == 0


def test_usage_that_is_priced_twice_keeps_its_first_price(listed: PriceBook) -> None:
    before = at("2026-03-12T00:00:00Z")
    once = listed.price(Usage(input_tokens=201_000, model="claude-sonnet-4-6"), before, "x")
    assert listed.price(once, NOW_US, "x") == once


def test_a_computed_cost_is_bounded_like_a_reported_one(listed: PriceBook) -> None:
    with pytest.raises(InvalidInput, match=rf"cost_usd: .* passes {COST_USD_MAX}"):
        listed.price(Usage(input_tokens=TOKENS_MAX, model="claude-opus-5-5"), NOW_US, "x")


# --- what is imported, and when -----------------------------------------------------------------------------

WITHOUT_LIST = """
import sys
from agent_meter_mcp.core.models import Usage
from agent_meter_mcp.prices import PriceBook

book = PriceBook(None)
book.price(Usage(), 0, "x")
book.price(Usage(model="claude-opus-5-5"), 0, "x")
book.price(Usage(input_tokens=5), 0, "x")
book.price(Usage(input_tokens=5, model="claude-opus-5-5", cost_nano_usd=3), 0, "x")
book.price(Usage(input_tokens=5, model="x" * 1000), 0, "x")
assert not {"genai_prices", "pydantic", "tomllib", "typing", "re"} & set(sys.modules), sorted(sys.modules)
"""

WITHOUT_NETWORK = """
import sys

def forbid(event, arguments):
    if event.startswith("socket."):
        raise RuntimeError(event)

sys.addaudithook(forbid)
from agent_meter_mcp.core.models import Usage
from agent_meter_mcp.prices import PriceBook

book = PriceBook(None)
book.preload()
assert "genai_prices" in sys.modules
assert book.price(Usage(input_tokens=5, model="claude-opus-5-5"), 0, "x").cost_nano_usd == 20_000
"""


@pytest.mark.parametrize("program", [WITHOUT_LIST, WITHOUT_NETWORK], ids=["nothing to price", "offline"])
def test_the_list_is_imported_only_when_it_is_needed_and_never_fetched(program: str) -> None:
    folders = [str(ROOT), *(folder for folder in sys.path if folder.endswith("-packages"))]
    run = subprocess.run(
        [sys.executable, "-S", "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr


def test_many_threads_share_one_price_book() -> None:
    book = PriceBook(None)
    models = ["claude-opus-5-5", "claude-sonnet-4-6", "gpt-5", "unknown", "claude-opus-5-5[fast]"] * 20
    alone = PriceBook(None)
    amounts = [WORKED.replace(model=model) for model in models]
    with ThreadPoolExecutor(8) as threads:
        found = [threads.submit(book.price, usage, NOW_US, "x") for usage in amounts]
        assert [each.result() for each in found] == [alone.price(usage, NOW_US, "x") for usage in amounts]


def test_every_provider_that_a_name_may_hint_at_is_in_the_list() -> None:
    listed_providers = {provider.id for provider in data.providers}
    assert set(PROVIDERS.values()) <= listed_providers
    assert all(PROVIDERS[name] == name for name in PROVIDERS if name in listed_providers)


@pytest.mark.parametrize(
    ("model", "known"),
    [
        ("claude-opus-5-5[1m]", True),
        ("us.anthropic.claude-opus-5-5", True),
        ("azure/mai-ds-r1:free", True),
        ("github_copilot/gpt-4.1", False),
        ("nonsense", False),
        ("x" * 10_000, False),
    ],
)
def test_a_model_is_known_if_it_has_a_price(listed: PriceBook, model: str, known: bool) -> None:
    assert listed.known(model) is known


def test_the_version_names_the_list(listed: PriceBook) -> None:
    assert listed.version == LIST


# --- the override file --------------------------------------------------------------------------------------


class OverrideFile:
    """An override file whose every change has its own time, and a price book that reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds = 0.0
        self.book = PriceBook(path, lambda: self.seconds)
        self._changes = 0

    def write(self, text: str) -> None:
        self._changes += 1
        self.path.write_text(text, encoding="utf-8")
        os.utime(self.path, ns=(0, self._changes * 1_000_000_000))

    def cost(self, usage: Usage, seconds: float, service: str = "x") -> int | None:
        """Of usage now, so many seconds after the book was made."""
        self.seconds = seconds
        return self.book.price(usage, NOW_US + round(seconds * SECOND_US), service).cost_nano_usd


@pytest.fixture
def override(tmp_path: Path) -> OverrideFile:
    return OverrideFile(tmp_path / "prices.toml")


ONE_TOKEN = Usage(input_tokens=1, model="claude-opus-5-5")
MINE = '[models."claude-opus-5-5"]\ninput = {}\noutput = 0\n'


def test_without_the_file_the_list_applies(override: OverrideFile) -> None:
    assert override.cost(ONE_TOKEN, 0) == 4_000
    assert override.book.version == LIST
    assert PriceBook(override.path / "below" / "prices.toml").price(ONE_TOKEN, NOW_US, "x").cost_nano_usd == (
        4_000
    )


def test_prices_of_the_file_win_over_the_list_and_say_so(override: OverrideFile) -> None:
    override.write(MINE.format(1))
    priced = override.book.price(ONE_TOKEN, NOW_US, "x")
    assert (priced.cost_nano_usd, priced.cost_source) == (1_000, "computed")
    version = priced.price_version or ""
    assert version.startswith("override:")
    assert len(version) == len("override:") + 12
    assert override.book.version == f"{version}, {LIST}"


def test_models_that_are_not_in_the_file_keep_the_price_of_the_list(override: OverrideFile) -> None:
    override.write(MINE.format(1))
    priced = override.book.price(ONE_TOKEN.replace(model="claude-opus-4-5"), NOW_US, "x")
    assert (priced.cost_nano_usd, priced.price_version) == (5_000, LIST)


def test_outside_the_dates_of_the_file_the_list_applies(override: OverrideFile) -> None:
    override.write(MINE.format(1) + "until = 2026-11-20\n")
    assert override.cost(ONE_TOKEN, -86_400) == 1_000
    assert override.cost(ONE_TOKEN, 0) == 4_000


def test_a_cost_that_is_reported_wins_over_the_file(override: OverrideFile) -> None:
    override.write(MINE.format(1))
    assert override.cost(ONE_TOKEN.replace(cost_nano_usd=9), 0) == 9


def test_a_service_of_the_file_needs_no_model(override: OverrideFile) -> None:
    override.write("[services.search]\nusd_per_request = 0.005\n")
    priced = override.book.price(Usage(requests=3), NOW_US, "search")
    assert (priced.cost_nano_usd, priced.cost_source) == (15_000_000, "computed")
    assert override.book.price(Usage(requests=3), NOW_US, "other").cost_source == "unpriced"


def test_a_model_of_the_file_is_known(override: OverrideFile) -> None:
    override.write('[models."in-house"]\ninput = 1\noutput = 2\n')
    assert override.book.known("In-House[1m]")
    assert not override.book.known("other-house")


def test_a_change_of_the_file_applies_within_a_second(override: OverrideFile) -> None:
    override.write(MINE.format(1))
    assert override.cost(ONE_TOKEN, 0) == 1_000
    override.write(MINE.format(2))
    assert override.cost(ONE_TOKEN, 0.999_999) == 1_000
    assert override.cost(ONE_TOKEN, 1) == 2_000


def test_whenever_usage_occurred_the_file_is_looked_at_once_a_second(override: OverrideFile) -> None:
    override.write(MINE.format(1))
    assert override.cost(ONE_TOKEN, 0) == 1_000
    override.write(MINE.format(2))
    for days in (-3, 1, -2):
        at_us = NOW_US + days * 86_400 * SECOND_US
        assert override.book.price(ONE_TOKEN, at_us, "x").cost_nano_usd == 1_000
    override.seconds = 1
    assert override.book.price(ONE_TOKEN, NOW_US - 86_400 * SECOND_US, "x").cost_nano_usd == 2_000


def test_a_file_that_comes_and_goes_is_noticed(override: OverrideFile) -> None:
    assert override.cost(ONE_TOKEN, 0) == 4_000
    override.write(MINE.format(1))
    assert override.cost(ONE_TOKEN, 1) == 1_000
    override.path.unlink()
    assert override.cost(ONE_TOKEN, 2) == 4_000


def test_a_change_that_cannot_be_used_leaves_the_last_good_prices(override: OverrideFile) -> None:
    override.write(MINE.format(1))
    assert override.cost(ONE_TOKEN, 0) == 1_000
    override.write(MINE.format("'free'"))
    assert override.cost(ONE_TOKEN, 1) == 1_000
    assert override.book.problem is not None
    assert override.book.problem.field == f"{override.path}: models.'claude-opus-5-5'.input"
    override.write(MINE.format(3))
    assert override.cost(ONE_TOKEN, 2) == 3_000
    assert override.book.problem is None


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"[models", "is not valid TOML"),
        (b"\xff\xfe", "is not valid TOML"),
        (b"a = " + b"[" * 100_000, "is not valid TOML"),
        (b"a = " + b"9" * 5_000, "is not"),
        (b"[models.m]\ninput = 1e999999999999999999999\noutput = 1", "is not valid TOML"),
        (b"#" * (prices.FILE_BYTES_MAX + 1), "is larger than"),
        (b"[prices.m]", "use models, services"),
    ],
)
def test_a_file_that_was_never_valid_is_an_error_each_time(
    override: OverrideFile, content: bytes, problem: str
) -> None:
    override.path.write_bytes(content)
    for _ in range(2):
        with pytest.raises(InvalidInput) as refused:
            override.cost(ONE_TOKEN, 0)
        assert refused.value.field.startswith(str(override.path))
        assert problem in refused.value.problem
    with pytest.raises(InvalidInput):
        override.book.preload()


def test_a_file_that_was_never_valid_is_read_once_a_second_too(override: OverrideFile) -> None:
    """What names no model goes on without a cost meanwhile, and the writer must not read it for each."""
    override.write("[models")
    with pytest.raises(PricesUnusable):
        override.cost(ONE_TOKEN, 0)
    override.write(MINE.format(1))
    with pytest.raises(PricesUnusable):
        override.cost(ONE_TOKEN, 0.999_999)
    assert override.cost(ONE_TOKEN, 1) == 1_000
    assert override.book.problem is None


def test_a_change_that_cannot_be_used_is_logged_once_for_each_mistake(
    override: OverrideFile, caplog: pytest.LogCaptureFixture
) -> None:
    override.write("[models")
    with pytest.raises(PricesUnusable):
        override.cost(ONE_TOKEN, 0)
    for text, seconds in (("", 1), ("[models", 2), ("[models", 3), ("", 4), ("[models", 5), ("x = 1", 6)):
        override.write(MINE.format(1) + text)
        assert override.cost(ONE_TOKEN, seconds) == 1_000
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 3
    assert all(line.startswith(str(override.path)) for line in told)
    assert all(line.endswith("the last good prices stay in force.") for line in told)


def test_a_folder_in_place_of_the_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        PriceBook(tmp_path).preload()


def test_a_file_may_begin_with_a_byte_order_mark(override: OverrideFile) -> None:
    override.path.write_bytes(b"\xef\xbb\xbf" + MINE.format(1).encode())
    assert override.cost(ONE_TOKEN, 0) == 1_000


def test_a_cost_by_the_file_is_bounded_too(override: OverrideFile) -> None:
    override.write(MINE.format(1_000_000))
    with pytest.raises(InvalidInput, match="cost_usd"):
        override.cost(ONE_TOKEN.replace(input_tokens=2_000_000), 0)
