"""Turns at one file: who waits first writes first, and nobody waits longer than it was told to."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

import pytest

from agent_meter_mcp.core.errors import StoreBusy
from agent_meter_mcp.store.sqlite import turnstile
from agent_meter_mcp.store.sqlite.turnstile import Turnstile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

WAIT_S = 10.0


class Time:
    """Time that passes only while somebody sleeps. `at` is done at its moment."""

    def __init__(self, at_s: float, at: Callable[[], None]) -> None:
        self.now_s = 1000.0
        self._at_s = self.now_s + at_s
        self._at = at
        self._is_done = False

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        if self.now_s >= self._at_s and not self._is_done:
            self._is_done = True
            self._at()


def test_the_wait_for_the_queue_and_the_wait_for_sqlite_are_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "usage.db")
    lock = os.open(f"{path}-queue", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    time = Time(6.0, lambda: os.close(lock))
    monkeypatch.setattr(turnstile, "time", time)
    began_s, tries = time.now_s, 0

    def begin() -> bool:
        nonlocal tries
        tries += 1
        return False

    with pytest.raises(StoreBusy, match="for 10 s"):
        Turnstile(path, WAIT_S).pass_with(begin)
    assert tries  # it did come to the head of the queue
    assert WAIT_S <= time.now_s - began_s < WAIT_S + 0.1


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The path of a ledger at the head of whose queue somebody stands and does nothing, in time that passes
    by itself."""
    path = str(tmp_path / "usage.db")
    lock = os.open(f"{path}-queue", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    monkeypatch.setattr(turnstile, "time", Time(0.0, lambda: None))
    yield path
    os.close(lock)


def test_a_process_that_was_stopped_at_the_head_does_not_stop_the_others(stopped: str) -> None:
    tries = [False, False, True]
    Turnstile(stopped, WAIT_S).pass_with(lambda: tries.pop(0))
    assert tries == []


def test_who_makes_the_file_is_alone_however_long_that_takes(stopped: str) -> None:
    with pytest.raises(StoreBusy, match="for 10 s"):
        turnstile.alone(stopped, WAIT_S, pytest.fail)


def test_who_comes_does_not_overtake_the_one_at_the_head(tmp_path: Path) -> None:
    path = str(tmp_path / "usage.db")
    waiting, coming = Turnstile(path, WAIT_S), Turnstile(path, 0.0)

    def begin() -> bool:
        with pytest.raises(StoreBusy):
            coming.pass_with(pytest.fail)
        return True

    waiting.pass_with(begin)
    passed: list[bool] = []
    coming.pass_with(lambda: passed.append(True) or True)
    assert passed == [True]


def test_who_fails_or_gives_up_stands_in_nobodys_way(tmp_path: Path) -> None:
    path = str(tmp_path / "usage.db")
    first, second = Turnstile(path, 0.0), Turnstile(path, 0.0)
    with pytest.raises(ZeroDivisionError):
        first.pass_with(lambda: bool(1 // 0))
    with pytest.raises(StoreBusy):
        first.pass_with(lambda: False)
    second.pass_with(lambda: True)
