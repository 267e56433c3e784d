"""What was used, by what programs tell OpenTelemetry of it.

Agents tell it in log events of their own: Claude Code (measured with 2.1.330), Codex (0.169) and Gemini CLI
(0.61), each with one event for each call of a model. Other programs tell it in spans, by the semantic
conventions for generative AI. Everything else that they send is no usage, and passed over.

A call has one id however often, and by whichever way, it is told. Programs that give it none get one made of
what they say of it.
"""

import hashlib
import json
import re
from typing import TYPE_CHECKING, NamedTuple

from agent_meter_mcp.core.check import DURATION_MS_MAX, usable
from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.core.models import Usage, Who
from agent_meter_mcp.core.money import nano_usd
from agent_meter_mcp.core.text import ID_MAX, NAME_MAX, name
from agent_meter_mcp.intake import Report

from .otlp import (
    Attributes,
    LogRecord,
    Logs,
    Plain,
    Said,
    Span,
    Traces,
    attributes_in,
    nanoseconds,
    plain,
    read_one,
    records_in,
    spans_in,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from agent_meter_mcp.core.models import Source

AGENT = "agent.id"
"""The attribute by which a program's owner says which agent it is (`OTEL_RESOURCE_ATTRIBUTES`)."""
RECORDS_MAX = 100_000
"""In one body. Of those that say something, no body that is taken has as many."""
_MICRO_NS, _MILLI_NS = 1000, 1_000_000
_HEX = re.compile(r"(?=.*[1-9a-f])[0-9a-f]+")
_ERROR = (2, "2", "STATUS_CODE_ERROR")
_FAILED = 500
_SERVICES = {
    "firstParty": "anthropic",
    "aws.bedrock": "bedrock",
    "azure.ai.inference": "azure",
    "azure.ai.openai": "azure",
    "gcp.gemini": "google",
    "gcp.gen_ai": "google",
    "gcp.vertex_ai": "google",
    "mistral_ai": "mistral",
    "x_ai": "xai",
}
"""Providers as Claude Code and the conventions call them, by the names that our prices and limits know."""
_SUMS = frozenset(("create_agent", "execute_tool", "invoke_agent", "invoke_workflow", "plan"))
"""Operations around the calls of a model. What their spans say was used, is said by the calls as well."""


class Sender(NamedTuple):
    """Who sends it. `bound_to` is the agent whose key it is: no payload changes that. `usual` is the agent
    where a payload does not say."""

    source: "Source"
    bound_to: str | None = None
    usual: str | None = None

    def agent(self, said: Plain | None, otherwise: str) -> str:
        """Raises InvalidInput."""
        if self.bound_to is not None:
            return self.bound_to
        return name(str(said), AGENT) if said not in (None, "") else self.usual or otherwise


def log_reports(logs: Logs, sender: Sender) -> list[Report | InvalidInput]:
    """Of each log record that tells of usage: the report, or what is wrong with it. Raises InvalidInput."""
    return _each(records_in(logs), lambda said: _of_record(said, sender))


def span_reports(traces: Traces, sender: Sender) -> list[Report | InvalidInput]:
    """Of each span that tells of usage: the report, or what is wrong with it. Raises InvalidInput."""
    return _each(spans_in(traces), lambda said: _of_span(said, sender))


def _each(all_said: "Iterable[Said]", make: "Callable[[Said], Report | None]") -> list[Report | InvalidInput]:
    found: list[Report | InvalidInput] = []
    for number, said in enumerate(all_said):
        if number == RECORDS_MAX:
            raise InvalidInput("body", f"has more than {RECORDS_MAX:,} records: export fewer at a time")
        try:
            report = make(said)
        except InvalidInput as error:
            found.append(error.alone())
        else:
            if report is not None:
                found.append(report)
    return found


# -- log events ----------------------------------------------------------------------------------------------


def _of_record(said: Said, sender: Sender) -> Report | None:
    record = read_one(LogRecord, said.sent)
    found = said.of_resource | attributes_in(record.attributes)
    names = (found.get("event.name"), plain(record.body), record.eventName)
    make = next((_EVENTS[name] for name in names if isinstance(name, str) and name in _EVENTS), None)
    if make is None:
        return None
    at_ns = nanoseconds(record.timeUnixNano, "timeUnixNano")
    at_ns = at_ns or nanoseconds(record.observedTimeUnixNano, "observedTimeUnixNano")
    if not at_ns:
        raise InvalidInput("timeUnixNano", "is required, or else observedTimeUnixNano")
    return make(found, at_ns, sender)


def _claude_code(found: Attributes, at_ns: int, sender: Sender) -> Report:
    """Its `request_id` is that of its transcripts. Custom subagents are all called `custom`, so `agent.name`
    tells nobody apart: a subagent's calls are those of its session's agent."""
    written, for_an_hour = (
        _count(found, "cache_creation_5m_tokens"),
        _count(found, "cache_creation_1h_tokens"),
    )
    if written is None and for_an_hour is None:
        written = _count(found, "cache_creation_tokens")
    cost = found.get("cost_usd")
    usage = Usage(
        input_tokens=_count(found, "input_tokens"),
        output_tokens=_count(found, "output_tokens"),
        cache_read_tokens=_count(found, "cache_read_tokens"),
        cache_write_tokens=written,
        cache_write_1h_tokens=for_an_hour,
        model=_text(found, "model", NAME_MAX),
        cost_nano_usd=None if cost is None else nano_usd(cost),
        cost_source="unpriced" if cost is None else "reported",
    )
    session = _text(found, "session.id")
    provider = _text(found, "anthropic.provider", NAME_MAX) or "anthropic"
    return Report(
        Who(
            sender.agent(found.get(AGENT), "claude-code"),
            _SERVICES.get(provider, provider),
            session=session,
        ),
        usage,
        _text(found, "request_id") or _made_id(session, at_ns, usage),
        _text(found, "query_source"),
        sender.source,
        at_ns // _MICRO_NS,
        None,
        _milliseconds(found.get("duration_ms")),
        _kept(found, "agent.name", "agent_id", "effort", "prompt.id", "speed"),
    )


def _codex(found: Attributes, at_ns: int, sender: Sender) -> Report | None:
    """`input_token_count` has the cached ones in it, `output_token_count` the reasoning.

    A response is completed twice: once with how long it took, and then with its tokens. That is the call.
    """
    if found.get("event.kind") != "response.completed" or found.get("input_token_count") is None:
        return None
    session = _text(found, "conversation.id")
    usage = _with_cache(
        _count(found, "input_token_count"),
        _count(found, "output_token_count"),
        _count(found, "cached_token_count"),
        _count(found, "cache_write_token_count"),
        _text(found, "model", NAME_MAX),
    )
    return Report(
        Who(sender.agent(found.get(AGENT), "codex"), "openai", session=session),
        usage,
        _made_id(session, at_ns, usage),
        None,
        sender.source,
        at_ns // _MICRO_NS,
        None,
        _milliseconds(found.get("duration_ms")),
        _kept(found, "reasoning_token_count"),
    )


def _gemini(found: Attributes, at_ns: int, sender: Sender) -> Report:
    """`input_token_count` has the cached ones in it. Thoughts are paid as output, and not in its count. The
    other event about the same call, `gen_ai.client.inference.operation.details`, is passed over."""
    session = _text(found, "session.id")
    answered, thoughts = _count(found, "output_token_count"), _count(found, "thoughts_token_count")
    usage = _with_cache(
        _count(found, "input_token_count"),
        None if answered is None and thoughts is None else (answered or 0) + (thoughts or 0),
        _count(found, "cached_content_token_count"),
        None,
        _text(found, "model", NAME_MAX),
    )
    return Report(
        Who(sender.agent(found.get(AGENT), "gemini-cli"), "google", session=session),
        usage,
        _made_id(session, at_ns, usage),
        None,
        sender.source,
        at_ns // _MICRO_NS,
        _status(found.get("status_code")),
        _milliseconds(found.get("duration_ms")),
        _kept(found, "prompt_id", "role", "thoughts_token_count"),
    )


_EVENTS: "dict[str, Callable[[Attributes, int, Sender], Report | None]]" = {
    "claude_code.api_request": _claude_code,
    "codex.sse_event": _codex,
    "gemini_cli.api_response": _gemini,
}


# -- spans ---------------------------------------------------------------------------------------------------


_READ = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens")
_WRITTEN = ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens")
"""The second of each is what it was called in 2024, and in what is not newer."""


def _first(found: Attributes, *names: str) -> int | None:
    return next((count for count in (_count(found, name) for name in names) if count is not None), None)


def _of_span(said: Said, sender: Sender) -> Report | None:
    span = read_one(Span, said.sent)
    own = attributes_in(span.attributes)
    read, written = (_first(own, *names) for names in (_READ, _WRITTEN))
    model = _text(own, "gen_ai.response.model", NAME_MAX) or _text(own, "gen_ai.request.model", NAME_MAX)
    operation = _text(own, "gen_ai.operation.name")
    if (read is None and written is None) or operation in _SUMS or (model is None and operation is None):
        return None
    from_cache = _count(own, "gen_ai.usage.cache_read.input_tokens")
    to_cache = _count(own, "gen_ai.usage.cache_creation.input_tokens")
    provider = _text(own, "gen_ai.provider.name", NAME_MAX) or _text(own, "gen_ai.system", NAME_MAX)
    if provider is None:
        raise InvalidInput("gen_ai.provider.name", "is required: it is the service that is used")
    found = said.of_resource | own
    named = next(
        (found[key] for key in (AGENT, "gen_ai.agent.id", "gen_ai.agent.name") if found.get(key)), None
    )
    program = usable(said.of_resource.get("service.name")) or "unknown_service"
    started_ns = nanoseconds(span.startTimeUnixNano, "startTimeUnixNano")
    ended_ns = nanoseconds(span.endTimeUnixNano, "endTimeUnixNano") or started_ns
    if not ended_ns:
        raise InvalidInput("endTimeUnixNano", "is required")
    return Report(
        Who(
            sender.agent(named, program),
            _SERVICES.get(provider, provider),
            session=_text(found, "gen_ai.conversation.id") or _text(found, "session.id"),
        ),
        _with_cache(read, written, from_cache, to_cache, model),
        f"{_hex(span.traceId, 32, 'traceId')}-{_hex(span.spanId, 16, 'spanId')}",
        operation,
        sender.source,
        ended_ns // _MICRO_NS,
        _span_status(span, own),
        _milliseconds(max(ended_ns - started_ns, 0) // _MILLI_NS) if started_ns else None,
        _kept(own, "error.type", "gen_ai.agent.name", "gen_ai.response.id"),
    )


def _hex(sent: str, digits: int, field: str) -> str:
    """An id. Raises InvalidInput."""
    found = sent.lower()
    if len(found) != digits or not _HEX.fullmatch(found):
        raise InvalidInput(field, f"must be {digits} hexadecimal digits, and not all 0")
    return found


def _span_status(span: Span, found: Attributes) -> int | None:
    """An HTTP status: the one that the span names, or that of any failure; None if all went well."""
    said = _status(found.get("http.response.status_code")) or _status(found.get("error.type"))
    if said is not None:
        return said
    return _FAILED if span.status is not None and span.status.code in _ERROR else None


# -- both ----------------------------------------------------------------------------------------------------


def _with_cache(
    read: int | None, written: int | None, from_cache: int | None, to_cache: int | None, model: str | None
) -> Usage:
    """`read` has the cached ones in it; where it is less than they are, it evidently has not."""
    cached = (from_cache or 0) + (to_cache or 0)
    return Usage(
        input_tokens=read - cached if read is not None and read >= cached else read,
        output_tokens=written,
        cache_read_tokens=from_cache,
        cache_write_tokens=to_cache,
        model=model,
    )


def _made_id(session: str | None, at_ns: int, usage: Usage) -> str:
    """One call of a session: nothing else happened in that millisecond with these counts."""
    counts = [usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, usage.cache_write_tokens]
    text = json.dumps([session, at_ns // _MILLI_NS, usage.model, *counts, usage.cache_write_1h_tokens])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _count(found: Attributes, key: str) -> int | None:
    """Raises InvalidInput."""
    value = found.get(key)
    if value is None:
        return None
    count = whole(value)
    if count is None:
        raise InvalidInput(key, "must be a whole number of at least 0")
    return count


def _milliseconds(value: Plain | None) -> int | None:
    """How long it took, as near as can be told; None for what cannot be, such as where a clock was set back:
    that spoils no usage."""
    try:
        duration_ms = -1 if value is None else round(float(value))
    except (ValueError, OverflowError):  # no number, or no finite one
        return None
    return duration_ms if 0 <= duration_ms <= DURATION_MS_MAX else None


def _status(value: Plain | None) -> int | None:
    status = None if value is None else whole(value)
    return status if status is not None and 100 <= status <= 599 else None


def _text(found: Attributes, key: str, maximum: int = ID_MAX) -> str | None:
    """What can be a name; whatever else it is, is as if it had not been said."""
    return usable(found.get(key), maximum)


def _kept(found: Attributes, *keys: str) -> str | None:
    """What the ledger has no field for, as an event's metadata."""
    kept = {key: found[key] for key in keys if _is_kept(found.get(key))}
    if not kept:
        return None
    return json.dumps(kept, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _is_kept(value: Plain | None) -> bool:
    if isinstance(value, int):
        return value.bit_length() < 64
    return usable(value, ID_MAX) is not None
