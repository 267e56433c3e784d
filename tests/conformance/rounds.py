"""Fixtures for SEP-2322: tools and a prompt that ask the client first and finish when the call is repeated.

The suite addresses its questions by key ("user_name", "step1"), so these are written out by hand; the
`Resolve(...)` form of the same thing, whose keys belong to the SDK, is used in `everything.py`.
"""

from __future__ import annotations

from typing import Any, Literal

from mcp.server import MCPServer
from mcp.server.mcpserver import Context, UserMessage
from mcp.server.mcpserver.prompts import Prompt
from mcp.types import (
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequest,
    InputRequiredResult,
    ListRootsRequest,
    ListRootsResult,
    SamplingMessage,
    TextContent,
)

AnyContext = Context[Any, Any]


def _form(message: str, field: str, kind: Literal["string", "boolean"] = "string") -> ElicitRequest:
    schema = {"type": "object", "properties": {field: {"type": kind}}, "required": [field]}
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


def _sample(text: str, max_tokens: int) -> CreateMessageRequest:
    question = SamplingMessage(role="user", content=TextContent(type="text", text=text))
    return CreateMessageRequest(params=CreateMessageRequestParams(messages=[question], max_tokens=max_tokens))


def _ask(state: str | None = None, /, **requests: InputRequest) -> InputRequiredResult:
    return InputRequiredResult(input_requests=dict(requests), request_state=state)


def _accepted(ctx: AnyContext, key: str) -> dict[str, Any] | None:
    """The content of the accepted form under `key`, or None while there is none."""
    answer = (ctx.input_responses or {}).get(key)
    if isinstance(answer, ElicitResult) and answer.action == "accept":
        return dict(answer.content or {})
    return None


def _sampled(ctx: AnyContext, key: str) -> str | None:
    answer = (ctx.input_responses or {}).get(key)
    if isinstance(answer, CreateMessageResult) and isinstance(answer.content, TextContent):
        return answer.content.text
    return None


def _roots(ctx: AnyContext, key: str) -> list[str] | None:
    answer = (ctx.input_responses or {}).get(key)
    return [str(root.uri) for root in answer.roots] if isinstance(answer, ListRootsResult) else None


async def test_input_required_result_elicitation(ctx: AnyContext) -> str | InputRequiredResult:
    """Asks for a name, then greets."""
    form = _accepted(ctx, "user_name")
    if form is None:
        return _ask(user_name=_form("What is your name?", "name"))
    return f"Hello, {form.get('name')}!"


async def test_input_required_result_sampling(ctx: AnyContext) -> str | InputRequiredResult:
    """Asks the client's model a question, then returns its answer."""
    text = _sampled(ctx, "capital_question")
    return text or _ask(capital_question=_sample("What is the capital of France?", 100))


async def test_input_required_result_list_roots(ctx: AnyContext) -> str | InputRequiredResult:
    """Asks for the client's roots, then names them."""
    roots = _roots(ctx, "client_roots")
    return _ask(client_roots=ListRootsRequest()) if roots is None else f"Roots: {', '.join(roots)}"


async def test_input_required_result_request_state(ctx: AnyContext) -> str | InputRequiredResult:
    """Asks for a confirmation and insists on getting its own state back with it."""
    if _accepted(ctx, "confirm") is None or ctx.request_state != "confirm-asked":
        return _ask("confirm-asked", confirm=_form("Please confirm", "ok", "boolean"))
    return "state-ok"


async def test_input_required_result_tampered_state(ctx: AnyContext) -> str | InputRequiredResult:
    """Asks for a confirmation with a sealed state; the SDK refuses a state that was altered."""
    return await test_input_required_result_request_state(ctx)


async def test_input_required_result_multiple_inputs(ctx: AnyContext) -> str | InputRequiredResult:
    """Asks for a form, a sample and the roots at once."""
    form, greeting = _accepted(ctx, "user_name"), _sampled(ctx, "greeting")
    roots = _roots(ctx, "client_roots")
    if form is None or greeting is None or roots is None:
        return _ask(
            "all-asked",
            user_name=_form("What is your name?", "name"),
            greeting=_sample("Generate a greeting", 50),
            client_roots=ListRootsRequest(),
        )
    return f"{greeting} {form.get('name')} ({len(roots)} roots)"


async def test_input_required_result_multi_round(ctx: AnyContext) -> str | InputRequiredResult:
    """Asks twice, one question after the other."""
    first, second = _accepted(ctx, "step1"), _accepted(ctx, "step2")
    if second is not None and ctx.request_state is not None:
        return f"{ctx.request_state} likes {second.get('color')}"
    if first is not None:
        return _ask(str(first.get("name")), step2=_form("Step 2: What is your favorite color?", "color"))
    return _ask("step-1", step1=_form("Step 1: What is your name?", "name"))


async def test_input_required_result_capabilities(ctx: AnyContext) -> str | InputRequiredResult:
    """Asks only what the client declared it can answer."""
    declared = ctx.client_capabilities
    requests: dict[str, InputRequest] = {}
    if declared and declared.elicitation is not None:
        requests["form"] = _form("What is your name?", "name")
    if declared and declared.sampling is not None:
        requests["sample"] = _sample("Say hello", 20)
    if declared and declared.roots is not None:
        requests["roots"] = ListRootsRequest()
    return _ask(**requests) if requests and ctx.input_responses is None else "nothing to ask"


async def test_input_required_result_prompt(ctx: AnyContext) -> list[UserMessage] | InputRequiredResult:
    """Asks for a context, then renders it."""
    form = _accepted(ctx, "user_context")
    if form is None:
        return _ask(user_context=_form("What context should the prompt use?", "context"))
    return [UserMessage(f"Context: {form.get('context')}")]


TOOLS = (
    test_input_required_result_elicitation,
    test_input_required_result_sampling,
    test_input_required_result_list_roots,
    test_input_required_result_request_state,
    test_input_required_result_tampered_state,
    test_input_required_result_multiple_inputs,
    test_input_required_result_multi_round,
    test_input_required_result_capabilities,
)


def add_rounds(server: MCPServer[Any]) -> None:
    """Add the multi-round tools and the multi-round prompt."""
    for tool in TOOLS:
        server.add_tool(tool)
    server.add_prompt(Prompt.from_function(test_input_required_result_prompt))
