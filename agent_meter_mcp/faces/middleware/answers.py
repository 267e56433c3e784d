"""What a request that is not admitted gets: a problem (RFC 9457) that explains itself."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from agent_meter_mcp.core.figures import exact_number
from agent_meter_mcp.core.money import amount_of
from agent_meter_mcp.faces.errors import QUOTA_EXCEEDED

if TYPE_CHECKING:
    from agent_meter_mcp.client.results import Decided, LimitState

    from .callers import Scope

WAIT_CODE, STOP_CODE = 1013, 1008
"""Of a WebSocket that is refused: try again later; policy violation."""


class Refusal(NamedTuple):
    """`headers` are beside those that every answer has."""

    status: int
    members: dict[str, Any]
    headers: tuple[tuple[bytes, bytes], ...] = ()

    @property
    def detail(self) -> str:
        return self.members["detail"]


def unidentified() -> Refusal:
    detail = "Say who you are: send your agent id (1 to 128 printable characters) as X-Agent-Id."
    return _refusal(
        401, "Unidentified", detail, "unauthorized", headers=((b"www-authenticate", b"X-Agent-Id"),)
    )


def not_signed(how: str) -> Refusal:
    detail = (
        f"The request is {how}: X-Agent-Signature must be the hex HMAC-SHA256 of its body with the secret of"
        " its agent."
    )
    headers = ((b"www-authenticate", b'HMAC-SHA256 header="X-Agent-Signature"'),)
    return _refusal(401, "Not signed", detail, "unauthorized", headers=headers)


def secrets_unusable() -> Refusal:
    """Without the secrets nothing can be checked, so nothing is let through."""
    detail = "This service cannot check signatures at the moment; its log says why."
    return _refusal(503, "Secrets unusable", detail, "secrets_unusable", headers=((b"retry-after", b"30"),))


def not_read(status: int, title: str, detail: str, code: str) -> Refusal:
    """The rest of the body is not read, so the connection is of no further use."""
    return _refusal(status, title, f"{detail}.", code, headers=((b"connection", b"close"),))


def over_budget(decision: Decided) -> Refusal:
    """429 for a limit, 403 for a kill switch, 503 where the meter could not be asked.

    Says how the caller's own limits stand, and nothing about who else uses them.
    """
    code = decision.reasons[0].code if decision.reasons else "limit"
    wait = decision.retry_after_s
    headers = () if wait is None else ((b"retry-after", str(max(wait, 1)).encode()),)
    if code == "kill_switch":
        return _refusal(403, "Stopped", f"{decision.reasons[0].message}.", code)
    if code == "unreachable":
        detail = "This service cannot check budgets at the moment. Try again in a moment."
        return _refusal(503, "Budgets cannot be checked", detail, code, headers=headers)
    violated = {reason.limit_id for reason in decision.reasons if reason.code == "limit"}
    states = [state for state in decision.limits if state.limit_id in violated]
    what = "; ".join(_standing(state) for state in states) or "a limit is in the way"
    after = "Waiting alone does not help." if wait is None else f"Try again in {max(wait, 1)} s."
    return _refusal(
        429,
        "Over budget",
        f"Not allowed: {what}. {after}",
        code,
        type_=QUOTA_EXCEEDED,
        headers=headers,
        **{"violated-policies": [_policy(state) for state in states]},
        retry_after_s=wait,
        affordable=dict(decision.affordable or {}),
    )


async def send_refusal(refusal: Refusal, scope: Scope, receive: Any, send: Any) -> None:
    """As an HTTP response; to a WebSocket as one if the server can do that, else as a close."""
    kind = "http.response"
    if scope["type"] == "websocket":
        kind = "websocket.http.response"
        await receive()  # the attempt to connect
        if kind not in scope.get("extensions", ()):
            code = WAIT_CODE if refusal.status in (429, 503) else STOP_CODE
            await send({"type": "websocket.close", "code": code, "reason": refusal.detail[:100]})
            return
    body = json.dumps(refusal.members, ensure_ascii=False).encode("utf-8", "replace")
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        *refusal.headers,
    ]
    await send({"type": f"{kind}.start", "status": refusal.status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})


def _refusal(
    status: int,
    title: str,
    detail: str,
    code: str,
    *,
    type_: str = "about:blank",
    headers: tuple[tuple[bytes, bytes], ...] = (),
    **more: Any,
) -> Refusal:
    members = {"type": type_, "title": title, "status": status, "detail": detail, "code": code, **more}
    return Refusal(status, members, headers)


def _policy(state: LimitState) -> dict[str, Any]:
    return {
        "name": state.limit_id,
        "metric": state.metric,
        "window": state.window,
        "max": state.max,
        "used": state.used,
        "held": state.held,
        "remaining": state.remaining,
    }


def _standing(state: LimitState) -> str:
    used, most, held = (_number(state.metric, told) for told in (state.used, state.max, state.held))
    what = "" if state.metric == "cost_usd" else f" {state.metric}"
    also_held = f" and {held} held" if state.held else ""
    return f"{used} of {most}{what} used{also_held} ({state.window})"


def _number(metric: str, told: float) -> str:
    """All its digits, also of a metric that only a newer meter knows."""
    if metric == "cost_usd":
        return exact_number(metric, amount_of(metric, told))
    return f"{Decimal(str(told)):,f}"
