"""What the conformance suite expects to find on a server, added to ours for a test run and nowhere else.

`add_conformance_fixtures(server)` takes a finished `MCPServer` and adds the suite's `test_*` tools, resources
and prompts beside the server's own, so that every scenario passes through our settings, our middleware and
our completion handler. Names and texts are those the suite's scenarios ask for.

Two private attributes of `MCPServer` are read, each in one function: `_lowlevel_server`, whose public
`get_request_handler` / `add_request_handler` are what the SDK's documentation names for the methods of the
handshake protocol (`logging/setLevel`, `resources/subscribe`), and `_tool_manager`, because no public call
publishes an input schema that a Python signature cannot express.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from mcp import MCPError
from mcp.server import MCPServer
from mcp.server.context import HandlerResult, ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import UserMessage
from mcp.server.mcpserver.prompts import Prompt
from mcp.types import (
    INVALID_PARAMS,
    CompleteRequestParams,
    CompleteResult,
    Completion,
    EmptyResult,
    ImageContent,
    PromptReference,
    RequestParams,
    SetLevelRequestParams,
    SubscribeRequestParams,
    UnsubscribeRequestParams,
)

from tests.conformance.rounds import add_rounds
from tests.conformance.tools import PNG, SCHEMA_2020_12, SCHEMA_TOOL, TOOLS, embedded

ParamsT = TypeVar("ParamsT", bound=RequestParams)

WATCHED_URI = "test://watched-resource"
COMPLETED_PROMPT = "test_prompt_with_arguments"


def add_conformance_fixtures(server: MCPServer[Any]) -> None:
    """Add everything the suite's server scenarios look for to `server`, beside what it has."""
    for tool in TOOLS:
        server.add_tool(tool)
    _add_schema_tool(server)
    _add_resources(server)
    for prompt in PROMPTS:
        server.add_prompt(Prompt.from_function(prompt))
    add_rounds(server)
    _add_handshake_methods(server)
    _add_completion(server)


def _add_schema_tool(server: MCPServer[Any]) -> None:
    async def published_only() -> str:
        return "not called by the suite"

    server.add_tool(published_only, name=SCHEMA_TOOL, description="Publishes JSON Schema 2020-12 keywords.")
    tool = server._tool_manager.get_tool(SCHEMA_TOOL)  # pyright: ignore[reportPrivateUsage]  # as above
    assert tool is not None
    tool.parameters = SCHEMA_2020_12


# Resources and prompts


def _add_resources(server: MCPServer[Any]) -> None:
    @server.resource("test://static-text", description="A text.", mime_type="text/plain")
    async def static_text() -> str:
        return "This is the content of the static text resource."

    @server.resource("test://static-binary", description="A picture.", mime_type="image/png")
    async def static_binary() -> bytes:
        return base64.b64decode(PNG)

    @server.resource(WATCHED_URI, description="A text to subscribe to.", mime_type="text/plain")
    async def watched() -> str:
        return "Watched resource content."

    @server.resource("test://template/{id}/data", description="A template.", mime_type="application/json")
    async def template(id: str) -> str:
        return json.dumps({"id": id, "templateTest": True, "data": f"Data for ID: {id}"})


async def test_simple_prompt() -> str:
    """A prompt without arguments."""
    return "This is a simple prompt for testing."


async def test_prompt_with_arguments(arg1: str, arg2: str) -> str:
    """A prompt that repeats its arguments."""
    return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"


async def test_prompt_with_embedded_resource(resourceUri: str) -> list[UserMessage]:
    """A prompt with a resource in it."""
    resource = embedded(resourceUri, "text/plain", "Embedded resource content for testing.")
    return [UserMessage(resource), UserMessage("Please process the embedded resource above.")]


async def test_prompt_with_image() -> list[UserMessage]:
    """A prompt with a picture in it."""
    return [
        UserMessage(ImageContent(data=PNG, mime_type="image/png")),
        UserMessage("Please analyze the image above."),
    ]


PROMPTS = (
    test_simple_prompt,
    test_prompt_with_arguments,
    test_prompt_with_embedded_resource,
    test_prompt_with_image,
)


# Methods that MCPServer does not serve, or that the server serves for its own names only


def _lowlevel(server: MCPServer[Any]) -> Server[Any]:
    return server._lowlevel_server  # pyright: ignore[reportPrivateUsage]  # see the module's docstring


def _serve(
    server: MCPServer[Any],
    method: str,
    params_type: type[ParamsT],
    answer: Callable[[ParamsT], HandlerResult],
) -> None:
    """Answer `method` for the fixtures; where `answer` gives None, the server's own handler does."""
    low = _lowlevel(server)
    own = low.get_request_handler(method)

    async def handle(ctx: ServerRequestContext[Any, Any], params: ParamsT) -> HandlerResult:
        result = answer(params)
        if result is not None:
            return result
        if own is None:
            raise MCPError(INVALID_PARAMS, f"no fixture answers this {method}")
        return await cast("Callable[[Any, Any], Awaitable[HandlerResult]]", own.handler)(ctx, params)

    low.add_request_handler(method, params_type, handle)


def _add_handshake_methods(server: MCPServer[Any]) -> None:
    subscribed: set[str] = set()

    def set_level(params: SetLevelRequestParams) -> HandlerResult:
        return EmptyResult()

    def subscribe(params: SubscribeRequestParams) -> HandlerResult:
        if params.uri != WATCHED_URI:
            return None
        subscribed.add(params.uri)
        return EmptyResult()

    def unsubscribe(params: UnsubscribeRequestParams) -> HandlerResult:
        if params.uri not in subscribed:
            return None
        subscribed.discard(params.uri)
        return EmptyResult()

    if _lowlevel(server).get_request_handler("logging/setLevel") is None:
        _serve(server, "logging/setLevel", SetLevelRequestParams, set_level)
    _serve(server, "resources/subscribe", SubscribeRequestParams, subscribe)
    _serve(server, "resources/unsubscribe", UnsubscribeRequestParams, unsubscribe)


def _add_completion(server: MCPServer[Any]) -> None:
    def complete(params: CompleteRequestParams) -> HandlerResult:
        if not isinstance(params.ref, PromptReference) or params.ref.name != COMPLETED_PROMPT:
            return None
        values = [value for value in ("test", "tested", "testing") if value.startswith(params.argument.value)]
        return CompleteResult(completion=Completion(values=values, total=len(values), has_more=False))

    _serve(server, "completion/complete", CompleteRequestParams, complete)
