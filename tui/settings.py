"""What a person chose at the dashboard, kept for the next time: in a file of its own, never in the ledger."""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING, Any, cast

from agent_meter_mcp.core.text import shown
from agent_meter_mcp.sources.base import RANGES

if TYPE_CHECKING:
    from collections.abc import Collection

    from agent_meter_mcp.sources.base import Range


class Choices:
    """Words under names. `path` None: nothing is kept.

    No file, and nothing that is wrong with it, stops the dashboard: `trouble` says what is, and the usual
    words are taken.
    """

    def __init__(self, path: str | None = None) -> None:
        self._path = path
        self._lock = Lock()
        self.trouble = ""
        self._words = {} if path is None else self._read(path)

    def get(self, name: str, allowed: Collection[str], usual: str) -> str:
        """What was chosen, if it still can be; else the usual word."""
        word = self._words.get(name)
        if not isinstance(word, str) or word not in allowed:
            self._words[name] = word = usual
        return word

    @property
    def range(self) -> Range:
        """What the totals are about."""
        names = [one.name for one in RANGES]
        return RANGES[names.index(self.get("range", names, names[1]))]

    def put(self, name: str, word: str) -> bool:
        """Whether there is something new to save."""
        is_new, self._words[name] = self._words.get(name) != word, word
        return is_new and self._path is not None

    def save(self) -> None:
        """Writes the file; it is there whole or as it was. Raises OSError."""
        if self._path is None:
            return
        target = os.path.realpath(self._path)
        folder = os.path.dirname(target)
        with self._lock:  # the last one who writes knows all that was chosen
            os.makedirs(folder, mode=0o700, exist_ok=True)
            handle, unfinished = tempfile.mkstemp(prefix=".dashboard.", dir=folder)
            try:
                with open(handle, "w", encoding="utf-8") as file:
                    json.dump(self._words, file, indent=2, sort_keys=True)
                    file.write("\n")
                os.replace(unfinished, target)
            except BaseException:
                with suppress(OSError):
                    os.unlink(unfinished)
                raise

    def _read(self, path: str) -> dict[str, Any]:
        try:
            with open(path, encoding="utf-8") as file:
                words = json.load(file)
            if not isinstance(words, dict):
                raise ValueError("it is no object")
            return cast("dict[str, Any]", words)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            why = (
                error.strerror if isinstance(error, OSError) else "it is not the JSON that was written there"
            )
            self.trouble = f"what was chosen last time cannot be read from {shown(path)}: {why}"
            return {}
