"""Failures: anticipated ones in words that say what to do, others in the server's log only."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread
from mcp import Client
from mcp.types import CallToolResult
from sqlite_utils.utils import sqlite3  # pyright: ignore[reportPrivateImportUsage] - the one of the store

from agent_meter_mcp.core.errors import InvalidInput, MeterError, Overloaded, Unreachable
from agent_meter_mcp.core.roles import Caller
from agent_meter_mcp.faces.errors import SHAPES, text_of
from agent_meter_mcp.faces.mcp import build_server, local_caller
from agent_meter_mcp.ledger import Ledger
from agent_meter_mcp.ledger.worker import CLOSED
from agent_meter_mcp.prices import PriceBook
from agent_meter_mcp.runtime import new_id
from agent_meter_mcp.store.sqlite import driver, open_store

from .conftest import OPERATOR, VIEWER, ManualClock, Meter
from .conftest import text_of as spoken


def all_errors(kind: type[MeterError] = MeterError) -> Iterator[type[MeterError]]:
    yield kind
    for special in kind.__subclasses__():
        yield from all_errors(special)


def test_every_failure_has_its_shape_at_every_face() -> None:
    assert {kind.code for kind in all_errors()} == set(SHAPES)
    for shape in SHAPES.values():
        assert 400 <= shape.http_status < 600
        assert 0 < shape.exit_code < 126


def test_what_passes_by_itself_has_a_status_that_says_so() -> None:
    for kind in all_errors():
        assert not kind.retryable or SHAPES[kind.code].http_status in (503, 507)


def test_the_next_step_is_said_once() -> None:
    assert text_of(InvalidInput("max", "must not be negative")) == (
        "max: must not be negative. Nothing was changed."
    )
    assert text_of(Unreachable("no answer within 5 s.")) == (
        "no answer within 5 s. Start the meter, or try again in a moment."
    )
    for error in (
        driver.meter_error(failed(sqlite3.SQLITE_BUSY), "meter.db"),
        driver.meter_error(failed(sqlite3.SQLITE_FULL), "meter.db"),
        Overloaded(CLOSED),
    ):
        assert text_of(error).lower().count("try again") == 1
        assert text_of(error).lower().count("nothing was written") == 1


def failed(code: int) -> Exception:
    """What SQLite raises."""
    error = driver.Error("it failed")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_programs_read_what_a_tools_error_is_called_beside_its_text(meter: Meter, mode: Any) -> None:
    async def told(caller: Caller, tool: str, **arguments: Any) -> Any:
        async with meter.tools(caller, mode=mode) as tools:
            return ((await tools.call(tool, arguments)).meta or {})["agent-meter/error"]

    limit = {"max": 1, "metric": "requests", "window": "day"}
    assert await told(VIEWER, "set_limit", **limit) == {"code": "forbidden"}
    assert await told(OPERATOR, "remove_limit", limit_id="x") == {"code": "not_found"}
    assert await told(OPERATOR, "set_limit", **{**limit, "window": "1w"}) == {
        "code": "invalid_input",
        "field": "window",
    }
    assert await told(OPERATOR, "set_limit", **limit, thresholds=["high"], tint=1) == {
        "code": "invalid_input",
        "field": "thresholds.0",
    }


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_what_nobody_expected_is_logged_and_not_told(
    meter: Meter, mode: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(request: object) -> Caller:
        raise RuntimeError("the password is hunter2")

    async with Client(build_server(meter.ledger, broken), mode=mode) as client:
        with caplog.at_level(logging.ERROR):
            result = await client.call_tool("list_agents", {})
    assert isinstance(result, CallToolResult)
    assert result.is_error
    assert spoken(result) == "list_agents failed unexpectedly; the server's log says why"
    assert "hunter2" in caplog.text


async def test_a_busy_store_is_an_error_that_says_to_try_again(tmp_path: Path) -> None:
    path = str(tmp_path / "usage.db")
    store = await to_thread.run_sync(lambda: open_store(path, busy_timeout_s=0.05))
    async with Ledger(store, PriceBook(tmp_path / "none.toml"), ManualClock(), new_id) as ledger:
        server = build_server(ledger, local_caller(OPERATOR, {}))
        async with Client(server) as client:
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                result = await client.call_tool("record_usage", {"service": "openai"})
                other.execute("ROLLBACK")
            assert isinstance(result, CallToolResult)
            assert result.is_error
            assert "Nothing was written" in spoken(result)
            again = await client.call_tool("record_usage", {"service": "openai"})
            assert isinstance(again, CallToolResult)
            assert not again.is_error
