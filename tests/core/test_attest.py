"""Signatures, receipts and attestations, in the bytes of upstream's SDKs."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_meter_mcp.core import attest
from agent_meter_mcp.core.errors import InvalidInput

HELLO = "88aab3ede8d3adf94d26ab90d3bafd4a2083070c3bcce9c014ee04a443847c0b"
TYPESCRIPT = (
    '{"batchId":"5ea6504f611aa66999412dce1a2caed8","timestamp":"2026-11-23T20:04:49.714Z","serviceId":"s",'
    '"recordCount":3,"merkleRoot":"6133cc1cf1d1375f2827c10a5be00ca4f51210ca296b3c20eeafe6cf1e710e7a",'
    '"signature":"7361e7b0304549e0690b279ac9abc945e3a3299f6247c6ca5f2fe5ab48611820","records":['
    '{"id":"r1","timestamp":"2026-01-01T00:00:00.000Z","serviceId":"s","agent":{"agentId":"a"},"operation":"op",'
    '"units":1,"unitType":"token","pricingModel":"per-call","method":"GET","path":"/","statusCode":200,'
    '"durationMs":3,"metadata":{"tiny":1e-7,"small":0.00001,"big":1e+21,"f":0.1,"uni":"é\u2028\x7f",'
    '"ctl":"\\u0001\\b"}},'
    '{"id":"r2","timestamp":"2026-01-01T00:00:01.000Z","serviceId":"s","agent":{"agentId":"a","name":"N"},'
    '"operation":"op","units":2.5,"unitType":"token","pricingModel":"per-call","method":"GET","path":"/",'
    '"statusCode":200,"durationMs":3},'
    '{"id":"r3","timestamp":"2026-01-01T00:00:02.000Z","serviceId":"s","agent":{"agentId":"a"},"operation":"op",'
    '"units":3,"unitType":"token","pricingModel":"per-call","method":"GET","path":"/","statusCode":200,'
    '"durationMs":3}]}'
)
"""What the TypeScript SDK made of three records with the secret "secret"."""
NODE = shutil.which("node")

# Signatures


def test_a_signature_is_that_of_the_raw_body() -> None:
    assert attest.signature_of("secret", b"hello") == HELLO
    assert attest.is_signed("secret", b"hello", HELLO)


@pytest.mark.parametrize("wrong", ["", HELLO[:-1], HELLO.upper(), HELLO + "0", "é" * 64, "\ud800"], ids=ascii)
def test_any_other_signature_is_wrong(wrong: str) -> None:
    assert not attest.is_signed("secret", b"hello", wrong)
    assert not attest.is_signed("secret", b"hello ", HELLO)
    assert not attest.is_signed("Secret", b"hello", HELLO)


def test_an_empty_body_may_be_signed_as_it_is_or_as_typescript_does() -> None:
    for signed in (b"", b'""'):
        assert attest.is_signed("secret", b"", attest.signature_of("secret", signed))
    assert not attest.is_signed("secret", b'""', attest.signature_of("secret", b""))


def test_a_receipt_is_made_of_the_signatures_text() -> None:
    assert attest.receipt_of("receipts", HELLO) == attest.signature_of("receipts", HELLO.encode())


# Attestations


def test_what_the_typescript_sdk_has_made_verifies() -> None:
    assert attest.verify("secret", TYPESCRIPT) == attest.Checked("s", 3, ())
    assert attest.service_of(TYPESCRIPT) == "s"


def test_blanks_between_its_parts_change_nothing() -> None:
    spelled = json.dumps(json.loads(TYPESCRIPT, parse_float=lambda text: float(text)), indent=2)
    assert attest.verify("secret", spelled).problems == ()


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ('"units":2.5', '"units":2.4', "merkleRoot"),
        ('"units":2.5,"unitType":"token"', '"unitType":"token","units":2.5', "merkleRoot"),
        ('"name":"N"', '"name":"M"', "merkleRoot"),
        ('"batchId":"5', '"batchId":"6', "signature"),
        ("49.714Z", "49.715Z", "signature"),
        ('"recordCount":3', '"recordCount":4', "recordCount"),
    ],
)
def test_what_was_changed_is_found(before: str, after: str, problem: str) -> None:
    (told,) = attest.verify("secret", TYPESCRIPT.replace(before, after)).problems
    assert told.startswith(problem)


def test_another_secret_is_told() -> None:
    assert len(attest.verify("other", TYPESCRIPT).problems) == 2


def test_the_last_record_cannot_be_put_in_twice() -> None:
    """An odd level's last node stands twice anyway, so the root is the same."""
    records = [f'{{"id":"{number}"}}' for number in range(3)]
    made = attest.attest("secret", "b", "t", "s", records)
    forged = made.replace('{"id":"2"}', '{"id":"2"},{"id":"2"}').replace('"recordCount":3', '"recordCount":4')
    assert attest.verify("secret", made).problems == ()
    assert attest.verify("secret", forged).problems == ("records has one of them twice",)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 17])
def test_what_is_attested_here_verifies(count: int) -> None:
    records = [attest.js_text({"id": str(number), "units": number / 7}) for number in range(count)]
    made = attest.attest("secret", "b", "2026-01-01T00:00:00.000Z", "s", records)
    assert attest.verify("secret", made) == attest.Checked("s", count, ())
    assert json.loads(made)["recordCount"] == count


def test_numbers_that_another_language_has_spelled_verify_as_they_were_received() -> None:
    record = '{"id":"r","units":1.0,"metadata":{"b":1e5,"1":2}}'
    assert attest.verify("secret", attest.attest("secret", "b", "t", "s", [record])).problems == ()


def test_nothing_cannot_be_attested() -> None:
    with pytest.raises(InvalidInput, match="nothing to attest"):
        attest.attest("secret", "b", "t", "s", [])


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "5", "{}", "null", "[" * 100_000, '{"batchId":1}', TYPESCRIPT[:-1],
        TYPESCRIPT.replace('"s","recordCount"', '5,"recordCount"'), TYPESCRIPT.replace("2.5", "NaN"),
        TYPESCRIPT[: TYPESCRIPT.index('"records"')] + '"records":[]}',
        TYPESCRIPT[: TYPESCRIPT.index('"records"')] + '"records":{}}',
        TYPESCRIPT.replace('"5ea6', '"\\ud800'),
    ],
    ids=range(14),
)  # fmt: skip
def test_what_is_no_attestation_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        attest.verify("secret", text)


# JavaScript's text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (-0.0, "0"), (1.0, "1"), (1.5, "1.5"), (-2.25, "-2.25"), (100.0, "100"),
        (123456.789, "123456.789"), (0.1, "0.1"), (1e-6, "0.000001"), (1e-7, "1e-7"), (1.5e-9, "1.5e-9"),
        (1e20, "100000000000000000000"), (1e21, "1e+21"), (1.25e25, "1.25e+25"), (5e-324, "5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e+308"), (2**53, "9007199254740992"),
        (2**53 + 1, "9007199254740992"), (12345678901234567890, "12345678901234567000"),
        (True, "true"), (None, "null"), ("é\u2028\x7f/", '"é\u2028\x7f/"'), ([], "[]"),
        ("\x01\b\t\"\\", '"\\u0001\\b\\t\\"\\\\"'), ("\ud800x", '"\\ud800x"'),
        ({"b": 1, "10": 2, "9": 3, "01": 4}, '{"9":3,"10":2,"b":1,"01":4}'),
    ],
    ids=ascii,
)  # fmt: skip
def test_values_are_written_as_javascript_writes_them(value: Any, text: str) -> None:
    assert attest.js_text(value) == text


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_javascripts_text_reads_back_as_what_it_was(value: Any) -> None:
    written = attest.js_text(value)
    assert attest.js_text(attest.parse(written, "x")) == written


@pytest.mark.skipif(NODE is None, reason="there is no Node.js here")
def test_nodejs_writes_the_same() -> None:
    values: list[Any] = [10.0**power * digits for power in range(-30, 30) for digits in (1, 1.5, 9.87654321)]
    values += [{"b": 1, "2": [1e-7], "1": "é\u2028"}, "\ud83d\ude00", 2**60, -0.0]
    sent = json.dumps(values)
    program = "const v=JSON.parse(require('fs').readFileSync(0));process.stdout.write(JSON.stringify(v))"
    done = subprocess.run(
        [NODE or "node", "-e", program], input=sent, capture_output=True, text=True, timeout=60, check=True
    )
    assert attest.js_text(attest.parse(sent, "x")) == done.stdout
