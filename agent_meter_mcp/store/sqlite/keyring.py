"""Keys: made, revoked, found by the digest of their token (rule 29)."""

from __future__ import annotations

from agent_meter_mcp.core.commands import CreateKey, RevokeKey, TouchKeys
from agent_meter_mcp.core.errors import Conflict, InvalidInput, NotFound
from agent_meter_mcp.core.keys import KEYS_MAX, LISTED_MAX, TOUCH_EVERY_US, Key, same

from .configuring import audit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .driver import Connection
    from .writer import Writer

_COLUMNS = "key_id, prefix, role, bound_to, name, created, expires, revoked, last_used"
_NO_DIGEST = bytes(32)


def create(writer: Writer, command: CreateKey) -> Key:
    """Raises InvalidInput when there are too many, Conflict when the prefix or the token is taken."""
    execute = writer.connection.execute
    (in_force,) = execute("SELECT count(*) FROM key WHERE revoked IS NULL").fetchone()
    if in_force >= KEYS_MAX:
        raise InvalidInput("key", f"there are {KEYS_MAX} keys already; revoke one first")
    taken = "SELECT 1 FROM key WHERE key_id = ? OR prefix = ? OR digest = ?"
    if execute(taken, (command.key_id, command.prefix, command.digest)).fetchone() is not None:
        raise Conflict("there is a key like this already. Make another one.")
    key = Key(
        command.key_id,
        command.prefix,
        command.role,
        command.bound_to,
        command.name,
        writer.at_us,
        command.expires_at_us,
    )
    if key.role == "agent" and key.bound_to is not None:
        writer.names.know_agent(key.bound_to, key.created_at_us)
    audit(writer, command.actor, "create_key", f"key {key.prefix}", None, key)
    execute(
        f"INSERT INTO key (digest, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (command.digest, *key.as_dict().values()),
    )
    return key


def revoke(writer: Writer, command: RevokeKey) -> Key:
    """Raises NotFound."""
    execute = writer.connection.execute
    row = execute(f"SELECT {_COLUMNS} FROM key WHERE key_id = ? OR prefix = ?1", (command.key,)).fetchone()
    if row is None:  # what was asked for is not repeated: it could be a token
        raise NotFound("there is no such key. `agent-meter keys list` shows them.")
    before = Key(*row)
    if before.revoked_at_us is not None:
        return before
    after = before.replace(revoked_at_us=writer.at_us)
    audit(writer, command.actor, "revoke_key", f"key {after.prefix}", before, after)
    execute("UPDATE key SET revoked = ? WHERE key_id = ?", (after.revoked_at_us, after.key_id))
    return after


def touch(writer: Writer, command: TouchKeys) -> int:
    """Answers how many were noted as used."""
    noted = 0
    for key_id, at_us in command.used:
        noted += writer.connection.execute(
            "UPDATE key SET last_used = ? WHERE key_id = ? AND (last_used IS NULL OR last_used <= ?)",
            (at_us, key_id, at_us - TOUCH_EVERY_US),
        ).rowcount
    return noted


def keys(connection: Connection) -> list[Key]:
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM key ORDER BY revoked IS NOT NULL, created DESC LIMIT ?", (LISTED_MAX,)
    )
    return [Key(*row) for row in rows]


def key_of(connection: Connection, digest: bytes) -> Key | None:
    """One look at the index and one comparison, whatever the token is."""
    row = connection.execute(f"SELECT digest, {_COLUMNS} FROM key WHERE digest = ?", (digest,)).fetchone()
    found, *fields = row or (_NO_DIGEST,)
    return Key(*fields) if same(found, digest) and fields else None


def has_keys(connection: Connection) -> bool:
    (found,) = connection.execute("SELECT EXISTS (SELECT 1 FROM key)").fetchone()
    return bool(found)


HANDLERS: dict[type, Callable[[Writer, Any], Key | int]] = {
    CreateKey: create,
    RevokeKey: revoke,
    TouchKeys: touch,
}
