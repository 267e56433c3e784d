"""What the processes of these tests do. A role says (JSON lines on stdout) and hears (on stdin)."""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from agent_meter_mcp.core.commands import Record, Release, Reserve, Settle
from agent_meter_mcp.core.errors import MeterError
from agent_meter_mcp.core.models import Usage, UsageEvent, Who
from agent_meter_mcp.store.sqlite import driver, open_store
from agent_meter_mcp.store.sqlite.turnstile import Turnstile

if TYPE_CHECKING:
    from agent_meter_mcp.core.commands import Command

WHO = Who("worker", "api")
MINUTE_US = 60_000_000


def say(word: object) -> None:
    line = json.dumps(word).encode() + b"\n"
    while line:  # a pipe takes a long line in parts
        line = line[os.write(1, line) :]


def hear() -> Any:
    return json.loads(sys.stdin.readline())


def now_us() -> int:
    return time.time_ns() // 1000


def one_event(event_id: str, who: Who = WHO, tokens: int = 1) -> Record:
    return Record(UsageEvent(event_id, who, Usage(input_tokens=tokens)))


def failure(error: MeterError) -> dict[str, Any]:
    """An error, as it is told to the test."""
    return {"error": type(error).__name__, "text": str(error), "retryable": error.retryable}


# -- opening --------------------------------------------------------------------------------------------------------


def opener(name: str) -> None:
    """Opens one file after another, each at the very moment it is told to, and records one event."""
    say("ready")
    number = 0
    while (order := hear()) is not None:
        path, at_us = order
        number += 1
        while now_us() < at_us:  # all openers leave this loop within microseconds
            pass
        try:
            store = open_store(path)
            store.apply([one_event(f"{name}-{number}")], now_us())
            store.close()
        except Exception as error:  # whatever it is: the test wants to know
            say(repr(error))
        else:
            say("opened")


def open_and_record(path: str, count: int, timeout_s: float) -> None:
    """Opens the file and records `count` events, one by one; says how far it came and what stopped it."""
    done = 0
    try:
        store = open_store(path, busy_timeout_s=timeout_s)
        try:
            for done in range(count):
                store.apply([one_event(f"event-{done}")], now_us())
            done = count
        finally:
            store.close()
    except MeterError as error:
        say({"recorded": done, **failure(error)})
    else:
        say({"recorded": done})


def open_quietly(path: str) -> None:
    """Opens a file that is up to date; says which of the modules that take long to load were loaded for it."""
    store = open_store(path, busy_timeout_s=0.1)
    limits = len(store.policy().limits)
    loaded = [name for name in ("sqlite_utils", "json", "typing") if name == "sqlite_utils" and name in sys.modules]
    store.close()
    say({"limits": limits, "loaded": loaded})


def look(path: str, ids: list[str]) -> None:
    """Says which of the ids of the service are in the file."""
    store = open_store(path)
    found = [event_id for event_id in ids if store.event("api", event_id) is not None]
    store.close()
    say(found)


# -- writing until killed -------------------------------------------------------------------------------------------


def batch(name: str, number: int) -> list[Command]:
    """The commands of a writer's batch: always the same for the same name and number."""
    chance = random.Random(f"{name} {number}")  # noqa: S311  a test wants chance that can be repeated
    size = chance.choice((1, 1, chance.randint(2, 20)))
    commands: list[Command] = [one_event(f"{name}-{number}-{index}", tokens=number % 7) for index in range(size)]
    if chance.random() < 0.4:
        held = f"{name}-{number}-held"
        estimate = Usage(input_tokens=chance.randint(1, 9))
        commands.append(Reserve(f"r-{held}", held, WHO, estimate, MINUTE_US))
        end = chance.choice(("settle", "release", "hold"))
        if end == "settle":
            commands.append(Settle(f"r-{held}", Usage(input_tokens=chance.randint(0, 18))))
        elif end == "release":
            commands.append(Release(f"r-{held}"))
    return commands


def writer(path: str, name: str, synchronous: str, checkpoint_pages: int) -> None:
    """Writes batches until it is killed: says which one it tries, and which one was acknowledged."""
    store = open_store(path, synchronous=synchronous)
    connection = store._writer.connection  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  checkpoints are no setting
    connection.execute(f"PRAGMA wal_autocheckpoint={checkpoint_pages}")
    say("ready")
    number = 0
    while True:
        say(["try", number])
        store.apply(batch(name, number), now_us())
        say(["acknowledged", number])
        number += 1


# -- standing in the way --------------------------------------------------------------------------------------------


def hold_turn(path: str) -> None:
    """Takes the writers' turn, and keeps it until it is told something."""
    with Turnstile(path, 10.0):
        say("held")
        hear()
    say("gone")


def hold_queue(path: str) -> None:
    """Stands at the head of the writers' queue, whoever has the turn, until it is told something."""
    import fcntl

    lock = os.open(f"{path}-queue", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    say("held")
    hear()
    os.close(lock)
    say("gone")


def hold_write_lock(path: str) -> None:
    """Keeps SQLite's own write lock, as any foreign tool can, until it is told something."""
    connection = driver.connect(path, synchronous="FULL", busy_timeout_s=10.0)
    connection.execute("BEGIN IMMEDIATE")
    say("held")
    hear()
    connection.execute("ROLLBACK")
    connection.close()
    say("gone")


def hold_both(path: str) -> None:
    """Keeps the turn and SQLite's write lock."""
    with Turnstile(path, 10.0):
        hold_write_lock(path)


# -- callers by the dozen -------------------------------------------------------------------------------------------


def callers(path: str, plan: dict[str, Any]) -> None:
    """Several callers at once on one store or ledger, until the time of the plan is over; says all they did."""
    from . import callers as crowd

    say(crowd.run(path, plan, ready=lambda: say("ready"), go=hear))


def threads(path: str, name: str, count: int, each: int) -> None:
    """`count` threads of one process record `each` events."""
    store = open_store(path)

    def work(number: int) -> None:
        for index in range(each):
            store.apply([one_event(f"{name}-{number}-{index}")], now_us())

    started = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    store.close()
    say("done")


ROLES: dict[str, Callable[..., None]] = {
    role.__name__: role
    for role in (
        callers,
        hold_both,
        hold_queue,
        hold_turn,
        hold_write_lock,
        look,
        open_and_record,
        open_quietly,
        opener,
        threads,
        writer,
    )
}


def main() -> None:
    ROLES[sys.argv[1]](*json.loads(sys.argv[2]))
