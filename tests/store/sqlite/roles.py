"""What the processes of these tests do. A role says (JSON lines on stdout) and hears (on stdin)."""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from agent_meter_mcp.core.commands import Record, Release, Reserve, Settle
from agent_meter_mcp.core.errors import MeterError
from agent_meter_mcp.core.models import Usage, UsageEvent, Who
from agent_meter_mcp.store.sqlite import SqliteStore, driver, open_store

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


# -- opening ---------------------------------------------------------------------------------------------


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


def open_in_threads(path: str, count: int) -> None:
    """Threads that open the file at the same instant; then each store records one event when told to."""
    gate = threading.Barrier(count)
    stores: list[SqliteStore] = []

    def work() -> None:
        gate.wait()
        stores.append(open_store(path))

    opening = [threading.Thread(target=work) for _ in range(count)]
    for thread in opening:
        thread.start()
    for thread in opening:
        thread.join()
    assert len(stores) == count
    say("opened")
    for number, store in enumerate(stores):
        hear()
        store.apply([one_event(f"store-{number}")], now_us())
        say("recorded")
    for store in stores:
        store.close()


def open_and_record(path: str, count: int, timeout_s: float) -> None:
    """Opens the file, reads, and records `count` events one by one; says what came of each of the three."""
    said: dict[str, Any] = {"opened": False, "recorded": 0}
    try:
        store = open_store(path, busy_timeout_s=timeout_s)
        said["opened"] = True
        said["read"] = store.event("api", "before") is not None
        for number in range(count):
            store.apply([one_event(f"event-{number}")], now_us())
            said["recorded"] += 1
    except MeterError as error:
        said |= failure(error)
    say(said)


def recorder(path: str) -> None:
    """Records each event that it is told, and says what came of it; closes the file when told null."""
    store = open_store(path)
    say("opened")
    while (event_id := hear()) is not None:
        try:
            store.apply([one_event(event_id)], now_us())
        except MeterError as error:
            say(failure(error))
        else:
            say("recorded")
    store.close()


def reopener(path: str) -> None:
    """Opens the file; when told to, closes it and opens it again, and says what came of that."""
    store = open_store(path)
    say("opened")
    hear()
    store.close()
    try:
        open_store(path).close()
    except MeterError as error:
        say(failure(error))
    else:
        say("opened")


def record_without_rights(path: str, nobody: int) -> None:
    """As `open_and_record`, by a user who may do what the file's rights say. Root becomes that user first."""
    with tempfile.TemporaryDirectory() as folder:  # loads all it needs: that may be where only root can read
        store = open_store(os.path.join(folder, "usage.db"))
        store.event("api", "before")
        store.apply([one_event("before")], now_us())
        store.close()
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(nobody)
        os.setuid(nobody)
    open_and_record(path, 1, 0.2)


def run_out_of_space(path: str, bytes_max: int) -> None:
    """Records batches until no file may grow any more, then finds space again; says how far it came."""
    import resource

    store = open_store(path)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_max, hard))
    number = 0
    try:
        while number < 100_000:
            store.apply(batch("w", number), now_us())
            number += 1
    except MeterError as error:
        say({"recorded": number, **failure(error)})
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    store.apply(batch("w", number), now_us())
    store.close()
    say({"recorded": number + 1})


def open_quietly(path: str) -> None:
    """Opens a file and reads its policy; says whether sqlite-utils was loaded for that."""
    store = open_store(path, busy_timeout_s=0.1)
    limits = len(store.policy().limits)
    loaded = [name for name in ("sqlite_utils",) if name in sys.modules]
    store.close()
    say({"limits": limits, "loaded": loaded})


def look(path: str, ids: list[str]) -> None:
    """Says which of the ids of the service are in the file."""
    store = open_store(path)
    found = [event_id for event_id in ids if store.event("api", event_id) is not None]
    store.close()
    say(found)


# -- writing until killed --------------------------------------------------------------------------------


def batch(name: str, number: int) -> list[Command]:
    """The commands of a writer's batch: always the same for the same name and number."""
    chance = random.Random(f"{name} {number}")
    size = chance.choice((1, 1, chance.randint(2, 20)))
    commands: list[Command] = [
        one_event(f"{name}-{number}-{index}", tokens=number % 7) for index in range(size)
    ]
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
    connection = store._writer.connection  # pyright: ignore[reportPrivateUsage]  checkpoints are no setting
    connection.execute(f"PRAGMA wal_autocheckpoint={checkpoint_pages}")
    say("ready")
    number = 0
    while True:
        say(["try", number])
        store.apply(batch(name, number), now_us())
        say(["acknowledged", number])
        number += 1


# -- standing in the way ---------------------------------------------------------------------------------


def hold_queue(path: str) -> None:
    """Stands at the head of the writers' queue until it is told something."""
    with _at_the_head(path):
        say("held")
        hear()
    say("gone")


@contextmanager
def _at_the_head(path: str) -> Generator[None]:
    import fcntl

    lock = os.open(f"{path}-queue", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield
    os.close(lock)


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
    """Keeps the queue and SQLite's write lock."""
    with _at_the_head(path):
        hold_write_lock(path)


# -- callers by the dozen --------------------------------------------------------------------------------


def callers(path: str, plan: dict[str, Any]) -> None:
    """Several callers on one store or ledger until the time of the plan is over; says all they did."""
    from . import callers as crowd

    say(crowd.run(path, plan, ready=lambda: say("ready"), go=hear))


ROLES: dict[str, Callable[..., None]] = {
    role.__name__: role
    for role in (
        callers,
        hold_both,
        hold_queue,
        hold_write_lock,
        look,
        open_and_record,
        open_in_threads,
        open_quietly,
        record_without_rights,
        recorder,
        reopener,
        opener,
        run_out_of_space,
        writer,
    )
}


def main() -> None:
    ROLES[sys.argv[1]](*json.loads(sys.argv[2]))
