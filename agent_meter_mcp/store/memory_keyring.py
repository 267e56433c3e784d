"""Keys: made, revoked, found by the digest of their token (rule 29)."""

from __future__ import annotations

from agent_meter_mcp.core.errors import Conflict, InvalidInput, NotFound
from agent_meter_mcp.core.keys import KEYS_MAX, LISTED_MAX, TOUCH_EVERY_US, Key, same

from .memory_ruling import audit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agent_meter_mcp.core.commands import CreateKey, RevokeKey, TouchKeys

    from .memory_book import Book


def create(book: Book, command: CreateKey) -> Key:
    if sum(key.revoked_at_us is None for key in book.keys.values()) >= KEYS_MAX:
        raise InvalidInput("key", f"there are {KEYS_MAX} keys already; revoke one first")
    if command.digest in book.keys or any(
        command.key_id == key.key_id or command.prefix == key.prefix for key in book.keys.values()
    ):
        raise Conflict("there is a key like this already. Make another one.")
    key = Key(
        command.key_id,
        command.prefix,
        command.role,
        command.bound_to,
        command.name,
        book.at_us,
        command.expires_at_us,
    )
    if key.role == "agent" and key.bound_to is not None:
        book.know(key.bound_to, key.created_at_us)
    book.keys[command.digest] = key
    audit(book, command.actor, "create_key", f"key {key.prefix}", None, key)
    return key


def revoke(book: Book, command: RevokeKey) -> Key:
    for digest, key in book.keys.items():
        if command.key in (key.key_id, key.prefix):
            if key.revoked_at_us is not None:
                return key
            after = book.keys[digest] = key.replace(revoked_at_us=book.at_us)
            audit(book, command.actor, "revoke_key", f"key {key.prefix}", key, after)
            return after
    raise NotFound("there is no such key. `agent-meter keys list` shows them.")


def touch(book: Book, command: TouchKeys) -> int:
    noted = 0
    for key_id, at_us in command.used:
        for digest, key in book.keys.items():
            is_due = key.last_used_us is None or key.last_used_us <= at_us - TOUCH_EVERY_US
            if key.key_id == key_id and is_due:
                book.keys[digest] = key.replace(last_used_us=at_us)
                noted += 1
    return noted


def keys(book: Book) -> list[Key]:
    newest_first = sorted(book.keys.values(), key=lambda key: -key.created_at_us)
    return sorted(newest_first, key=lambda key: key.revoked_at_us is not None)[:LISTED_MAX]


def key_of(book: Book, digest: bytes) -> Key | None:
    return next((key for known, key in book.keys.items() if same(known, digest)), None)
