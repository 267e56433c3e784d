"""What a program says to its meter, and what it hears: the same from a file and from a URL."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import anyio
import pytest

from agent_meter_mcp.client import Meter, OverBudget, SyncMeter, fields, results
from agent_meter_mcp.core.errors import Conflict, InvalidInput, NotFound, Overloaded
from agent_meter_mcp.faces.wire import arguments as take
from agent_meter_mcp.faces.wire import results as give
from agent_meter_mcp.settings import Settings

from .conftest import OPERATOR, ROOT, SECONDS, events, holds, ledger_of, limit


@pytest.mark.parametrize(
    ("said", "tool"),
    [
        (fields.RecordFields, take.RecordUsage),
        (fields.CheckFields, take.CheckBudget),
        (fields.ReserveFields, take.ReserveBudget),
    ],
)
def test_keywords_are_the_arguments_of_the_tools(said: Any, tool: Any) -> None:
    assert said.__required_keys__ | said.__optional_keys__ == set(tool.model_fields)


def test_keywords_of_settle_are_those_of_the_tool_without_the_hold() -> None:
    said = fields.SettleFields.__required_keys__ | fields.SettleFields.__optional_keys__
    assert said == set(take.SettleReservation.model_fields) - {"reservation_id", "action", "ttl"}


@pytest.mark.parametrize(
    ("heard", "told"),
    [
        (results.LimitState, give.LimitState),
        (results.Reason, give.Reason),
        (results.Holder, give.Holder),
        (results.Decided, give.Decided),
        (results.BudgetReserved, give.BudgetReserved),
        (results.UsageRecorded, give.UsageRecorded),
        (results.ReservationSettled, give.ReservationSettled),
    ],
)
def test_results_have_the_fields_of_the_tools_results(heard: Any, told: Any) -> None:
    assert set(heard.fields) == set(told.model_fields)


async def test_everything_that_is_said_of_usage_arrives(meter: Meter, settings: Settings) -> None:
    at = datetime(2026, 1, 31, 18, tzinfo=UTC)
    recorded = await meter.record(
        service="openai",
        agent="bot",
        session="s-1",
        project="p-1",
        requests=2,
        units=Decimal("1.5"),
        unit_type="pages",
        input_tokens=1000,
        output_tokens=200,
        cache_read_tokens=3,
        cache_write_tokens=4,
        cache_write_1h_tokens=5,
        model="gpt-5",
        cost_usd=0.1,
        operation="chat",
        id="call-1",
        occurred_at=at,
        status_code=200,
        duration_ms=12,
        metadata={"trace": "t", "deep": {"n": 1.5}},
        source="sdk",
    )
    assert (recorded.id, recorded.status, recorded.outcome) == ("call-1", "recorded", "accepted")
    assert (recorded.cost_usd, recorded.cost_source) == (0.1, "reported")
    (stored,) = await events(settings)
    event, usage = stored.event, stored.event.usage
    assert (event.who.agent, event.who.session, event.who.project) == ("bot", "s-1", "p-1")
    assert (usage.requests, usage.units_micro, usage.unit_type) == (2, 1_500_000, "pages")
    assert (usage.tokens, usage.model, usage.cost_nano_usd) == (1212, "gpt-5", 100_000_000)
    assert (event.operation, event.source, event.status_code, event.duration_ms) == ("chat", "sdk", 200, 12)
    assert event.occurred_at_us == int(at.timestamp()) * 1_000_000
    assert event.metadata == '{"deep":{"n":1.5},"trace":"t"}'


async def test_the_same_id_counts_once_and_other_content_is_a_conflict(
    meter: Meter, settings: Settings
) -> None:
    same: Any = {"service": "s", "agent": "bot", "id": "1"}
    assert (await meter.record(**same, units=1)).status == "recorded"
    assert (await meter.record(**same, units=1)).status == "duplicate"
    assert (await meter.record(**same, units=2)).status == "corrected"
    with pytest.raises(Conflict):
        await meter.record(**same, units=2, operation="other")
    assert len(await events(settings)) == 1


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("agent", "a\nb"),
        ("agent", ""),
        ("agent", 5),
        ("service", ""),
        ("service", b"s"),
        ("cost_usd", "much"),
        ("units", -1),
        ("input_tokens", 1.5),
        ("cache_write_1h_tokens", "7"),
        ("requests", True),
        ("metadata", {"x": float("nan")}),
        ("metadata", {"x": "y" * 9000}),
        ("occurred_at", "yesterday"),
        ("occurred_at", "2026-01-31T18:00:00"),
        ("occurred_at", "2999-01-31T18:00:00Z"),
        ("occurred_at", 1_769_882_400),
        ("source", "me"),
        ("operation", "\x1b[31m"),
        ("duration_ms", 12.7),
        ("status_code", "200"),
        ("status_code", True),
        ("id", 7),
        ("model", 5),
        ("unit_type", b"page"),
        ("operation", b"search"),
        ("source", 1),
        ("session", 5),
    ],
)
async def test_bad_input_is_named_and_nothing_is_recorded(
    field: str, wrong: object, settings: Settings
) -> None:
    said: Any = {"service": "s", "agent": "bot", field: wrong}
    async with Meter(url="http://127.0.0.1:9", spool=settings.db + "-spool") as remote:
        with pytest.raises(InvalidInput) as caught:
            await remote.record(**said)
    assert caught.value.field == field
    assert not remote.counters
    async with Meter() as local:
        with pytest.raises(InvalidInput) as caught:
            await local.record(**said)
    assert caught.value.field == field
    assert await events(settings) == []


async def test_what_is_no_amount_is_named_before_it_is_settled(meter: Meter, settings: Settings) -> None:
    wrong: Any = {"duration_ms": 12.7}
    async with meter.reserve(service="s", agent="bot") as hold:
        with pytest.raises(InvalidInput, match="duration_ms: must be a whole number"):
            await hold.settle(**wrong)
    assert [one.event.duration_ms for one in await events(settings)] == [None]


async def test_an_unknown_keyword_is_an_error_that_names_it(meter: Meter) -> None:
    wrong: Any = {"tokens": 5}
    with pytest.raises(TypeError, match=r"'tokens'.*input_tokens"):
        await meter.record(service="s", agent="bot", **wrong)
    with pytest.raises(TypeError, match="'tokens'"):
        meter.reserve(service="s", agent="bot", **wrong)


async def test_a_local_meter_is_for_somebody(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Meter() as meter:
        with pytest.raises(InvalidInput, match="agent: is required"):
            await meter.record(service="s")
    monkeypatch.setenv("AGENT_METER_AGENT", "bound")
    async with Meter() as meter:
        await meter.record(service="s")
    assert [stored.event.who.agent for stored in await events(settings)] == ["bound"]


@pytest.mark.parametrize("url", [None, "http://127.0.0.1:9"])
async def test_a_meter_that_is_not_open_says_so(tmp_path: Any, url: str | None) -> None:
    place: dict[str, Any] = {"db": tmp_path / "x.db"} if url is None else {"url": url, "spool": tmp_path}
    with pytest.raises(Overloaded, match="not open: use it inside `async with"):
        await Meter(**place).record(agent="bot", service="s")


async def test_another_event_loop_is_told_at_once_that_the_meter_is_not_its_own(
    place: dict[str, Any], settings: Settings
) -> None:
    """Who recorded there at a URL waited for ever; at a file it was recorded, and an error was raised."""

    def elsewhere(work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        with pytest.raises(RuntimeError, match="opened in another event loop: open one in each"):
            asyncio.run(asyncio.wait_for(work(), SECONDS))

    async with Meter(**place) as meter:
        hold = await meter.reserve(service="s", agent="bot").ask()
        for work in (
            lambda: meter.record(service="s", agent="bot"),
            lambda: meter.check(service="s", agent="bot"),
            lambda: meter.reserve(service="s", agent="bot").ask(),
            hold.settle,
        ):
            await asyncio.to_thread(elsewhere, work)
        await hold.release()
    assert await events(settings) == []
    async with Meter(**place) as meter:
        pass
    async with meter:  # and again, in whichever
        await meter.record(service="s", agent="bot")


def test_a_meter_is_at_one_place(tmp_path: Any) -> None:
    with pytest.raises(InvalidInput, match="url"):
        Meter(url="http://x", db=tmp_path / "x.db")
    with pytest.raises(InvalidInput, match="key"):
        Meter(key="am_1")
    with pytest.raises(InvalidInput, match="url"):
        Meter(url="localhost:8787")
    wrong: Any = "ignore"
    with pytest.raises(InvalidInput, match="on_error"):
        Meter(on_error=wrong)


@pytest.mark.parametrize("url", ["http://[::1", "http://", "https:///usage"])
def test_a_url_that_is_none_is_named_when_the_meter_is_made(url: str) -> None:
    with pytest.raises(InvalidInput, match=r"^url: "):
        Meter(url=url)


@pytest.mark.parametrize("key", ["", " ", "am_se cret", "am_secret\nx", "am_sécret"])
def test_a_key_that_is_none_is_named_and_not_repeated(key: str) -> None:
    with pytest.raises(InvalidInput, match=r"^key: ") as told:
        Meter(url="http://127.0.0.1:9", key=key)
    assert "cret" not in str(told.value)


async def test_a_key_may_come_from_a_file_with_a_line_break(url: str, tmp_path: Any) -> None:
    async with Meter(url=url, key="am_1\n", spool=tmp_path) as meter:
        assert (await meter.record(service="s", agent="bot")).status == "recorded"


async def test_a_check_says_what_is_left_and_holds_nothing(meter: Meter, settings: Settings) -> None:
    await limit(settings, 10)
    await meter.record(service="s", agent="bot", requests=4)
    decided = await meter.check(service="s", agent="bot", requests=3)
    assert decided.allowed
    assert decided.affordable == {"requests": 6}
    (state,) = decided.limits
    assert (state.used, state.held, state.max, state.metric, state.window) == (4, 0, 10, "requests", "1h")
    refused = await meter.check(service="s", agent="bot", requests=7)
    assert not refused.allowed
    assert refused.reasons[0].code == "limit"
    assert refused.retry_after_s is not None
    assert "4 of 10 requests used" in refused.message


async def test_a_hold_settles_what_was_used(meter: Meter, settings: Settings) -> None:
    async with meter.reserve(service="s", agent="bot", units=9, model="gpt-5") as hold:
        assert hold.allowed
        assert hold.decision.status == "reserved"
        assert hold.decision.expires_at is not None
        assert await holds(settings) == 1
        hold.used(units=1, output_tokens=10)
        hold.used(units="0.5", cost_usd=0.25)
    (stored,) = await events(settings)
    usage = stored.event.usage
    assert (usage.requests, usage.units_micro, usage.output_tokens) == (1, 1_500_000, 10)
    assert (usage.cost_nano_usd, usage.model) == (250_000_000, "gpt-5")
    assert await holds(settings) == 0


async def test_a_block_that_raises_settles_what_was_used_until_then(meter: Meter, settings: Settings) -> None:
    with pytest.raises(ZeroDivisionError):
        async with meter.reserve(service="s", agent="bot", units=9) as hold:
            hold.used(units=2)
            _ = 1 / 0
    (stored,) = await events(settings)
    assert stored.event.usage.units_micro == 2_000_000
    assert await holds(settings) == 0


async def test_a_block_that_raises_before_anything_was_used_gives_it_back(
    meter: Meter, settings: Settings
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with meter.reserve(service="s", agent="bot", units=9):
            _ = 1 / 0
    assert await events(settings) == []
    assert await holds(settings) == 0


async def test_a_block_that_says_nothing_used_what_was_estimated(meter: Meter, settings: Settings) -> None:
    async with meter.reserve(service="s", agent="bot", units=9, requests=3):
        pass
    (stored,) = await events(settings)
    assert (stored.event.usage.units_micro, stored.event.usage.requests) == (9_000_000, 3)


async def test_an_amount_that_is_none_is_not_said(meter: Meter, settings: Settings) -> None:
    async with meter.reserve(service="s", agent="bot", units=9, requests=3) as hold:
        await hold.settle(cost_usd=None)
    (stored,) = await events(settings)
    assert (stored.event.usage.units_micro, stored.event.usage.requests) == (9_000_000, 3)


async def test_a_block_that_is_cancelled_settles_all_the_same(meter: Meter, settings: Settings) -> None:
    with anyio.CancelScope() as scope:
        async with meter.reserve(service="s", agent="bot", units=9) as hold:
            hold.used(units=2)
            scope.cancel()
            await anyio.sleep_forever()
    (stored,) = await events(settings)
    assert stored.event.usage.units_micro == 2_000_000


@pytest.mark.parametrize("raised", [False, True], ids=["settled", "released"])
async def test_who_is_cancelled_on_leaving_a_block_has_ended_the_hold(
    raised: bool, place: dict[str, Any], settings: Settings
) -> None:
    """As by a timeout around it: no shield of anyio's keeps that out, and what was used was forgotten."""
    async with Meter(**place) as meter:
        hold = await meter.reserve(service="s", agent="bot", units=9).ask()
        if not raised:
            hold.used(units=2)
        error = ValueError() if raised else None
        leaving = asyncio.create_task(hold.__aexit__(error and ValueError, error, None))
        await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
    assert [one.event.usage.units_micro for one in await events(settings)] == [2_000_000] * (not raised)
    assert await holds(settings) == 0


async def test_a_hold_can_be_ended_by_hand_once(meter: Meter, settings: Settings) -> None:
    async with meter.reserve(service="s", agent="bot") as hold:
        extended = await hold.extend("10m")
        assert extended.status == "open"
        settled = await hold.settle(units=3, status_code=201, duration_ms=7, metadata={"a": 1})
        assert (settled.status, settled.outcome, settled.late) == ("recorded", "accepted", False)
        with pytest.raises(RuntimeError, match="ended"):
            await hold.release()
    (stored,) = await events(settings)
    assert (stored.event.status_code, stored.event.duration_ms) == (201, 7)
    assert stored.event.metadata == '{"a":1}'


async def test_a_denial_raises_and_explains_itself(meter: Meter, settings: Settings) -> None:
    await limit(settings, 1)
    await meter.record(service="s", agent="bot")
    with pytest.raises(OverBudget, match="1 of 1 request used") as caught:
        async with meter.reserve(service="s", agent="bot"):
            pytest.fail("it was admitted")
    assert caught.value.decision.reasons[0].code == "limit"
    assert 3000 < (caught.value.retry_after_s or 0) <= 3660
    async with meter.reserve(service="s", agent="bot", raise_on_denial=False) as hold:
        assert not hold.allowed
        assert hold.decision.status == "denied"
        assert hold.reservation_id is None
        with pytest.raises(RuntimeError, match="denied"):
            await hold.settle()
    assert len(await events(settings)) == 1


async def test_a_kill_switch_stops_holds_and_never_records(meter: Meter, settings: Settings) -> None:
    async with ledger_of(settings) as ledger:
        await ledger.set_switch(OPERATOR, "agent", "bot", True, "it ran wild")
    with pytest.raises(OverBudget, match="it ran wild") as caught:
        async with meter.reserve(service="s", agent="bot"):
            pytest.fail("it was admitted")
    assert caught.value.decision.reasons[0].code == "kill_switch"
    assert caught.value.retry_after_s is None
    assert (await meter.record(service="s", agent="bot")).status == "recorded"


async def test_over_a_limit_is_recorded_and_said(meter: Meter, settings: Settings) -> None:
    await limit(settings, 1)
    assert (await meter.record(service="s", agent="bot", requests=5)).outcome == "over_limit"
    assert len(await events(settings)) == 1


async def test_a_hold_that_nobody_knows_is_not_found(meter: Meter) -> None:
    with pytest.raises(NotFound):
        await meter._place.release("nobody's hold")  # pyright: ignore[reportPrivateUsage]  no hold has such an id


def test_a_program_without_an_event_loop_has_the_same_meter(
    place: dict[str, Any], settings: Settings
) -> None:
    with SyncMeter(**place) as meter:
        assert meter.record(service="s", agent="bot", units=1).status == "recorded"
        assert meter.check(service="s", agent="bot").allowed
        with meter.reserve(service="s", agent="bot", units=5) as hold:
            hold.used(units=2)
        with pytest.raises(ZeroDivisionError), meter.reserve(service="s", agent="bot", units=5) as hold:
            assert hold.reservation_id is not None
            hold.extend("2m")
            _ = 1 / 0
        with meter.reserve(service="s", agent="bot", units=5) as hold:
            assert hold.settle(units=3).status == "recorded"
    used = [stored.event.usage.units_micro for stored in anyio.run(events, settings)]
    assert used == [1_000_000, 2_000_000, 3_000_000]
    with pytest.raises(RuntimeError, match="not open"):
        meter.record(service="s", agent="bot")


@pytest.mark.parametrize("source", ["sdk", "middleware", "proxy"])
async def test_what_was_held_has_the_source_of_its_meter(
    place: dict[str, Any], settings: Settings, source: Any
) -> None:
    async with Meter(**place, source=source) as meter:
        async with meter.reserve(service="s", agent="bot"):
            pass
        await meter.record(service="s", agent="bot")
    assert [stored.event.source for stored in await events(settings)] == [source, source]


async def test_what_comes_over_http_was_measured_by_an_sdk(url: str, settings: Settings) -> None:
    async with Meter(url=url) as meter:
        async with meter.reserve(service="s", agent="bot"):
            pass
        await meter.record(service="s", agent="bot")
    assert [stored.event.source for stored in await events(settings)] == ["sdk", "sdk"]


async def test_the_same_id_by_two_ways_is_the_same_usage(url: str, settings: Settings) -> None:
    """Neither says who measured it, and either has another word for that."""
    asked: Any = {"service": "s", "agent": "bot"}
    async with Meter(url=url) as remote, Meter() as local:
        assert (await remote.record(**asked, id="1")).status == "recorded"
        assert (await local.record(**asked, id="1")).status == "duplicate"
        assert (await local.record(**asked, id="2")).status == "recorded"
        assert (await remote.record(**asked, id="2", requests=3)).status == "corrected"
        hold = await local.reserve(**asked, id="3").ask()
        assert (await remote.reserve(**asked, id="3").ask()).reservation_id == hold.reservation_id
        with pytest.raises(Conflict, match="source"):
            await remote.record(**asked, id="1", source="self")
    assert [stored.event.source for stored in await events(settings)] == ["sdk", "self"]


RUN_OUT = """
import os, resource, sys
from agent_meter_mcp import SyncMeter
meter = SyncMeter(db=sys.argv[1])
free = os.open(os.devnull, os.O_RDONLY)
os.close(free)
resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
try:
    meter.__enter__()
except OSError as error:
    print(error.strerror)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
def test_who_has_run_out_of_files_is_told_so_and_does_not_wait(settings: Settings) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", RUN_OUT, settings.db],
        capture_output=True, text=True, cwd=ROOT, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout) == (0, "Too many open files\n")
