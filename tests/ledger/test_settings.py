"""The variables of the environment."""

from __future__ import annotations

import os

import pytest

from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.settings import Settings, load_settings, settings_table


def test_nothing_need_be_set() -> None:
    home = os.path.expanduser("~")
    assert load_settings({}) == Settings(
        db=os.path.join(home, ".agent-meter", "meter.db"),
        prices=os.path.join(home, ".agent-meter", "prices.toml"),
        secrets=os.path.join(home, ".agent-meter", "secrets.toml"),
        agent=None,
        synchronous="FULL",
        host="127.0.0.1",
        port=8787,
        timezone="UTC",
        busy_timeout_s=10.0,
    )


def test_an_empty_variable_is_not_set() -> None:
    assert load_settings({name: "" for name, _, _ in settings_table()}) == load_settings({})


def test_everything_can_be_set() -> None:
    settings = load_settings(
        {
            "AGENT_METER_DB": "data/m.db",
            "AGENT_METER_PRICES": "~/own.toml",
            "AGENT_METER_SECRETS": "~/own-secrets.toml",
            "AGENT_METER_AGENT": "research-bot",
            "AGENT_METER_SYNCHRONOUS": "normal",
            "AGENT_METER_HOST": "::1",
            "AGENT_METER_PORT": "0",
            "AGENT_METER_ALLOWED_HOSTS": " Meter.example.com, 10.0.0.7,::2 ,",
            "AGENT_METER_TIMEZONE": "Europe/Berlin",
            "AGENT_METER_BUSY_TIMEOUT": "2.5",
            "ANOTHER": "variable",
        }
    )
    assert settings == Settings(
        db="data/m.db",
        prices=os.path.expanduser("~/own.toml"),
        secrets=os.path.expanduser("~/own-secrets.toml"),
        agent="research-bot",
        synchronous="NORMAL",
        host="::1",
        port=0,
        timezone="Europe/Berlin",
        busy_timeout_s=2.5,
        allowed_hosts=("meter.example.com", "10.0.0.7", "::2"),
    )


def test_the_process_is_asked_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_METER_PORT", "9999")
    assert load_settings().port == 9999


@pytest.mark.parametrize(
    ("variable", "value", "fix"),
    [
        ("AGENT_METER_DB", ":memory:", "path of a file"),
        ("AGENT_METER_DB", "file:meter.db?mode=ro", "path of a file"),
        ("AGENT_METER_PRICES", "a\0b", "path of a file"),
        ("AGENT_METER_AGENT", "no\nname", "printable"),
        ("AGENT_METER_AGENT", "x" * 129, "at most 128"),
        ("AGENT_METER_AGENT", "*", "nobody's name"),
        ("AGENT_METER_SYNCHRONOUS", "OFF", "FULL or NORMAL"),
        ("AGENT_METER_HOST", "http://localhost", "without a port"),
        ("AGENT_METER_HOST", "a b", "without a port"),
        ("AGENT_METER_PORT", "65536", "0 to 65535"),
        ("AGENT_METER_PORT", "-1", "0 to 65535"),
        ("AGENT_METER_PORT", "٨٧٨٧", "0 to 65535"),
        ("AGENT_METER_PORT", "http", "0 to 65535"),
        ("AGENT_METER_ALLOWED_HOSTS", "https://meter.example.com", "without a scheme"),
        ("AGENT_METER_ALLOWED_HOSTS", "meter.example.com:443", "without a scheme or port"),
        ("AGENT_METER_ALLOWED_HOSTS", "a b", "host names"),
        ("AGENT_METER_ALLOWED_HOSTS", "*", "host names"),
        ("AGENT_METER_TIMEZONE", "Mars/Olympus", "America/New_York"),
        ("AGENT_METER_BUSY_TIMEOUT", "soon", "number of seconds"),
        ("AGENT_METER_BUSY_TIMEOUT", "-1", "number of seconds"),
        ("AGENT_METER_BUSY_TIMEOUT", "nan", "number of seconds"),
        ("AGENT_METER_BUSY_TIMEOUT", "601", "number of seconds"),
    ],
)
def test_a_wrong_value_names_the_variable_and_the_way_out(variable: str, value: str, fix: str) -> None:
    with pytest.raises(InvalidInput) as wrong:
        load_settings({variable: value})
    assert wrong.value.field == variable
    assert fix in wrong.value.problem


def test_the_table_for_the_readers_has_every_variable_and_its_default() -> None:
    table = settings_table()
    assert [name for name, _, _ in table] == [
        "AGENT_METER_DB",
        "AGENT_METER_AGENT",
        "AGENT_METER_SYNCHRONOUS",
        "AGENT_METER_PRICES",
        "AGENT_METER_SECRETS",
        "AGENT_METER_HOST",
        "AGENT_METER_PORT",
        "AGENT_METER_ALLOWED_HOSTS",
        "AGENT_METER_TIMEZONE",
        "AGENT_METER_BUSY_TIMEOUT",
    ]
    assert load_settings({name: default for name, default, _ in table}) == load_settings({})
    assert all(meaning for _, _, meaning in table)
