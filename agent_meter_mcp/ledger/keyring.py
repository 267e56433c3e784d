"""Who is let in over HTTP: keys, made and revoked by operators, and whom each of them stands for."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from agent_meter_mcp.core.commands import CreateKey, TouchKeys
from agent_meter_mcp.core.keys import ENTROPY_BYTES, KEYS_MAX, TOUCH_EVERY_US, Key, digest_of, new_token
from agent_meter_mcp.core.roles import allow

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent_meter_mcp.core.roles import Caller, Role
    from agent_meter_mcp.intake import Intake
    from agent_meter_mcp.store.base import Store

    from .engine import Engine


class Keyring:
    """The part of a ledger that is about keys."""

    def __init__(
        self,
        store: Store,
        engine: Engine,
        intake: Intake,
        clock: Callable[[], int],
        entropy: Callable[[int], bytes],
    ) -> None:
        self._store = store
        self._engine = engine
        self._intake = intake
        self._clock = clock
        self._entropy = entropy
        self._touched_us: dict[str, int] = {}
        """When the last use of a key was handed to the writer."""

    async def create_key(
        self,
        caller: Caller,
        role: Role,
        bound_to: str | None = None,
        name: str | None = None,
        expires_at_us: int | None = None,
    ) -> tuple[Key, str]:
        """A new key and its token, which nobody can be told again. `bound_to` is its agent or service."""
        token = new_token(self._entropy(ENTROPY_BYTES))

        def make(now_us: int) -> CreateKey:
            return self._intake.create_key(caller, role, bound_to, name, expires_at_us, token, now_us)

        return await self._engine.write(make, Key), token

    async def revoke_key(self, caller: Caller, key: str) -> Key:
        """`key` is its id or its prefix. From then on it lets nobody in, anywhere. Raises NotFound."""
        return await self._engine.write(lambda _: self._intake.revoke_key(caller, key), Key)

    async def keys(self, caller: Caller) -> list[Key]:
        """Those that are not revoked, then the others, each newest first. For operators."""
        allow(caller, "control")
        return await self._engine.read_long(self._store.keys)

    async def caller_of(self, token: str) -> Caller | None:
        """Whom a token stands for now. None: nobody, whatever the reason."""
        key = await self._engine.read(partial(self._store.key_of, digest_of(token)))
        now_us = self._clock()
        if key is None or not key.is_valid(now_us):
            return None
        self._touch(key, now_us)
        return key.caller

    async def has_keys(self) -> bool:
        """Whether a key was ever made. Where all are revoked, nobody is let in without one all the same."""
        return await self._engine.read(self._store.has_keys)

    def _touch(self, key: Key, now_us: int) -> None:
        last_us = max(key.last_used_us or 0, self._touched_us.get(key.key_id, 0))
        if now_us - last_us >= TOUCH_EVERY_US:
            if len(self._touched_us) > KEYS_MAX:
                self._touched_us.clear()
            self._touched_us[key.key_id] = now_us
            self._engine.write_unawaited(lambda _: TouchKeys(((key.key_id, now_us),)))
