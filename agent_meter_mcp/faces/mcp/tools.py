"""What a tool is here.

A tool is a function from a `Call` and its arguments, a pydantic model, to a result, another one. `@tool` says the rest
of it. What the SDK's own decorator would make of the same function drops misspelt arguments without a word, reads
"null" as null, and answers a mistake with pydantic's prose, so `MeterTool` is built from the models directly.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp.server.mcpserver.utilities.func_metadata import ArgModelBase, FuncMetadata
from mcp.types import CallToolResult, TextContent, ToolAnnotations
from pydantic import ValidationError

from agent_meter_mcp.core.errors import MeterError
from agent_meter_mcp.core.text import shown
from agent_meter_mcp.faces.errors import text_of
from agent_meter_mcp.faces.wire.fields import Arguments, Result
from agent_meter_mcp.faces.wire.schema import arguments_schema, result_schema

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from agent_meter_mcp.core.roles import Caller
    from agent_meter_mcp.ledger import Ledger
    from .callers import CallerOf

ArgumentsT = TypeVar("ArgumentsT", bound=Arguments)
ResultT = TypeVar("ResultT", bound=Result)
PROBLEMS_MAX = 3
NAME_WIDTH = 64


@dataclass(frozen=True)
class Call:
    """Who asks, and whom."""

    ledger: Ledger
    caller: Caller


@dataclass(frozen=True)
class Definition:
    """A tool before it knows a ledger."""

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
    """Makes a tool of a function: its name is the tool's, its docstring is what a model reads.

    `reads`: it changes nothing. `destroys`: it can take something away. `repeats`: calling it twice is calling it once.
    """

    def define(run: Callable[[Call, ArgumentsT], Awaitable[ResultT]]) -> Definition:
        annotations = ToolAnnotations(
            read_only_hint=reads, destructive_hint=destroys, idempotent_hint=reads or repeats, open_world_hint=False
        )
        description = " ".join((run.__doc__ or "").split())
        return Definition(run.__name__, title, description, arguments, result, annotations, run)

    return define


class _Passed(ArgModelBase):
    """Hands the SDK our arguments as one, under the name that `_runner`'s function has for them."""

    model: Any

    def model_dump_one_level(self) -> dict[str, Any]:
        return {"arguments": self.model}


class _StrictMetadata(FuncMetadata):
    """Validates with our own model, which refuses what it does not know."""

    own_model: Any

    def validate_arguments(self, arguments_to_validate: dict[str, Any]) -> dict[str, Any]:
        return {"arguments": self.own_model.model_validate(_parsed(self.own_model, arguments_to_validate))}


def _parsed(model: type[Arguments], sent: dict[str, Any]) -> dict[str, Any]:
    """Lists and objects that a client sent as JSON text, parsed; some clients cannot do otherwise."""
    from json import loads

    parsed = dict(sent)
    for field, value in sent.items():
        if field in model.structured and isinstance(value, str):
            try:
                parsed[field] = loads(value)
            except (ValueError, RecursionError):
                continue
    return parsed
