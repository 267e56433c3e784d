from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from agent_meter_mcp import Ledger, Settings, load_settings, open_ledger


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.delenv("NO_COLOR", raising=False)
    return load_settings(
        {"AGENT_METER_DB": str(tmp_path / "meter.db"), "AGENT_METER_PRICES": str(tmp_path / "p")}
    )


@pytest.fixture
async def ledger(settings: Settings) -> AsyncGenerator[Ledger]:
    """Those who use and write, as another process would."""
    async with open_ledger(settings) as opened:
        yield opened
