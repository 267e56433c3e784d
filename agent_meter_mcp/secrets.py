"""The operator's file of secrets: with what agents sign, and what is signed in a service's name.

An HMAC needs its secret in clear, so it is a file that nobody else may read. It is looked at whenever a
secret is needed, and read again when it has changed. What is in it reaches no log and no error.

    receipt = "…"

    [agents]
    research-bot = "…"

    [services]
    my-api = "…"
"""

from __future__ import annotations

import os
import stat
import tomllib
from typing import TYPE_CHECKING, Any, cast

from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.core.models import EACH
from agent_meter_mcp.core.text import name
from agent_meter_mcp.core.value import Value

if TYPE_CHECKING:
    from collections.abc import Mapping

FIELD = "AGENT_METER_SECRETS"
FILE_BYTES_MAX = 1_048_576
SECRET_MIN = 6
"""Shorter ones are guessed."""
_TABLES = ("agents", "services")


class Secrets(Value):
    """What is in the file. `agents` sign their requests, `services` their attestations."""

    agents: Mapping[str, str]
    services: Mapping[str, str]
    receipt: str | None = None

    def __repr__(self) -> str:
        return f"Secrets({len(self.agents)} agents, {len(self.services)} services)"


NO_SECRETS = Secrets({}, {})


def _at_once(path: str, flags: int) -> int:
    """Opens a pipe without waiting for whoever writes into it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


class SecretsFile:
    """The file at `path`, which need not exist."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._seen: tuple[int, ...] | None = None
        self._secrets = NO_SECRETS

    def read(self) -> Secrets:
        """What it holds now. Blocks.

        Raises:
            InvalidInput: others can read it, or it is not what it has to be; says how to put it right.
        """
        try:
            with open(self.path, "rb", opener=_at_once) as file:
                found = os.fstat(file.fileno())
                self._check(found)
                seen = (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)
                if seen != self._seen:
                    self._secrets = self._parsed(file.read(FILE_BYTES_MAX))
                    self._seen = seen
        except FileNotFoundError:
            self._seen, self._secrets = None, NO_SECRETS
        except OSError as error:
            problem = f"cannot be read: {error.strerror}; make it a file that only you may read"
            raise self._wrong(problem) from None
        return self._secrets

    def _check(self, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            raise self._wrong("is no file")
        if os.name == "posix" and found.st_mode & 0o077:
            raise self._wrong(f"can be read by others: chmod 600 {self.path}")
        if found.st_size > FILE_BYTES_MAX:
            raise self._wrong(f"is larger than {FILE_BYTES_MAX} bytes")

    def _parsed(self, content: bytes) -> Secrets:
        try:
            # The parser's own words may quote the file.
            parts = tomllib.loads(content.decode())
        except (ValueError, RecursionError):
            raise self._wrong("is no TOML") from None
        unknown = sorted(parts.keys() - {"receipt", *_TABLES})
        if unknown:
            raise self._wrong(f"has something else than receipt, agents and services: {unknown[0]!r}")
        receipt = parts.get("receipt")
        agents, services = (self._table(parts.get(table, {}), table) for table in _TABLES)
        return Secrets(agents, services, None if receipt is None else self._secret(receipt, "receipt"))

    def _table(self, found: object, table: str) -> dict[str, str]:
        if not isinstance(found, dict):
            raise self._wrong(f'has no table of {table}: write [{table}] and lines such as name = "secret"')
        secrets = cast("dict[str, Any]", found)
        for owner in secrets:
            if owner == EACH:
                raise self._wrong(f'has "{EACH}" under {table}: each has a secret of its own')
            try:
                name(owner, table)
            except InvalidInput as error:
                raise self._wrong(f"has a name under {table} that {error.problem}") from None
        return {owner: self._secret(secret, f"{table}.{owner}") for owner, secret in secrets.items()}

    def _secret(self, value: object, place: str) -> str:
        if not isinstance(value, str) or len(value) < SECRET_MIN:
            raise self._wrong(
                f"has a secret, {place}, that is not a text of at least {SECRET_MIN} characters"
            )
        return value

    def _wrong(self, problem: str) -> InvalidInput:
        return InvalidInput(FIELD, f"{self.path} {problem}")
