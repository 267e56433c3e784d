"""Cost in exact integers, the spellings of model names, and the prices that operators write."""

from __future__ import annotations

import tomllib
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.core.models import Usage
from agent_meter_mcp.core.pricing import (
    ATTO_PER_USD,
    MODEL_NAME_MAX,
    PROVIDERS,
    VARIANTS,
    OwnPrices,
    ServicePrice,
    TokenPrice,
    cost_of,
    half_even,
    has_price,
    normalised_model,
    service_cost_of,
    split_variant,
)

USD = ATTO_PER_USD
OPUS = TokenPrice(4 * USD, 20 * USD, USD // 5, 5 * USD, 8 * USD)
LONG = TokenPrice(
    3 * USD, 15 * USD, above=((500_000, TokenPrice(9 * USD)), (200_000, TokenPrice(6 * USD, 22 * USD)))
)
AT_US = int(datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()) * 1_000_000
DAY_US = 86_400_000_000


@pytest.mark.parametrize(
    ("usage", "nano"),
    [
        (Usage(input_tokens=12, cache_read_tokens=15555), 3_159_000),
        (
            Usage(
                input_tokens=12,
                output_tokens=159,
                cache_read_tokens=15555,
                cache_write_tokens=400,
                cache_write_1h_tokens=5000,
            ),
            48_339_000,  # what Claude Code itself reports for this usage
        ),
        (Usage(input_tokens=0), 0),
        (Usage(), 0),
    ],
)
def test_each_kind_of_token_has_its_own_price(usage: Usage, nano: int) -> None:
    assert cost_of(OPUS, usage) == nano


@pytest.mark.parametrize(
    ("tokens", "nano"),
    [
        (200_000, 600_000_000),  # at the threshold the lower price still applies
        (200_001, 1_200_006_000),
        (500_001, 4_500_009_000),
    ],
)
def test_above_a_threshold_every_token_has_the_price_of_the_tier(tokens: int, nano: int) -> None:
    assert cost_of(LONG, Usage(input_tokens=tokens)) == nano


def test_cached_tokens_count_towards_a_threshold_and_output_tokens_do_not() -> None:
    cached = Usage(input_tokens=1, cache_read_tokens=100_000, cache_write_1h_tokens=100_000)
    assert cost_of(LONG, cached) == 6_000
    assert cost_of(LONG, Usage(input_tokens=1, output_tokens=1_000_000)) == 15_000_003_000


def test_usage_of_several_requests_costs_what_that_many_average_requests_cost() -> None:
    one = cost_of(LONG, Usage(input_tokens=150_000, output_tokens=10))
    assert one is not None
    assert cost_of(LONG, Usage(requests=4, input_tokens=600_000, output_tokens=40)) == 4 * one


@pytest.mark.parametrize(
    ("price", "usage", "nano"),
    [
        (TokenPrice(), Usage(input_tokens=5), None),
        (TokenPrice(), Usage(input_tokens=0), None),
        (TokenPrice(input=USD), Usage(output_tokens=5), None),
        (TokenPrice(input=USD), Usage(input_tokens=5, output_tokens=5), 5_000),
        (TokenPrice(request=USD // 100), Usage(requests=3, input_tokens=5), 30_000_000),
        (TokenPrice(input=0, output=0), Usage(input_tokens=5, output_tokens=5), 0),
    ],
)
def test_a_cost_is_unknown_only_when_nothing_that_was_used_has_a_price(
    price: TokenPrice, usage: Usage, nano: int | None
) -> None:
    assert cost_of(price, usage) == nano


def test_a_price_of_anything_is_a_price() -> None:
    assert not has_price(TokenPrice())
    kinds = [kind for kind in TokenPrice().fields if kind != "above"]
    assert all(has_price(TokenPrice().replace(**{kind: 0})) for kind in kinds)


def test_a_sum_is_rounded_once() -> None:
    half_a_nano = TokenPrice(input=USD // 2000, output=USD // 2000)
    assert cost_of(half_a_nano, Usage(input_tokens=1)) == 0
    assert cost_of(half_a_nano, Usage(input_tokens=1, output_tokens=1)) == 1
    assert cost_of(half_a_nano, Usage(input_tokens=3)) == 2


@given(st.integers(0, 10**40), st.integers(1, 10**20))
def test_division_rounds_as_decimals_do(numerator: int, denominator: int) -> None:
    with localcontext(prec=80):
        exact = Decimal(numerator) / denominator
        assert half_even(numerator, denominator) == int(exact.to_integral_value(ROUND_HALF_EVEN))


@pytest.mark.parametrize(("numerator", "rounded"), [(0, 0), (1, 0), (2, 1), (3, 2), (5, 2), (7, 4)])
def test_a_tie_goes_to_the_even_number(numerator: int, rounded: int) -> None:
    assert half_even(numerator, 2) == rounded


@pytest.mark.parametrize(
    ("price", "usage", "nano"),
    [
        (ServicePrice(request=USD // 200), Usage(), 5_000_000),
        (ServicePrice(request=USD // 200), Usage(requests=0), 0),
        (ServicePrice(unit=USD // 100), Usage(units_micro=2_500_000), 25_000_000),
        (ServicePrice(unit=USD // 100), Usage(), None),
        (ServicePrice(USD // 200, USD // 100), Usage(requests=2, units_micro=1_000_000), 20_000_000),
        (ServicePrice(unit=USD, unit_type="page"), Usage(units_micro=1_000_000, unit_type="page"), 10**9),
        (ServicePrice(unit=USD, unit_type="page"), Usage(units_micro=1_000_000, unit_type="word"), None),
        (ServicePrice(unit=USD, unit_type="page"), Usage(units_micro=1_000_000), None),
    ],
)
def test_a_service_may_have_prices_without_a_model(
    price: ServicePrice, usage: Usage, nano: int | None
) -> None:
    assert service_cost_of(price, usage) == nano


@pytest.mark.parametrize(
    ("name", "model", "provider"),
    [
        ("claude-opus-5-5", "claude-opus-5-5", None),
        (" Claude-Opus-5-5[1m] ", "claude-opus-5-5", None),
        ("claude-opus-5-5[1m][fast]", "claude-opus-5-5", None),
        ("claude-opus-5-5[200k]", "claude-opus-5-5[200k]", None),
        ("[1m]", "[1m]", None),
        ("anthropic/claude-opus-5-5", "claude-opus-5-5", "anthropic"),
        ("openai/gpt-5", "gpt-5", "openai"),
        ("google/gemini-2.5-pro", "gemini-2.5-pro", "google"),
        ("gemini/gemini-2.5-pro", "gemini-2.5-pro", "google"),
        ("models/gemini-2.5-pro", "gemini-2.5-pro", "google"),
        ("publishers/google/models/gemini-2.5-pro", "gemini-2.5-pro", "google"),
        ("projects/p/locations/l/publishers/google/models/gemini-2.5-pro", "gemini-2.5-pro", "google"),
        ("vertex_ai/claude-opus-4-5@20251101", "claude-opus-4-5@20251101", "google"),
        ("claude-opus-5-5@20261101", "claude-opus-5-5@20261101", "google"),
        ("azure/gpt-5", "gpt-5", "azure"),
        ("openrouter/anthropic/claude-opus-4.5", "anthropic/claude-opus-4.5", "openrouter"),
        ("openrouter/", "openrouter/", None),
        ("xai/grok-4", "grok-4", "x-ai"),
        ("openai:gpt-5", "gpt-5", "openai"),
        ("groq/openai/gpt-oss-120b", "openai/gpt-oss-120b", "groq"),
        ("us.anthropic.claude-opus-5-5-v1:0", "us.anthropic.claude-opus-5-5-v1:0", "aws"),
        ("global.anthropic.claude-opus-5-5", "global.anthropic.claude-opus-5-5", "aws"),
        ("anthropic.claude-v2:1", "anthropic.claude-v2:1", "aws"),
        ("amazon.nova-pro-v1:0", "amazon.nova-pro-v1:0", "aws"),
        ("bedrock/us.anthropic.claude-opus-5-5", "us.anthropic.claude-opus-5-5", "aws"),
        ("bedrock/converse/us-east-1/amazon.nova-pro-v1:0", "amazon.nova-pro-v1:0", "aws"),
        (
            "arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-opus-5-5",
            "us.anthropic.claude-opus-5-5",
            "aws",
        ),
        ("gpt-4.1", "gpt-4.1", None),
        ("us.gpt-4.1", "us.gpt-4.1", None),
        ("meta-llama/llama-3.3-70b", "meta-llama/llama-3.3-70b", None),
        ("accounts/fireworks/models/kimi-k3", "accounts/fireworks/models/kimi-k3", None),
        ("", "", None),
    ],
)
def test_spellings_of_a_model_lead_to_its_name_and_provider(
    name: str, model: str, provider: str | None
) -> None:
    assert normalised_model(name) == (model, provider)


@pytest.mark.parametrize(
    ("name", "base", "variant"),
    [
        ("GPT-5[Flex]", "gpt-5", "flex"),
        ("claude-opus-5-5[fast][1m]", "claude-opus-5-5", "fast"),
        ("claude-opus-5-5[1m]", "claude-opus-5-5", None),
        ("x[fast][batch]", "x[fast]", "batch"),
        ("x]", "x]", None),
    ],
)
def test_marks_in_brackets_are_split_off(name: str, base: str, variant: str | None) -> None:
    assert split_variant(name) == (base, variant)


@given(st.text(st.sampled_from("us.anthropic/claude:gpt-5@[]1mfast \x00\x1b\ud800é"), max_size=60))
def test_no_name_is_too_strange_to_be_normalised(name: str) -> None:
    model, provider = normalised_model(name)
    assert len(model) <= len(name.lower())
    assert provider is None or provider in PROVIDERS.values()


def test_a_very_long_name_is_normalised_at_once() -> None:
    assert normalised_model("x" + "[1m]" * 2500) == ("x", None)


def own(text: str) -> OwnPrices:
    return OwnPrices(tomllib.loads(text, parse_float=Decimal), "prices.toml")


MODEL = Usage(input_tokens=1_000_000, output_tokens=1_000_000, model="m")
CACHED = Usage(cache_read_tokens=10, cache_write_tokens=1_000, cache_write_1h_tokens=100_000, model="m")


@pytest.mark.parametrize(
    ("text", "usage", "nano"),
    [
        ("[models.m]\ninput = 1.25\noutput = 10", MODEL, 11_250_000_000),
        ("[models.m]\ninput = 0\noutput = 0", MODEL, 0),
        ("[models.m]\ninput = 0.000000000000000001\noutput = 0", MODEL, 0),
        ("[models.m]\nusd_per_request = 0.5", MODEL, 500_000_000),
        ("[models.m]\nusd_per_request = 0.5", Usage(model="m"), 500_000_000),
        ("[models.m]\ninput = 1\noutput = 2\nusd_per_request = 0.5", MODEL, 3_500_000_000),
        ("[models.m]\ninput = 1\noutput = 2", Usage(model="m"), None),
        ("[models.m]\ninput = 1\noutput = 2", Usage(input_tokens=1), None),
        ("[models.m]\ninput = 1\noutput = 2", CACHED, 101_010_000),
        ("[models.m]\ninput = 1\noutput = 2\ncache_read = 0.1\ncache_write = 2", CACHED, 202_001_000),
        ("[models.m]\ninput = 1\noutput = 2\ncache_write = 2\ncache_write_1h = 3", CACHED, 302_010_000),
        ('[models."Azure/M"]\ninput = 1\noutput = 2', MODEL.replace(model="azure/m"), 3_000_000_000),
        ("[models.m]\ninput = 1\noutput = 2", MODEL.replace(model="openai/M[1m]"), 3_000_000_000),
        ("[models.m]\ninput = 1\noutput = 2", MODEL.replace(model="m[fast]"), None),
        ('[models."m[fast]"]\ninput = 1\noutput = 2', MODEL.replace(model="m[fast]"), 3_000_000_000),
        ('[models."m[fast]"]\ninput = 1\noutput = 2', MODEL, None),
        ("[models.m]\ninput = 1\noutput = 2", MODEL.replace(model="m" * (MODEL_NAME_MAX + 1)), None),
        ("[services.s]\nusd_per_request = 0.005", Usage(requests=2), 10_000_000),
        ("[services.s]\nusd_per_request = 0.005", MODEL, 5_000_000),
        ("[services.t]\nusd_per_request = 0.005", Usage(), None),
        ("[services.s]\nusd_per_unit = 0.01", Usage(units_micro=500_000), 5_000_000),
        (
            "[models.m]\ninput = 1\noutput = 2\n[services.s]\nusd_per_request = 0.005",
            MODEL,
            3_000_000_000,
        ),
        (
            '[[services.s]]\nusd_per_unit = 1\nunit_type = "page"\n'
            '[[services.s]]\nusd_per_unit = 2\nunit_type = "word"',
            Usage(units_micro=1_000_000, unit_type="page"),
            1_000_000_000,
        ),
        ("", MODEL, None),
    ],
)
def test_an_operator_may_set_prices_of_models_and_services(text: str, usage: Usage, nano: int | None) -> None:
    assert own(text).cost_of(usage, AT_US, "s") == nano


@pytest.mark.parametrize(
    ("text", "offset_us", "usd"),
    [
        ("from = 2026-11-20", -1, None),
        ("from = 2026-11-20", 0, 1),
        ("until = 2026-11-20", -1, 1),
        ("until = 2026-11-20", 0, None),
        ("from = 2026-11-20T01:00:00+02:00", -3_600_000_001, None),
        ("from = 2026-11-20T01:00:00+02:00", -3_600_000_000, 1),
        ("from = 2026-11-20\nuntil = 2026-11-21", DAY_US, None),
        ("[[models.m]]\ninput = 2\noutput = 0\nfrom = 2026-11-20", -1, 1),
        ("[[models.m]]\ninput = 2\noutput = 0\nfrom = 2026-11-20", 0, 2),
    ],
)
def test_a_price_is_valid_from_a_moment_until_before_another(
    text: str, offset_us: int, usd: int | None
) -> None:
    midnight_us = int(datetime(2026, 11, 20, tzinfo=UTC).timestamp()) * 1_000_000
    prices = own(f"[[models.m]]\ninput = 1\noutput = 0\n{text}")
    expected = None if usd is None else usd * 10**9
    assert prices.cost_of(MODEL, midnight_us + offset_us, "s") == expected


INPUT = "[models.m]\noutput = 1\ninput = "


@pytest.mark.parametrize(
    ("text", "field", "fix"),
    [
        ("[model.m]", "prices.toml: 'model'", "use models, services"),
        ("models = 5", "prices.toml: models", 'write [models."NAME"]'),
        ("[models]\nm = 1", "prices.toml: models.'m'", 'write [models."NAME"]'),
        ("models.m = [1]", "prices.toml: models.'m'", 'write [models."NAME"]'),
        ("[models.m]", "prices.toml: models.'m'.input", "write USD per million tokens"),
        ("[models.m]\ninput = 1", "prices.toml: models.'m'.output", "0 if they are free"),
        ("[models.m]\ninputs = 1", "prices.toml: models.'m': 'inputs'", "use input, output, cache_read"),
        ("[models.m]\nusd_per_unit = 1", "prices.toml: models.'m': 'usd_per_unit'", "use input"),
        (INPUT + '"1.25"', "prices.toml: models.'m'.input", "without quotes: input = 1.25"),
        (INPUT + "true", "prices.toml: models.'m'.input", "must be a number of USD"),
        (INPUT + "[1]", "prices.toml: models.'m'.input", "must be a number of USD"),
        (INPUT + "-1", "prices.toml: models.'m'.input", "must not be negative"),
        (INPUT + "nan", "prices.toml: models.'m'.input", "must be a finite number"),
        (INPUT + "inf", "prices.toml: models.'m'.input", "must be a finite number"),
        (INPUT + "1000001", "prices.toml: models.'m'.input", "must be at most 1000000"),
        (INPUT + "1\nfrom = '2026-01-31'", "prices.toml: models.'m'.from", "a date without quotes"),
        (INPUT + "1\nfrom = 12:00:00", "prices.toml: models.'m'.from", "a date without quotes"),
        (INPUT + "1\nfrom = 2026-01-31T00:00:00", "prices.toml: models.'m'.from", "needs an offset"),
        (
            INPUT + "1\nfrom = 2026-01-31\nuntil = 2026-01-31",
            "prices.toml: models.'m'.until",
            "must be later than from",
        ),
        ("[services.s]", "prices.toml: services.'s'", "write usd_per_request = 0.005"),
        ("[services.s]\ninput = 1", "prices.toml: services.'s': 'input'", "use usd_per_request"),
        ("[services.s]\nusd_per_unit = 1\nunit_type = 5", "prices.toml: services.'s'.unit_type", "text"),
    ],
)
def test_a_wrong_price_is_refused_with_its_place_and_the_fix(text: str, field: str, fix: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        own(text)
    assert refused.value.field == field
    assert fix in refused.value.problem


json_like: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.decimals() | st.text() | st.dates() | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from(
    ["models", "services", "m", "input", "output", "from", "until", "usd_per_request", "unit_type"]
)


@given(st.dictionaries(keys, st.dictionaries(keys, st.dictionaries(keys, json_like)), max_size=2))
def test_any_document_is_either_accepted_or_refused_by_name(document: dict[str, Any]) -> None:
    try:
        OwnPrices(document, "prices.toml").cost_of(MODEL, AT_US, "m")
    except InvalidInput as refused:
        assert refused.field.startswith("prices.toml")


def test_every_variant_can_be_written_behind_a_name() -> None:
    assert [split_variant(f"m[{variant}]") for variant in VARIANTS] == [("m", each) for each in VARIANTS]
