"""The pages: each is imported when it is opened, and the first picture waits for none but its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from .app import Dashboard
    from .page import Page


def _agents(dashboard: Dashboard) -> Page:
    from .overview import Overview

    return Overview(dashboard)


def _limits(dashboard: Dashboard) -> Page:
    from .limits import LimitsPage

    return LimitsPage(dashboard)


def _services(dashboard: Dashboard) -> Page:
    from .services import ServicesPage

    return ServicesPage(dashboard)


def _sessions(dashboard: Dashboard) -> Page:
    from .sessions import SessionsPage

    return SessionsPage(dashboard)


def _audit(dashboard: Dashboard) -> Page:
    from .audit import AuditPage

    return AuditPage(dashboard)


PAGES: dict[str, Callable[[Dashboard], Page]] = {
    "agents": _agents,
    "limits": _limits,
    "services": _services,
    "sessions": _sessions,
    "audit": _audit,
}
"""In the order of the tabs, by their `Page.MODE`."""


def agent(dashboard: Dashboard, agent_id: str) -> Page:
    """All about one agent."""
    from .agent import AgentScreen

    return AgentScreen(dashboard, agent_id)
