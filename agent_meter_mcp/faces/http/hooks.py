"""Routes for the hooks of agent harnesses: what one tells its hook comes here, and what the hook is to say is
the answer.

Claude Code calls them by itself (hooks of type `http`), the others by a line of curl. None of them is stopped
by a status: whatever is not 200 lets the agent go on.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Response
from pydantic import BaseModel, ConfigDict, Field, RootModel

from agent_meter_mcp.core.check import usable
from agent_meter_mcp.core.models import Who
from agent_meter_mcp.core.text import ID_MAX, name
from agent_meter_mcp.faces.wire.hooks import gated

from .answers import answer
from .asking import Asked, header_text

AGENTS = {"claude-code": "claude-code", "codex": "codex", "gemini": "gemini-cli"}
"""Who it is where nobody says so."""
router = APIRouter(tags=["hooks"])


class HookInput(BaseModel):
    """What a harness tells a hook, as far as it matters here. Whatever else it tells is not looked at."""

    model_config = ConfigDict(extra="ignore")

    hook_event_name: str
    session_id: Annotated[Any, Field(description="the session")] = None
    cwd: Annotated[Any, Field(description="the project")] = None


class HookAnswer(RootModel[dict[str, Any]]):
    """What the hook says, in the words of the harness; `{}` is no opinion."""


@router.post("/hooks/{harness}", response_model=HookAnswer)
async def answer_hook(
    call: Asked,
    harness: Literal["claude-code", "codex", "gemini"],
    body: HookInput,
    x_agent_id: Annotated[str | None, Header(description="who it is; else whose key it is")] = None,
) -> Response:
    """Whether the agent may go on, as the JSON that its hook prints: nothing, a warning, or what ends its
    work."""
    agent = header_text(x_agent_id) or call.caller.default_agent or AGENTS[harness]
    who = Who(agent, None, None, usable(body.cwd, ID_MAX), usable(body.session_id, ID_MAX))
    event = name(body.hook_event_name, "hook_event_name")
    _, _, said = await gated(call, who, harness, event)
    return answer(HookAnswer(said))
