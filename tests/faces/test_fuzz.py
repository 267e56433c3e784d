"""Whatever a tool is called with, it answers: with data that fits its schema, or with an error in words that
changed nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcp.types import CallToolResult

from agent_meter_mcp.core.roles import Caller
from agent_meter_mcp.faces.mcp.server import TOOLS
from agent_meter_mcp.faces.mcp.tools import Definition
from agent_meter_mcp.ledger import Ledger
from agent_meter_mcp.prices import PriceBook
from agent_meter_mcp.runtime import new_id
from agent_meter_mcp.store.sqlite import open_store

from ..kept import kept
from .conftest import BOT, OPERATOR, ManualClock, Meter, Tools, text_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["bot", "kid", "openai", "null", "a/b", "x" * 128, "Ünï", "=1+1"]) | st.just("*")
TIMES = st.sampled_from(
    ["2026-11-24T11:59:00Z", "2026-11-24T13:00:00+01:00", "1970-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00"]
) | st.datetimes().map(lambda time: time.isoformat() + "Z")
WINDOWS = st.sampled_from(["day", "hour", "week", "month", "year", "total", "90s", "24h", "366d", "1s", "1w"])
NUMBERS = st.sampled_from([0, 0.1, 1e-9, 1e-6, 5, 12.5]) | st.integers(-1, 10**20) | st.floats(-1, 1e20)
LIKELY: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(
        ("agent", "parent", "service", "session", "project", "tier", "operation", "model"), NAMES
    ),
    **dict.fromkeys(("since", "until", "occurred_at"), TIMES),
    **dict.fromkeys(("window", "ttl"), WINDOWS),
    **dict.fromkeys(("max", "cost_usd", "units"), NUMBERS),
    "id": st.sampled_from(["one", "two"]),
    "reservation_id": st.sampled_from(["one", "x" * 256]),
    "status": st.sampled_from(["active", "idle", "over_limit", "stopped"]),
    "outcome": st.sampled_from(["accepted", "over_limit", "rejected"]),
    "source": st.sampled_from(["self", "sdk", "otlp"]),
    "reason": st.sampled_from(["it loops", "", "x" * 501]),
    "group_by": st.lists(st.sampled_from(["agent", "day", "hour", "tier", "outcome", "model"]), max_size=3),
    "thresholds": st.lists(st.integers(0, 1001), max_size=4),
    "timezone": st.sampled_from(["UTC", "Europe/Madrid", "Asia/Kolkata", "Factory", "/etc/localtime"]),
    "metadata": st.dictionaries(st.text(max_size=5), JSON, max_size=3),
    "action": st.sampled_from(["settle", "release", "extend", "reject", "warn"]),
    "metric": st.sampled_from(["requests", "units", "tokens", "cost_usd"]),
    "harness": st.sampled_from(["claude-code", "codex", "gemini"]),
    "event": st.sampled_from(["UserPromptSubmit", "PreToolUse", "PostToolBatch", "Stop", "BeforeModel"]),
    "engaged": st.booleans(),
    "everything": st.booleans(),
    "include_children": st.booleans(),
    "limit": st.integers(0, 501),
    "cursor": st.integers(0, 2**64).map(str),
    "order_by": st.sampled_from(["cost_usd", "tokens", "key", "events"]),
}
COUNTS = st.integers(0, 10**6) | st.integers(-1, 10**13) | st.floats(-1, 1e6)


@st.composite
def arguments_of(draw: st.DrawFn, definition: Definition) -> dict[str, Any]:
    """What a tool may be called with; now and then one of it is not at all what it should be."""
    fields = definition.arguments.model_fields
    likely = {name: LIKELY.get(name, COUNTS if "token" in name else NAMES) for name in fields}
    chosen = draw(st.lists(st.sampled_from(sorted(fields)), max_size=5, unique=True))
    arguments = {
        name: draw(likely[name]) for name, field in fields.items() if name in chosen or field.is_required()
    }
    if draw(st.integers(0, 3)) == 0:
        arguments[draw(st.sampled_from(sorted(fields)) | st.text(max_size=8))] = draw(JSON)
    return arguments


@pytest.fixture(scope="module")
def portal() -> Iterator[BlockingPortal]:
    with start_blocking_portal() as opened:
        yield opened


@pytest.fixture(scope="module", params=[OPERATOR, BOT], ids=["operator", "agent"])
def tools(
    portal: BlockingPortal, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Tools, Path]]:
    folder: Path = tmp_path_factory.mktemp("fuzz")
    caller: Caller = request.param
    clock = ManualClock()
    path = folder / "usage.db"
    ledger = Ledger(open_store(str(path)), PriceBook(folder / "none.toml"), clock, new_id)
    with (
        portal.wrap_async_context_manager(ledger),
        portal.wrap_async_context_manager(Meter(ledger, clock).tools(caller)) as connected,
    ):
        yield connected, path


@pytest.mark.parametrize("definition", TOOLS, ids=[definition.name for definition in TOOLS])
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_tool_answers_whatever_it_is_called_with(
    portal: BlockingPortal, tools: tuple[Tools, Path], definition: Definition, data: st.DataObject
) -> None:
    (client, path), arguments = tools, data.draw(arguments_of(definition))
    before = kept(path)
    result: CallToolResult = portal.call(client.call, definition.name, arguments)
    text = text_of(result)
    assert "unexpected" not in text
    if result.is_error:
        assert text.startswith(f"{definition.name}: ")
        assert text.isprintable()
        assert kept(path) == before
    else:
        assert result.structured_content is not None
