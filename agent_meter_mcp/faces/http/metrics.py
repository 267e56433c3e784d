"""Figures for Prometheus. Every label has few values: no agent's or service's name is one.

What the ledger knows is asked of it at each scrape, so it is the same whichever process on the file answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from agent_meter_mcp.core.models import OUTCOMES
from agent_meter_mcp.core.money import number_of
from agent_meter_mcp.core.queries import SummaryQuery, UsageFilter

from . import CALLER

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prometheus_client.metrics_core import Metric
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from agent_meter_mcp.core.queries import LimitView, Summary
    from agent_meter_mcp.core.roles import Caller
    from agent_meter_mcp.ledger import Ledger

LIMITS_TOLD_MAX = 100
"""The fullest limits are told; how many there are is a figure of its own."""


class Metrics:
    """The counters of this process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.responses = Counter(
            "agent_meter_http_responses",
            "Answers of this process, by the caller's role and the status",
            ("role", "status"),
            registry=self.registry,
        )

    def refused(self, status: int) -> None:
        """Somebody was not let in, and got this answer."""
        self.responses.labels("none", str(status)).inc()


class Counted:
    """ASGI middleware that counts the answers."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        caller: Caller | None = scope.get(CALLER)
        role = "none" if caller is None else caller.role

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.responses.labels(role, str(message["status"])).inc()
            await send(message)

        await self._app(scope, receive, counted)


async def exposition(metrics: Metrics, ledger: Ledger, caller: Caller, accepted: str) -> tuple[bytes, str]:
    """The text of a scrape and its content type. Raises Forbidden, StoreError."""
    query = SummaryQuery(UsageFilter(), ("outcome",))
    families = [
        *_usage(await ledger.summary(caller, query)),
        *_limits(await ledger.limits(caller)),
        _gauge("agent_meter_kill_switches_engaged", "Kill switches that are engaged",
               len(await ledger.switches(caller))),
        _gauge("agent_meter_reservations_open", "Holds that are open",
               len(await ledger.reservations(caller))),
    ]  # fmt: skip
    registry = CollectorRegistry()
    registry.register(_Collected([*families, *metrics.registry.collect()]))
    encode, content_type = choose_encoder(accepted)
    return encode(registry), content_type


class _Collected(Collector):
    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _usage(summary: Summary) -> list[Metric]:
    events = CounterMetricFamily(
        "agent_meter_events", "Usage events by outcome; rejected ones are refusals", labels=("outcome",)
    )
    by_outcome = {group.key[0]: group.totals for group in summary.groups}
    for outcome in OUTCOMES:
        totals = by_outcome.get(outcome)
        counted = 0 if totals is None else totals.rejected if outcome == "rejected" else totals.events
        events.add_metric((outcome,), counted)
    total = summary.total
    kinds = {
        "input": total.input_tokens,
        "output": total.output_tokens,
        "cache_read": total.cache_read_tokens,
        "cache_write": total.cache_write_tokens,
        "cache_write_1h": total.cache_write_1h_tokens,
    }
    tokens = CounterMetricFamily("agent_meter_tokens", "Tokens counted, by kind", labels=("kind",))
    for kind, counted in kinds.items():
        tokens.add_metric((kind,), counted)
    return [
        events,
        tokens,
        _counter("agent_meter_requests", "Requests counted", total.requests),
        _counter("agent_meter_units", "Units counted", number_of("units", total.units_micro)),
        _counter("agent_meter_cost_usd", "Cost in US dollars", number_of("cost_usd", total.cost_nano_usd)),
        _counter("agent_meter_unpriced_events", "Events without a known price", total.unpriced),
    ]


def _limits(views: Sequence[LimitView]) -> list[Metric]:
    known = [(view.limit, view.state) for view in views if view.state is not None]
    known.sort(key=lambda pair: -pair[1].percent)
    fullness = GaugeMetricFamily(
        "agent_meter_limit_fullness",
        "Used and held of a limit, 1 is full; the fullest ones, for separate counters the tightest",
        labels=("limit_id", "metric", "window", "action"),
    )
    for limit, state in known[:LIMITS_TOLD_MAX]:
        labels = (limit.limit_id, limit.key.metric, limit.key.window, limit.action)
        fullness.add_metric(labels, state.percent / 100)
    exceeded = sum(state.exceeded for _, state in known)
    return [
        fullness,
        _gauge("agent_meter_limits", "Limits that are set", len({view.limit.limit_id for view in views})),
        _gauge("agent_meter_limits_exceeded", "Limits of which nothing is left", exceeded),
    ]


def _counter(name: str, says: str, value: float) -> Metric:
    return CounterMetricFamily(name, says, value=value)


def _gauge(name: str, says: str, value: float) -> Metric:
    return GaugeMetricFamily(name, says, value=value)
