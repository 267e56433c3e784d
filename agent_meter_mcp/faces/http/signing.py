"""Who has signed a request, and what only a signature allows.

An agent signs the raw body with its secret (`X-Agent-Signature`, beside `X-Agent-Id`). Where the operator
has configured that secret, the routes for batches, sessions and telemetry take no usage of that agent without
it; MCP and reservations know no signatures. A service's own key is the exception: it vouches for what the
service has measured, and names the signature of the request that the agent made there.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from anyio import to_thread

from agent_meter_mcp.core.attest import is_signature, is_signed, receipt_of
from agent_meter_mcp.core.errors import Forbidden, InvalidInput
from agent_meter_mcp.core.text import shown
from agent_meter_mcp.faces.wire.problems import Refused, problem
from agent_meter_mcp.faces.wire.upstream import signature_in
from agent_meter_mcp.secrets import NO_SECRETS, Secrets, SecretsFile

from .asking import header_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

    from agent_meter_mcp.core.roles import Caller
    from agent_meter_mcp.intake import Report

_AGENT, SIGNED, RECEIPT = "x-agent-id", "x-agent-signature", "X-Usage-Receipt"
NAME_SHOWN = 60
_log = logging.getLogger(__name__)


class Signing(NamedTuple):
    """What is known of a request's signature. `agent` is who has signed it, None: nobody whose secret we
    have."""

    secrets: Secrets = NO_SECRETS
    agent: str | None = None
    signature: str = ""

    def check(self, caller: Caller, report: Report) -> None:
        """Raises Forbidden, InvalidInput when the record is not signed as it has to be."""
        agent = report.who.agent
        if self.agent is not None and report.id is None:
            raise InvalidInput("id", "is required in a signed request: a replay is found by it")
        if agent == self.agent or agent not in self.secrets.agents:
            return
        if caller.role == "service" and is_signature(signature_in(report) or ""):
            return
        _log.warning("refused unsigned usage of agent %s", shown(agent, width=NAME_SHOWN))
        raise Forbidden(
            f"agent {agent!r} signs what it reports: send X-Agent-Id and X-Agent-Signature, the hex"
            " HMAC-SHA256 of the body with its secret. Nothing was changed."
        )

    def receipt(self) -> Mapping[str, str]:
        """The header that an accepted, signed request is answered with."""
        if self.agent is None or self.secrets.receipt is None:
            return {}
        return {RECEIPT: receipt_of(self.secrets.receipt, self.signature)}


async def secrets_of(request: Request) -> Secrets:
    """What the operator has configured: `app.state.secrets`.

    Raises:
        Refused: the file cannot be used. Nothing can be checked then, so nothing is let through; what is
        wrong with it concerns the operator, not the caller.
    """
    file: SecretsFile = request.app.state.secrets
    try:
        return await to_thread.run_sync(file.read)
    except InvalidInput as error:
        _log.error("the file of secrets cannot be used: %s", shown(error.problem))
    raise Refused(
        problem(
            503,
            "Secrets unusable",
            "The server's file of secrets cannot be used, so signatures cannot be checked. Nothing was"
            " written; its log says what is wrong.",
            headers={"Retry-After": "30"},
            code="secrets_unusable",
        )
    )


def agent_in(request: Request) -> str | None:
    """The agent that `X-Agent-Id` names."""
    return header_text(request.headers.get(_AGENT))


async def signing_of(request: Request, caller: Caller) -> Signing:
    """What the request's headers say, checked.

    Raises:
        Refused: the agent that they name has not signed it, or that cannot be checked.
    """
    secrets = await secrets_of(request)
    agent = agent_in(request) or (caller.bound_to if caller.role == "agent" else None)
    secret = None if agent is None else secrets.agents.get(agent)
    if agent is None or secret is None:
        return Signing(secrets)
    signature = request.headers.get(SIGNED, "")
    if is_signed(secret, await request.body(), signature):
        return Signing(secrets, agent, signature)
    how = "wrongly signed" if signature else "unsigned"
    _log.warning("refused a request, %s, of agent %s", how, shown(agent, width=NAME_SHOWN))
    raise Refused(
        problem(
            401,
            "Not signed",
            f"The request is {how}: X-Agent-Signature must be the hex HMAC-SHA256 of its body with the secret"
            " of the agent that X-Agent-Id names. Nothing was written.",
            headers={"WWW-Authenticate": 'HMAC-SHA256 header="X-Agent-Signature"'},
            code="unauthorized",
        )
    )
