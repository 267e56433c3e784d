"""What a tool is here.

A tool is a function from a `Call` and its arguments, one pydantic model, to a result, another one; `@tool`
says the rest. What the SDK's own decorator would make of such a function drops misspelt arguments without a
word, reads the text "null" as null, and answers a mistake with pydantic's prose. So `MeterTool` takes the two
models as they are.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import UnexpectedToolError
from mcp.server.mcpserver.tools import Tool
from mcp.server.mcpserver.utilities.func_metadata import ArgModelBase, FuncMetadata
from mcp.types import CallToolResult, TextContent, ToolAnnotations
from pydantic import PrivateAttr, ValidationError

from agent_meter_mcp.core.errors import InvalidInput, MeterError
from agent_meter_mcp.faces.errors import META, members_of, text_of
from agent_meter_mcp.faces.wire.calls import Call
from agent_meter_mcp.faces.wire.fields import Arguments, Result
from agent_meter_mcp.faces.wire.mistakes import mistakes, place
from agent_meter_mcp.faces.wire.schema import arguments_schema, result_schema

if TYPE_CHECKING:
    from agent_meter_mcp.ledger import Ledger

    from .callers import CallerOf

ArgumentsT = TypeVar("ArgumentsT", bound=Arguments)
ResultT = TypeVar("ResultT", bound=Result)


@dataclass(frozen=True)
class Definition:
    """A tool that does not know its ledger yet."""

    name: str
    title: str
    description: str
    arguments: type[Arguments]
    result: type[Result]
    annotations: ToolAnnotations
    run: Callable[[Call, Any], Awaitable[Result]]


def tool(
    title: str,
    arguments: type[ArgumentsT],
    result: type[ResultT],
    *,
    reads: bool = False,
    destroys: bool = False,
    repeats: bool = False,
) -> Callable[[Callable[[Call, ArgumentsT], Awaitable[ResultT]]], Definition]:
    """Makes a tool of a function. The function's name is the tool's, and its docstring is what a model reads.

    `reads`: it changes nothing. `destroys`: it can take something away. `repeats`: calling it twice is
    calling it once.
    """

    def define(run: Callable[[Call, ArgumentsT], Awaitable[ResultT]]) -> Definition:
        hints = ToolAnnotations(
            read_only_hint=reads,
            destructive_hint=destroys,
            idempotent_hint=reads or repeats,
            open_world_hint=False,
        )
        description = " ".join((run.__doc__ or "").split())
        return Definition(run.__name__, title, description, arguments, result, hints, run)

    return define


class MeterTool(Tool):
    """A definition with a ledger behind it."""

    _definition: Definition = PrivateAttr()
    _call_of: Callable[[Any], Call] = PrivateAttr()

    @classmethod
    def of(cls, definition: Definition, ledger: Ledger, caller_of: CallerOf, timezone: str) -> MeterTool:
        made = cls(
            fn=definition.run,
            name=definition.name,
            title=definition.title,
            description=definition.description,
            parameters=arguments_schema(definition.arguments),
            fn_metadata=FuncMetadata(arg_model=ArgModelBase, output_schema=result_schema(definition.result)),
            is_async=True,
            context_kwarg=None,
            annotations=definition.annotations,
        )
        made._definition = definition
        made._call_of = lambda request: Call(ledger, caller_of(request), timezone)
        return made

    async def run(
        self, arguments: dict[str, Any], context: Context[Any, Any], convert_result: bool = False
    ) -> CallToolResult:
        """What the caller can put right is an answer too. Raises UnexpectedToolError (logged, not told) for
        the rest."""
        try:
            sent = self._definition.arguments.model_validate(_unpacked(arguments, self.parameters))
            result = await self._definition.run(self._call_of(context.request_context), sent)
            return CallToolResult(
                content=[TextContent(type="text", text=result.text())],
                structured_content=result.model_dump(mode="json"),
            )
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False)
            wrong = mistakes(found, list(self.parameters["properties"]), "this tool")
            text = f"{wrong} Nothing was changed."
            return self._failed(text, {"code": InvalidInput.code, "field": place(found[0])})
        except MeterError as error:
            return self._failed(text_of(error), members_of(error))
        except Exception as error:
            raise UnexpectedToolError(
                f"{self.name} failed unexpectedly; the server's log says why"
            ) from error

    def _failed(self, text: str, members: dict[str, str]) -> CallToolResult:
        """An error, for models and for programs. Of a ToolError the SDK would tell the text alone."""
        said = TextContent(type="text", text=f"{self.name}: {text}")
        return CallToolResult(content=[said], is_error=True, _meta={META: members})


def _unpacked(arguments: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """The arguments, with lists and objects parsed that came as JSON text; some clients cannot send them
    otherwise."""
    unpacked = dict(arguments)
    for field, value in arguments.items():
        kind = schema["properties"].get(field, {}).get("type")
        if kind in ("array", "object") and isinstance(value, str):
            try:
                unpacked[field] = json.loads(value)
            except (ValueError, RecursionError):
                continue
    return unpacked
