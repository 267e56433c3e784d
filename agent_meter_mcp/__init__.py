"""Budgets, usage metering and a kill switch for AI agents, on one SQLite file.

Public names are imported when they are first used: `import agent_meter_mcp` alone costs next to nothing.
"""

from __future__ import annotations

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .client import Meter, OverBudget, SyncMeter
    from .core.commands import Recorded, Reserved, Settle
    from .core.decide import Decision
    from .core.errors import MeterError
    from .core.models import LimitKey, Subject, Usage, Who
    from .core.roles import Caller
    from .faces.middleware import MeterMiddleware, meter_tools
    from .intake import Report
    from .ledger import Ledger
    from .runtime import open_ledger
    from .settings import Settings, load_settings

__all__ = [
    "Caller",
    "Decision",
    "Ledger",
    "LimitKey",
    "Meter",
    "MeterError",
    "MeterMiddleware",
    "OverBudget",
    "Recorded",
    "Report",
    "Reserved",
    "Settings",
    "Settle",
    "Subject",
    "SyncMeter",
    "Usage",
    "Who",
    "__version__",
    "load_settings",
    "meter_tools",
    "open_ledger",
]

_HOMES = {
    "Caller": "core.roles",
    "Decision": "core.decide",
    "Ledger": "ledger",
    "LimitKey": "core.models",
    "Meter": "client",
    "MeterError": "core.errors",
    "MeterMiddleware": "faces.middleware",
    "OverBudget": "client",
    "Recorded": "core.commands",
    "Report": "intake",
    "Reserved": "core.commands",
    "Settings": "settings",
    "Settle": "core.commands",
    "Subject": "core.models",
    "SyncMeter": "client",
    "Usage": "core.models",
    "Who": "core.models",
    "load_settings": "settings",
    "meter_tools": "faces.middleware",
    "open_ledger": "runtime",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
