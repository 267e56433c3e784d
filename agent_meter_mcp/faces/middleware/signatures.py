"""Who has signed a request, in the way of upstream's SDKs: `X-Agent-Signature` is the hex HMAC-SHA256 of the
raw body with the agent's secret.

Whoever has a secret signs: without a signature, or with a wrong one, a request of theirs does not reach the
app. The signature is of the body alone, so it says who has written that, and not when, or to which route.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, cast

from anyio import to_thread

from agent_meter_mcp.core.attest import is_signature, is_signed, receipt_of
from agent_meter_mcp.core.check import usable
from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.core.models import EACH
from agent_meter_mcp.core.text import shown
from agent_meter_mcp.faces.wire.bodies import BODY_MAX, DEADLINE_S, Gone, TooLarge, read_body, replayed
from agent_meter_mcp.secrets import NO_SECRETS, SECRET_MIN, Secrets, SecretsFile

from .answers import Refusal, not_read, not_signed, secrets_unusable
from .callers import NAME_HEADER, header

if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from .asgi import Receive
    from .callers import Scope

    Given: TypeAlias = str | os.PathLike[str] | Mapping[str, str]
    """A file of secrets, or each agent's secret; "*" stands for all who are not named."""

SIGNATURE_HEADER = b"x-agent-signature"
NAME_SHOWN = 60
_log = logging.getLogger(__name__)


class Signed(NamedTuple):
    """A request whose agent has signed it, or need not. `receive` gives its body to the app."""

    receive: Receive
    receipt: str | None = None


class Signatures:
    """Raises InvalidInput for secrets that cannot be used: when the app is made."""

    def __init__(self, given: Given) -> None:
        self._file: SecretsFile | None = None
        self._secrets = NO_SECRETS
        if isinstance(given, Mapping):
            self._secrets = Secrets(_checked(given), {})
        else:
            self._file = SecretsFile(os.path.expanduser(os.fspath(given)))
            self._read(self._file)

    async def check(self, agent: str, scope: Scope, receive: Receive) -> Signed | Refusal | None:
        """None: its client has left before that could be told."""
        try:
            secrets = (
                self._secrets if self._file is None else await to_thread.run_sync(self._read, self._file)
            )
        except InvalidInput as error:
            _log.error("the file of secrets cannot be used: %s", shown(error.problem))
            return secrets_unusable()
        secret = secrets.agents.get(agent) or secrets.agents.get(EACH)
        if secret is None:
            return Signed(receive)
        signature = header(scope, SIGNATURE_HEADER) or ""
        body = await _body(scope, receive) if is_signature(signature) else b""
        if not isinstance(body, bytes):
            return body
        if not is_signed(secret, body, signature):
            how = "wrongly signed" if signature else "unsigned"
            _log.warning("refused a request, %s, of agent %s", how, shown(agent, width=NAME_SHOWN))
            return not_signed(how)
        receipt = None if secrets.receipt is None else receipt_of(secrets.receipt, signature)
        return Signed(receive if scope["type"] == "websocket" else replayed(body, receive), receipt)

    def _read(self, file: SecretsFile) -> Secrets:
        """Raises InvalidInput. A file that is not there lets nobody in: it was named."""
        secrets = file.read()
        if secrets is NO_SECRETS:
            raise InvalidInput(
                "secrets", f"{file.path} is not there: write [agents] and their secrets into it"
            )
        return secrets


def told_in(scope: Scope) -> dict[str, Any] | None:
    """The metadata of a signed request, as `wire.upstream` keeps it: `reconcile` finds both sides by that."""
    signature = header(scope, SIGNATURE_HEADER)
    if signature is None or not is_signature(signature):
        return None
    name = usable(header(scope, NAME_HEADER))
    return {"upstream": {"requestSignature": signature, **({"name": name} if name else {})}}


def _checked(given: Mapping[str, str]) -> dict[str, str]:
    for agent, secret in cast("Mapping[str, object]", given).items():
        if not isinstance(secret, str) or len(secret) < SECRET_MIN:
            raise InvalidInput(
                "secrets", f"has none for {agent!r} that is a text of at least {SECRET_MIN} characters"
            )
    return dict(given)


async def _body(scope: Scope, receive: Receive) -> bytes | Refusal | None:
    """All of it; None: its client has left."""
    if scope["type"] == "websocket":
        return b""
    try:
        async with asyncio.timeout(DEADLINE_S):
            return await read_body(receive, BODY_MAX)
    except TooLarge:
        return not_read(
            413, "Content too large", f"a signed body may have {BODY_MAX:,} bytes", "body_too_large"
        )
    except TimeoutError:
        detail = f"the body did not arrive within {DEADLINE_S:g} seconds"
        return not_read(408, "Request timeout", detail, "body_too_slow")
    except Gone:
        return None
