"""Each kind of store, under the same tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .building import Desk

if TYPE_CHECKING:
    from agent_meter_mcp.store.base import Store


@pytest.fixture(params=["memory", "sqlite"])
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Desk]:
    """A desk at a new store. Whatever a test did, the store's views agree with its events afterwards."""
    store = new_store(request.param, tmp_path)
    yield Desk(store)
    assert list(store.verify()) == []
    store.close()


def new_store(kind: str, folder: Path) -> Store:
    if kind == "memory":
        from agent_meter_mcp.store.memory import MemoryStore

        return MemoryStore()
    from agent_meter_mcp.store.sqlite import open_store

    return open_store(str(folder / "ledger.db"))
