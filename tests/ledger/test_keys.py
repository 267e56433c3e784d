"""Keys: made once, known by their digest, valid until they are not."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent_meter_mcp.core.commands import TouchKeys
from agent_meter_mcp.core.errors import InvalidInput, NotFound
from agent_meter_mcp.core.keys import START
from agent_meter_mcp.core.roles import Caller
from agent_meter_mcp.ledger import Ledger
from agent_meter_mcp.store.sqlite import open_store

from .conftest import NOON_US, OPERATOR, SECOND_US, AnyStore, ManualClock, ledger_on

if TYPE_CHECKING:
    from agent_meter_mcp.core.roles import Role

MINUTE_S = 60


@pytest.mark.parametrize(
    ("role", "bound_to", "name", "caller"),
    [
        ("agent", "bot", None, Caller("agent", "agent bot ({})", "bot", "bot")),
        ("service", "openai", "proxy", Caller("service", "proxy ({})", "openai")),
        ("viewer", None, "dashboard", Caller("viewer", "dashboard ({})")),
        ("operator", None, None, Caller("operator", "operator ({})")),
    ],
)
async def test_a_token_stands_for_whom_its_key_names(
    ledger: Ledger, role: Role, bound_to: str | None, name: str | None, caller: Caller
) -> None:
    async with ledger:
        assert not await ledger.has_keys()
        key, token = await ledger.create_key(OPERATOR, role, bound_to, name)
        assert re.fullmatch(r"am_[A-Za-z0-9_-]{43}", token)
        assert token.startswith(key.prefix)
        assert await ledger.has_keys()
        assert await ledger.keys(OPERATOR) == [key]
        assert await ledger.caller_of(token) == caller.replace(name=caller.name.format(key.prefix))


async def test_every_token_is_another_one(ledger: Ledger) -> None:
    async with ledger:
        tokens = {(await ledger.create_key(OPERATOR, "viewer"))[1] for _ in range(20)}
        assert len(tokens) == 20


async def test_no_key_no_caller(ledger: Ledger, clock: ManualClock) -> None:
    async with ledger:
        key, token = await ledger.create_key(OPERATOR, "viewer")
        for wrong in (
            "",
            START,
            key.prefix,
            token[:-1],
            token + "A",
            token.lower(),
            "é€\udcff",
            "x" * 100_000,
        ):
            assert await ledger.caller_of(wrong) is None
        _, brief = await ledger.create_key(OPERATOR, "viewer", expires_at_us=NOON_US + SECOND_US)
        assert await ledger.caller_of(brief) is not None
        clock.advance(1)
        assert await ledger.caller_of(brief) is None
        assert (await ledger.revoke_key(OPERATOR, key.prefix)).revoked_at_us is not None
        assert await ledger.caller_of(token) is None


@pytest.mark.parametrize(
    ("role", "bound_to", "name", "expires", "told"),
    [
        ("king", None, None, None, "role: must be one of agent, service, viewer, operator"),
        ("agent", None, None, None, "agent: is required: a key in the role agent is for one agent"),
        ("service", None, None, None, "service: is required"),
        ("viewer", "bot", None, None, "bound_to: a key in the role viewer is for no agent or service"),
        ("operator", "bot", None, None, "bound_to: a key in the role operator is for no agent or service"),
        ("agent", " bot", None, None, "agent: must not begin or end with a space"),
        ("agent", "*", None, None, 'agent: "*" means each one'),
        ("service", "*", None, None, "service: must name one service"),
        ("service", "\x1b[2J", None, None, "service: must be printable"),
        ("viewer", None, "x" * 129, None, "name: is 129 characters long"),
        ("viewer", None, None, NOON_US, "expires: must be in the future"),
        ("viewer", None, None, 2**63, "expires: must be in the future"),
    ],
)  # fmt: skip
async def test_a_key_that_cannot_be_is_refused(
    ledger: Ledger, role: Role, bound_to: str | None, name: str | None, expires: int | None, told: str
) -> None:
    async with ledger:
        with pytest.raises(InvalidInput, match=re.escape(told)):
            await ledger.create_key(OPERATOR, role, bound_to, name, expires)
        assert await ledger.keys(OPERATOR) == []
        assert await ledger.audit(OPERATOR) == []


async def test_the_last_use_is_written_once_a_minute(
    store: AnyStore, ledger: Ledger, clock: ManualClock
) -> None:
    async with ledger:
        _, token = await ledger.create_key(OPERATOR, "viewer")
        for _ in range(3):
            await ledger.caller_of(token)
        clock.advance(MINUTE_S - 1)
        await ledger.caller_of(token)
        clock.advance(1)
        await ledger.caller_of(token)
        await ledger.set_agent(OPERATOR, "bot", {"tier": "gold"})  # the writer has done what was before
        (key,) = await ledger.keys(OPERATOR)
        assert key.last_used_us == NOON_US + MINUTE_S * SECOND_US
    touches = [one for batch in store.seen.batches for one in batch if isinstance(one, TouchKeys)]
    assert len(touches) == 2


async def test_who_asks_is_known_while_nothing_can_be_written(store: AnyStore, ledger: Ledger) -> None:
    async with ledger:
        _, token = await ledger.create_key(OPERATOR, "viewer")
        store.seen.failure = RuntimeError("the disk is away")
        assert await ledger.caller_of(token) is not None
        store.seen.failure = None


async def test_what_another_process_does_to_a_key_counts_at_once(tmp_path: Path, clock: ManualClock) -> None:
    path = str(tmp_path / "meter.db")
    async with (
        ledger_on(AnyStore(open_store(path)), clock) as here,
        ledger_on(AnyStore(open_store(path)), clock) as there,
    ):
        assert not await there.has_keys()
        key, token = await here.create_key(OPERATOR, "agent", "bot")
        assert await there.has_keys()
        assert (await there.caller_of(token) or OPERATOR).bound_to == "bot"
        await here.revoke_key(OPERATOR, key.key_id)
        assert await there.caller_of(token) is None


async def test_no_log_line_and_no_error_has_the_secret(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with ledger:
        key, token = await ledger.create_key(OPERATOR, "viewer")
        secret = token.removeprefix(key.prefix)
        with pytest.raises(NotFound) as told:
            await ledger.revoke_key(OPERATOR, token)
        assert await ledger.caller_of(token) is not None
        assert secret not in repr(key) + repr(await ledger.audit(OPERATOR)) + str(told.value) + caplog.text
