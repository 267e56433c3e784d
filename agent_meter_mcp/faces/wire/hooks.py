"""One verdict, in the words that each agent harness understands from its hooks.

What these words do was measured (Claude Code 2.1.330, Codex 0.169, Gemini CLI 0.61), else read in their
documentation:
- Claude Code: a blocked prompt costs nothing; `continue: false` after a tool ends the loop before the next
  model call; a bare `deny` before a tool does not: the model goes on spending. `decision: block` at Stop
  means "do not stop".
- Codex fails open on fields it does not know at that event: PreToolUse takes a deny and nothing like
  `continue`.
- Gemini CLI: `deny` before the model is called aborts the turn; a deny after the agent means "try again".

So nothing is said at an event where saying it could make the agent go on; what is left is told to the user.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent_meter_mcp.core.decide import reached
from agent_meter_mcp.core.models import Usage

from . import wording

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    from agent_meter_mcp.core.decide import Decision, LimitState
    from agent_meter_mcp.core.models import Who

    from .calls import Call

    Harness = Literal["claude-code", "codex", "gemini"]
    Verdict = Literal["allow", "warn", "stop"]
    Answer = dict[str, Any]
    Say = Callable[[str, str], Answer]

TEXT_MAX = 9_000
"""Claude Code refuses strings of more than 10,000 characters."""


def _end(event: str, text: str) -> Answer:
    return {"continue": False, "stopReason": text}


def _block(event: str, text: str) -> Answer:
    return {"decision": "block", "reason": text}


def _deny(event: str, text: str) -> Answer:
    return {"decision": "deny", "reason": text}


def _permit_no_tool(event: str, text: str) -> Answer:
    told = {"hookEventName": event, "permissionDecision": "deny", "permissionDecisionReason": text}
    return {"hookSpecificOutput": told}


def _deny_tool(event: str, text: str) -> Answer:
    return {**_tell_user(event, text), **_permit_no_tool(event, text)}


def _end_and_deny_tool(event: str, text: str) -> Answer:
    return {**_end(event, text), **_permit_no_tool(event, text)}


def _end_and_block(event: str, text: str) -> Answer:
    return {**_end(event, text), **_block(event, text)}


def _end_and_deny(event: str, text: str) -> Answer:
    return {**_end(event, text), **_deny(event, text)}


def _tell_user(event: str, text: str) -> Answer:
    return {"systemMessage": text}


def _tell_model(event: str, text: str) -> Answer:
    return {"hookSpecificOutput": {"hookEventName": event, "additionalContext": text}}


def _tell_both(event: str, text: str) -> Answer:
    return {**_tell_user(event, text), **_tell_model(event, text)}


def _say_nothing(event: str, text: str) -> Answer:
    return {}


_STOPS: dict[Harness, dict[str, Say]] = {
    "claude-code": {
        "UserPromptSubmit": _block,
        "PreToolUse": _end_and_deny_tool,
        "PostToolUse": _end,
        "PostToolUseFailure": _end,
        "PostToolBatch": _end,
    },
    "codex": {"UserPromptSubmit": _block, "PreToolUse": _deny_tool, "PostToolUse": _end_and_block},
    "gemini": {"BeforeAgent": _deny, "BeforeModel": _deny, "BeforeTool": _end_and_deny, "AfterTool": _end},
}
"""What ends the work, at the events where something can."""

_WARNINGS: dict[Harness, dict[str, Say]] = {
    "claude-code": {
        "SessionStart": _tell_both,
        "UserPromptSubmit": _tell_both,
        "PreToolUse": _say_nothing,
        "PostToolUse": _tell_model,
        "PostToolUseFailure": _tell_model,
        "PostToolBatch": _tell_model,
    },
    "codex": {
        "SessionStart": _tell_both,
        "UserPromptSubmit": _tell_both,
        "PreToolUse": _say_nothing,
        "PostToolUse": _tell_model,
    },
    "gemini": {
        "SessionStart": _tell_both,
        "BeforeAgent": _tell_both,
        "BeforeTool": _say_nothing,
        "AfterTool": _tell_model,
    },
}
"""How a warning is given. Elsewhere, and for a stop at an event that stops nothing, the user is told."""

_SILENT = {("gemini", "AfterModel"), ("gemini", "BeforeToolSelection")}
"""Once for every piece of an answer, or not listened to."""


async def gated(call: Call, who: Who, harness: Harness, event: str) -> tuple[Decision, Verdict, Answer]:
    """What the hook says at this event. A no is kept as a refusal where it can end the work.

    Raises InvalidInput, Forbidden.
    """
    ask = call.ledger.gate if can_stop(harness, event) else call.ledger.check
    decision = await ask(call.caller, who, Usage())
    verdict = verdict_of(decision)
    return (
        decision,
        verdict,
        hook_answer(harness, event, verdict, wording.decision(decision, call.ledger.now_us())),
    )


def verdict_of(decision: Decision) -> Verdict:
    """Stop when it is not allowed; warn past a soft limit, or near any limit (past its last threshold before
    100 %)."""
    if not decision.allowed:
        return "stop"
    return "warn" if decision.reasons or any(_is_near(state) for state in decision.limits) else "allow"


def _is_near(state: LimitState) -> bool:
    last = max((threshold for threshold in state.limit.thresholds if threshold < 100), default=None)
    return last is not None and last in reached(state.limit, state.used)


def can_stop(harness: Harness, event: str) -> bool:
    """Whether an answer at this event can end the work."""
    return event in _STOPS[harness]


def hook_answer(harness: Harness, event: str, verdict: Verdict, text: str) -> Answer:
    """What the hook says. `{}` is no opinion."""
    text = text[:TEXT_MAX]
    if verdict == "allow" or (harness, event) in _SILENT:
        return {}
    if verdict == "stop":
        return _STOPS[harness].get(event, _tell_user)(event, text)
    return _WARNINGS[harness].get(event, _tell_user)(event, text)
