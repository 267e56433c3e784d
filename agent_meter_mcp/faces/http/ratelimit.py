"""`RateLimit`, `RateLimit-Policy` and `Retry-After` (draft-ietf-httpapi-ratelimit-headers), and a refusal.

A policy's name is its limit's id. Amounts in these headers are whole numbers of at most 15 digits: dollars
are told in micro-USD (`qu="micro-usd"`), rounded so that nobody is promised more than there is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent_meter_mcp.core.money import MICRO_PER_UNIT, NANO_PER_USD
from agent_meter_mcp.core.told import state_fields
from agent_meter_mcp.core.windows import parse_window, seconds
from agent_meter_mcp.faces.errors import QUOTA_EXCEEDED
from agent_meter_mcp.faces.wire.problems import problem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.responses import Response

    from agent_meter_mcp.core.decide import Decision, LimitState
    from agent_meter_mcp.faces.wire.results import Decided

TOLD_MAX = 3
"""How many limits are told in the headers: those with the least room."""
NEVER_S = 3600
"""`Retry-After` where no time brings the budget back: by then somebody may have raised the limit."""
_TOLD = ("subject", "scope", "service", "metric", "window", "max", "used", "held", "remaining")
_INTEGER_MAX = 999_999_999_999_999
_MICRO_USD = NANO_PER_USD // 1_000_000
_UNITS = {"requests": "requests", "units": "units", "tokens": "tokens", "cost_usd": "micro-usd"}
_SCALES = {"requests": 1, "units": MICRO_PER_UNIT, "tokens": 1, "cost_usd": _MICRO_USD}


def limit_headers(states: Iterable[LimitState]) -> dict[str, str]:
    """The headers of an answer that these limits concern, the tightest first; none without a hard limit."""
    hard = [state for state in states if state.limit.action == "reject"]
    told = sorted(hard, key=lambda state: -state.percent)[:TOLD_MAX]
    if not told:
        return {}
    return {
        "RateLimit-Policy": ", ".join(_policy(state) for state in told),
        "RateLimit": ", ".join(_room(state) for state in told),
    }


def retry_header(retry_after_us: int | None) -> dict[str, str]:
    """`Retry-After` in whole seconds, at least 1. None: no time brings it back by itself."""
    return {"Retry-After": str(NEVER_S if retry_after_us is None else max(seconds(retry_after_us) or 1, 1))}


def quota_exceeded(
    detail: str,
    states: Iterable[LimitState],
    *,
    violated: Iterable[LimitState],
    retry_after_us: int | None,
    **members: Any,
) -> Response:
    """429. `violated` are the limits that say no; `states` all that bind."""
    return problem(
        429,
        "Quota exceeded",
        detail,
        type_=QUOTA_EXCEEDED,
        headers={**limit_headers(states), **retry_header(retry_after_us)},
        **{
            "code": "quota_exceeded",
            "violated-policies": [_violated(state) for state in violated],
            **members,
        },
    )


def stopped(detail: str, **members: Any) -> Response:
    """403: a kill switch. No waiting ends it, only an operator."""
    return problem(403, "Kill switch", detail, code="kill_switch", **members)


def refusal(decision: Decision, result: Decided) -> Response:
    """What a no is: 403 where a kill switch says it, else 429. All that `result` says goes with it."""
    members = {
        name: value
        for name, value in result.model_dump(mode="json").items()
        if name not in ("status", "code")
    }
    if any(reason.code == "kill_switch" for reason in decision.reasons):
        return stopped(result.message, **members)
    violated = [reason.state for reason in decision.reasons if reason.code == "limit"]
    return quota_exceeded(
        result.message,
        decision.limits,
        violated=[state for state in violated if state is not None],
        retry_after_us=decision.retry_after_us,
        **members,
    )


def _violated(state: LimitState) -> dict[str, Any]:
    """A policy that says no: its name, which is the limit's id, and how it stands."""
    told = state_fields(state)
    return {"name": told["limit_id"], **{field: told[field] for field in _TOLD}}


def _policy(state: LimitState) -> str:
    metric = state.limit.key.metric
    window_s = _window_s(state)
    told = f'{_string(state.limit.limit_id)};q={_amount(metric, state.limit.max)};qu="{_UNITS[metric]}"'
    return told if window_s is None else f"{told};w={window_s}"


def _room(state: LimitState) -> str:
    told = f"{_string(state.limit.limit_id)};r={_amount(state.limit.key.metric, state.remaining)}"
    back_us = state.resets_at_us if state.resets_at_us is not None else state.frees_at_us
    return told if back_us is None else f"{told};t={max(seconds(back_us - state.at_us) or 0, 0)}"


def _window_s(state: LimitState) -> int | None:
    """The length of the window; None for one that never ends."""
    window = parse_window(state.limit.key.window)
    if window.kind == "rolling":
        return seconds(window.length_us)
    return None if state.resets_at_us is None else seconds(state.resets_at_us - state.since_us)


def _amount(metric: str, value: int) -> int:
    return min(max(value // _SCALES[metric], 0), _INTEGER_MAX)


def _string(text: str) -> str:
    """A string of a structured field (RFC 9651): printable ASCII; what is not becomes "?"."""
    safe = "".join(char if " " <= char <= "~" else "?" for char in text)
    return '"' + safe.replace("\\", "\\\\").replace('"', '\\"') + '"'
