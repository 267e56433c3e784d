"""The SQLite store. `open_store` is all that others need."""

from __future__ import annotations

from .store import SqliteStore, open_store

__all__ = ["SqliteStore", "open_store"]
