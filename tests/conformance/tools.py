"""Fixture tools: content blocks, notifications, questions to the client, changing lists, published schemas.

Names, arguments and texts are those the suite's scenarios ask for; the descriptions say what each one is for.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import anyio
from mcp.server.mcpserver import Context, Elicit, ElicitationResult, Resolve, Sample
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.prompts import Prompt
from mcp.types import (
    AudioContent,
    CreateMessageResult,
    EmbeddedResource,
    ImageContent,
    SamplingMessage,
    TextContent,
    TextResourceContents,
)
from pydantic import BaseModel, Field

AnyContext = Context[Any, Any]

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGP4z8DwHwAFAAH/iZk9HQAAAABJRU5ErkJggg=="
WAV = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA="
PAUSE_S = 0.05
SCHEMA_TOOL = "json_schema_2020_12_tool"
SCHEMA_2020_12: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


# Content


async def test_simple_text() -> str:
    """Returns one text block."""
    return "This is a simple text response for testing."


async def test_image_content() -> ImageContent:
    """Returns one image block."""
    return ImageContent(data=PNG, mime_type="image/png")


async def test_audio_content() -> AudioContent:
    """Returns one audio block."""
    return AudioContent(data=WAV, mime_type="audio/wav")


def embedded(uri: str, mime_type: str, text: str) -> EmbeddedResource:
    return EmbeddedResource(resource=TextResourceContents(uri=uri, mime_type=mime_type, text=text))


async def test_embedded_resource() -> EmbeddedResource:
    """Returns one embedded resource."""
    return embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")


async def test_multiple_content_types() -> list[TextContent | ImageContent | EmbeddedResource]:
    """Returns a text, an image and an embedded resource."""
    return [
        TextContent(text="Multiple content types test:"),
        ImageContent(data=PNG, mime_type="image/png"),
        embedded("test://mixed-content-resource", "application/json", '{"test":"data","value":123}'),
    ]


async def test_error_handling() -> str:
    """Always fails."""
    raise ToolError("This tool intentionally returns an error for testing")


async def greet(name: str) -> str:
    """Greets; the tasks scenarios call it as the tool that never makes a task."""
    return f"Hello, {name}!"


CONTENT_TOOLS = (
    test_simple_text,
    test_image_content,
    test_audio_content,
    test_embedded_resource,
    test_multiple_content_types,
    test_error_handling,
    greet,
)


# Notifications while a tool runs


async def _log(ctx: AnyContext, text: str) -> None:
    await ctx.info(text)  # pyright: ignore[reportDeprecated]  # the scenarios are about this very feature


async def test_tool_with_logging(ctx: AnyContext) -> str:
    """Sends three log messages."""
    await _log(ctx, "Tool execution started")
    await anyio.sleep(PAUSE_S)
    await _log(ctx, "Tool processing data")
    await anyio.sleep(PAUSE_S)
    await _log(ctx, "Tool execution completed")
    return "Tool with logging executed successfully"


async def test_logging_tool(ctx: AnyContext) -> str:
    """Logs once; a 2026-07-28 client that named no level must not see it."""
    await _log(ctx, "One line")
    return "logged"


async def test_tool_with_progress(ctx: AnyContext) -> str:
    """Reports 0, 50 and 100 of 100."""
    for done in (0, 50, 100):
        await ctx.report_progress(done, 100, f"Completed step {done} of 100")
        await anyio.sleep(PAUSE_S)
    return "Tool with progress executed successfully"


async def test_reconnection(ctx: AnyContext) -> str:
    """Closes its own response stream, then answers on the one the client reopens."""
    await ctx.close_sse_stream()
    await anyio.sleep(2 * PAUSE_S)
    return "Reconnection test completed"


SESSION_TOOLS = (test_tool_with_logging, test_logging_tool, test_tool_with_progress, test_reconnection)


# Questions to the client, in the form that serves both protocol eras


class UserDetails(BaseModel):
    username: str = Field(description="User's response")
    email: str = Field(description="User's email address")


class Defaults(BaseModel):
    name: str = "John Doe"
    age: int = 30
    score: float = 95.5
    status: Literal["active", "inactive", "pending"] = "active"
    verified: bool = True


TITLED: list[Any] = [{"const": f"value{number}", "title": f"Value {number}"} for number in (1, 2, 3)]


class Choices(BaseModel):
    untitledSingle: Literal["option1", "option2", "option3"]
    titledSingle: str = Field(json_schema_extra={"oneOf": TITLED})
    legacyEnum: str = Field(
        json_schema_extra={
            "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"],
        }
    )
    untitledMulti: list[Literal["option1", "option2", "option3"]]
    titledMulti: list[str] = Field(json_schema_extra={"items": {"anyOf": TITLED}})


async def _ask_details(message: str) -> Elicit[UserDetails]:
    return Elicit(message, UserDetails)


async def _ask_defaults() -> Elicit[Defaults]:
    return Elicit("Please provide user information", Defaults)


async def _ask_choices() -> Elicit[Choices]:
    return Elicit("Please select values", Choices)


async def _ask_name() -> Elicit[UserDetails]:
    return Elicit("Who are you?", UserDetails)


async def _ask_model(prompt: str) -> Sample:
    return Sample([SamplingMessage(role="user", content=TextContent(text=prompt))], max_tokens=100)


async def _ask_model_hello() -> Sample:
    return await _ask_model("Say hello")


def _answer(title: str, result: ElicitationResult[Any]) -> str:
    content = result.data.model_dump_json() if result.action == "accept" else "{}"
    return f"{title}: action={result.action}, content={content}"


def _sampled(result: CreateMessageResult) -> str:
    return f"LLM response: {result.content.text if isinstance(result.content, TextContent) else ''}"


async def test_sampling(prompt: str, result: Annotated[CreateMessageResult, Resolve(_ask_model)]) -> str:
    """Asks the client's model."""
    return _sampled(result)


async def test_elicitation(
    message: str, result: Annotated[ElicitationResult[UserDetails], Resolve(_ask_details)]
) -> str:
    """Asks the client's user."""
    return _answer("User response", result)


async def test_elicitation_sep1034_defaults(
    result: Annotated[ElicitationResult[Defaults], Resolve(_ask_defaults)],
) -> str:
    """Asks with a default for every primitive type."""
    return _answer("Elicitation completed", result)


async def test_elicitation_sep1330_enums(
    result: Annotated[ElicitationResult[Choices], Resolve(_ask_choices)],
) -> str:
    """Asks with the five kinds of enumeration."""
    return _answer("Elicitation completed", result)


async def test_streaming_elicitation(
    result: Annotated[ElicitationResult[UserDetails], Resolve(_ask_name)],
) -> str:
    """Asks in a way that must not put a request on the response stream."""
    return _answer("User response", result)


async def test_missing_capability(result: Annotated[CreateMessageResult, Resolve(_ask_model_hello)]) -> str:
    """Needs a client that can sample."""
    return _sampled(result)


ASKING_TOOLS = (
    test_sampling,
    test_elicitation,
    test_elicitation_sep1034_defaults,
    test_elicitation_sep1330_enums,
    test_streaming_elicitation,
    test_missing_capability,
)


# Changes to the lists


async def test_dynamic_tool() -> str:
    """Comes and goes."""
    return "here"


async def test_trigger_tool_change(ctx: AnyContext) -> str:
    """Adds a tool, or removes it again, and tells the listeners."""
    listed = {tool.name for tool in await ctx.mcp_server.list_tools()}
    if test_dynamic_tool.__name__ in listed:
        ctx.mcp_server.remove_tool(test_dynamic_tool.__name__)
    else:
        ctx.mcp_server.add_tool(test_dynamic_tool)
    await ctx.notify_tools_changed()
    return "tools changed"


async def test_dynamic_prompt() -> str:
    """Comes and goes."""
    return "here"


async def test_trigger_prompt_change(ctx: AnyContext) -> str:
    """Adds a prompt, or removes it again, and tells the listeners."""
    listed = {prompt.name for prompt in await ctx.mcp_server.list_prompts()}
    if test_dynamic_prompt.__name__ in listed:
        ctx.mcp_server.remove_prompt(test_dynamic_prompt.__name__)
    else:
        ctx.mcp_server.add_prompt(Prompt.from_function(test_dynamic_prompt))
    await ctx.notify_prompts_changed()
    return "prompts changed"


CHANGE_TOOLS = (test_trigger_tool_change, test_trigger_prompt_change)


# Schemas


async def test_x_mcp_header(
    region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})],
) -> str:
    """Takes an argument that 2026-07-28 clients repeat in a header."""
    return f"region {region}"


TOOLS = (*CONTENT_TOOLS, *SESSION_TOOLS, *ASKING_TOOLS, *CHANGE_TOOLS, test_x_mcp_header)
