"""What every store does with keys (rule 29 of docs/semantics.md)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent_meter_mcp.core.commands import TouchKeys
from agent_meter_mcp.core.errors import Conflict, InvalidInput, NotFound
from agent_meter_mcp.core.keys import KEYS_MAX, TOUCH_EVERY_US, Key, digest_of
from agent_meter_mcp.store import memory_keyring
from agent_meter_mcp.store.sqlite import driver, keyring, open_store

from .building import T0, Desk, at, us

ONE, TWO = "am_one-one-one-secret", "am_two-two-two-secret"


def test_a_key_is_found_by_the_digest_of_its_token(desk: Desk) -> None:
    assert not desk.store.has_keys()
    one = desk.key(ONE, "agent", "ann", id="k1", name="Ann's", expires=60)
    assert one == Key("k1", "am_one-one-", "agent", "ann", "Ann's", T0, at(60))
    assert desk.store.has_keys()
    assert desk.store.key_of(digest_of(ONE)) == one
    for other in (TWO, ONE[:-1], ONE + "x", "", one.prefix):
        assert desk.store.key_of(digest_of(other)) is None


def test_an_agent_comes_into_being_with_its_key(desk: Desk) -> None:
    desk.key(ONE, "agent", "ann", id="k1")
    desk.key(TWO, "service", "llm", id="k2")
    assert desk.store.names("agent", "") == ["ann"]
    (ann,) = desk.agents()
    assert (ann.agent.agent_id, ann.first_seen_us, ann.status) == ("ann", T0, "idle")


def test_a_key_is_valid_until_it_expires_or_is_revoked(desk: Desk) -> None:
    key = desk.key(ONE, expires=60)
    assert key.is_valid(at(60) - 1)
    assert not key.is_valid(at(60))
    desk.now = 10
    revoked = desk.revoke(key.key_id)
    assert revoked == key.replace(revoked_at_us=at(10))
    assert not revoked.is_valid(at(10))
    assert desk.store.key_of(digest_of(ONE)) == revoked
    assert desk.store.has_keys(), "a ledger whose keys were all revoked is not open to everybody again"


def test_a_key_is_revoked_by_its_prefix_too_and_once(desk: Desk) -> None:
    desk.key(ONE)
    two = desk.key(TWO)
    desk.now = 1
    revoked = desk.revoke(two.prefix)
    desk.now = 2
    assert desk.revoke(two.key_id) == revoked
    assert desk.actions() == ["create_key", "create_key", "revoke_key"]
    for unknown in ("am_nobody-", "am_one", ONE):
        with pytest.raises(NotFound) as told:
            desk.revoke(unknown)
        assert unknown not in str(told.value)


def test_those_in_force_are_listed_first_and_the_newest_of_them(desk: Desk) -> None:
    for number in range(4):
        desk.now = number
        desk.key(f"am_{number:08}", id=f"k{number}")
    desk.revoke("k1")
    desk.revoke("k2")
    assert [key.key_id for key in desk.store.keys()] == ["k3", "k0", "k2", "k1"]


def test_the_last_use_is_noted_once_a_minute(desk: Desk) -> None:
    def noted(at_us: int) -> int:
        return desk.do(TouchKeys((("k1", at_us), ("gone", at_us))), int)

    desk.key(ONE, id="k1")
    assert noted(at(1)) == 1
    assert noted(at(1) + TOUCH_EVERY_US - 1) == 0
    assert noted(at(0)) == 0
    assert desk.store.keys()[0].last_used_us == at(1)
    assert noted(at(1) + TOUCH_EVERY_US) == 1
    assert desk.store.keys()[0].last_used_us == at(61)
    assert desk.actions() == ["create_key"]


def test_the_audit_log_has_no_secret_and_no_hash(desk: Desk) -> None:
    key = desk.key(ONE, "service", "llm", id="k1", name="n")
    desk.revoke("k1")
    revoked, made = desk.store.audit()
    assert (made.actor, made.action, made.target, made.before) == (
        "op",
        "create_key",
        f"key {key.prefix}",
        None,
    )
    assert json.loads(made.after or "") == key.as_dict()
    assert (revoked.action, revoked.target, revoked.before) == ("revoke_key", made.target, made.after)
    assert json.loads(revoked.after or "") == {**key.as_dict(), "revoked_at_us": T0 + 1}
    for entry in (revoked, made):
        assert "secret" not in repr(entry)
        assert digest_of(ONE).hex() not in repr(entry)
        assert repr(digest_of(ONE)) not in repr(entry)


def test_a_key_like_another_one_is_not_made(desk: Desk) -> None:
    desk.key(ONE, id="k1")
    same_id, same_prefix, good = desk.apply(
        desk.keying(TWO, id="k1"), desk.keying(ONE + "x"), desk.keying(TWO, id="k2")
    )
    assert isinstance(same_id, Conflict)
    assert isinstance(same_prefix, Conflict)
    assert isinstance(good, Key)
    assert [key.key_id for key in desk.store.keys()] == ["k2", "k1"]


def test_there_can_be_so_many_keys_in_force(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    assert KEYS_MAX == 1000
    for module in (memory_keyring, keyring):  # 1000 would take long
        monkeypatch.setattr(module, "KEYS_MAX", 2)
    desk.key(ONE, id="k1")
    desk.key(TWO)
    with pytest.raises(InvalidInput, match=r"^key: there are 2 keys already; revoke one first$"):
        desk.key("am_three-three")
    desk.revoke("k1")
    desk.key("am_three-three")


def test_a_revocation_holds_in_every_process_at_once(tmp_path: Path) -> None:
    path = str(tmp_path / "ledger.db")
    here, there = Desk(open_store(path)), open_store(path)
    key = here.key(ONE)
    assert there.key_of(digest_of(ONE)) == key
    here.revoke(key.key_id)
    seen = there.key_of(digest_of(ONE))
    assert seen is not None
    assert not seen.is_valid(T0 + us(1))
    here.store.close()
    there.close()


def test_every_token_costs_the_same_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So how long the answer takes does not tell how close a guess was."""
    compared: list[tuple[int, int]] = []
    original = keyring.same

    def same(digest: bytes, other: bytes) -> bool:
        compared.append((len(digest), len(other)))
        return original(digest, other)

    monkeypatch.setattr(keyring, "same", same)
    path = str(tmp_path / "ledger.db")
    desk = Desk(open_store(path))
    for token in (ONE, TWO):
        desk.key(token)
    desk.revoke("key-2")
    desk.store.close()
    connection = driver.connect(path, synchronous="FULL", busy_timeout_s=1)
    steps: dict[str, tuple[int, list[tuple[int, int]]]] = {}
    for token in (ONE, TWO, ONE[:-1] + "x", "nonsense"):
        statements: list[str] = []
        compared.clear()
        connection.set_trace_callback(statements.append)
        keyring.key_of(connection, digest_of(token))
        connection.set_trace_callback(None)
        steps[token] = len(statements), compared.copy()
    connection.close()
    assert list(steps.values()) == [(1, [(32, 32)])] * 4
