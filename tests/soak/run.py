"""`python -m tests.soak.run [--seconds 60] [--clients 200]`: a server under many clients.

Half of the clients are agents that record over MCP, half watch the event stream; every second each of them
goes away with a chance of one in a hundred, in the middle of whatever it does, and comes back. At the end:
every acknowledged event is in the ledger, every watcher has seen every event once (it resumes where it was),
and the server holds no connection and hardly more memory than before. The exit code is 1 if not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx2
from mcp import Client

from tests.clients.serving import running_server

LEAVES_PER_S = 0.01
PAUSE_S = 1.0
QUIET_S = 15.0
"""So long the watchers have to hear of the last events, and the server to notice who is gone."""
GROWTH_MB_MAX = 64
FILES_MORE_MAX = 8


@dataclass
class Seen:
    """What all clients together did and saw."""

    acknowledged: set[str] = field(default_factory=set[str])
    calls: int = 0
    left: int = 0
    failures: list[str] = field(default_factory=list[str])
    watched: list[dict[str, int]] = field(default_factory=list[dict[str, int]])
    lost: int = 0
    watching: int = 0
    all_sent: bool = False
    all_watch: anyio.Event = field(default_factory=anyio.Event)


async def agent(url: str, name: str, seen: Seen, rng: random.Random, end: float) -> None:
    """Records every second; an id that was not acknowledged is sent again by the next connection."""
    number, start = 0, f"{name}-{rng.getrandbits(64):x}"
    while time.monotonic() < end:
        with anyio.move_on_after(rng.expovariate(LEAVES_PER_S)) as connected:
            async with Client(url) as client:
                while time.monotonic() < end:
                    answer = await client.call_tool(
                        "record_usage",
                        {"agent": name, "service": "soak", "id": f"{start}-{number}", "cost_usd": 0.001},
                    )
                    if answer.is_error:
                        seen.failures.append(str(answer.content))
                    seen.acknowledged.add(f"{start}-{number}")
                    seen.calls += 1
                    number += 1
                    await anyio.sleep(PAUSE_S * rng.uniform(0.5, 1.5))
        seen.left += connected.cancelled_caught


async def watcher(url: str, seen: Seen, rng: random.Random, end: float, watchers: int) -> None:
    """Follows the event stream, and resumes it after each time that it went away."""
    found: dict[str, int] = {}
    seen.watched.append(found)
    last = ""
    async with httpx2.AsyncClient(timeout=httpx2.Timeout(30, pool=None)) as http:
        while time.monotonic() < end + QUIET_S and not (seen.all_sent and seen.acknowledged <= found.keys()):
            stays_s = min(rng.expovariate(LEAVES_PER_S), end + QUIET_S - time.monotonic())
            with anyio.move_on_after(stays_s):
                headers = {"Last-Event-ID": last} if last else {}
                async with http.stream("GET", url, headers=headers) as stream:
                    if stream.status_code != 200:
                        seen.failures.append(f"stream: {stream.status_code}")
                        await anyio.sleep(1)
                        continue
                    seen.watching += not last
                    if seen.watching >= watchers:
                        seen.all_watch.set()
                    kind = ""
                    async for line in stream.aiter_lines():
                        name, _, value = line.partition(": ")
                        if name == "event":
                            kind = value
                        elif name == "id":
                            last = value
                        elif name == "data" and kind == "usage":
                            one = json.loads(value)["id"]
                            found[one] = found.get(one, 0) + 1
                        elif name == "data" and kind == "lost":
                            seen.lost += 1
                        if not line and seen.all_sent and seen.acknowledged <= found.keys():
                            break


async def soak(url: str, clients: int, seconds: float, seed: int) -> Seen:
    seen, end = Seen(), time.monotonic() + seconds
    async with anyio.create_task_group() as tasks:
        for number in range(clients // 2):
            rng = random.Random(f"{seed} w {number}")
            tasks.start_soon(watcher, f"{url}/v1/stream", seen, rng, end, clients // 2)
        with anyio.fail_after(QUIET_S):
            await seen.all_watch.wait()  # who watches from the beginning sees everything
        async with anyio.create_task_group() as agents:
            for number in range(clients - clients // 2):
                rng = random.Random(f"{seed} a {number}")
                agents.start_soon(agent, f"{url}/mcp", f"bot-{number:03}", seen, rng, end)
        seen.all_sent = True
    return seen


def memory_mb(process: int) -> float:
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def files(process: int) -> int:
    return len(os.listdir(f"/proc/{process}/fd"))


async def main(options: argparse.Namespace) -> list[str]:
    """What was wrong."""
    with tempfile.TemporaryDirectory() as folder, running_server(Path(folder) / "soak.db") as server:
        await soak(server.url, options.clients, 5, options.seed)  # so that all is imported and warm
        await _until_gone(server.process.pid)
        before = memory_mb(server.process.pid), files(server.process.pid)
        seen = await soak(server.url, options.clients, options.seconds, options.seed + 1)
        await _until_gone(server.process.pid, before[1])
        after = memory_mb(server.process.pid), files(server.process.pid)
        found = list(seen.failures[:5])
        kept = _ids(server.url)
        missing = seen.acknowledged - kept
        found += [f"{len(missing)} acknowledged events are not in the ledger"] if missing else []
        blind = [
            len(seen.acknowledged - one.keys()) for one in seen.watched if seen.acknowledged - one.keys()
        ]
        found += [f"{len(blind)} watchers missed events, up to {max(blind)}"] if blind else []
        twice = sum(count > 1 for one in seen.watched for count in one.values())
        found += [f"{twice} events were seen twice"] if twice else []
        found += [f"{seen.lost} times a watcher was told that it lost events"] if seen.lost else []
        if after[0] - before[0] > GROWTH_MB_MAX:
            found.append(f"memory grew by {after[0] - before[0]:.0f} MB")
        if after[1] - before[1] > FILES_MORE_MAX:
            found.append(f"{after[1] - before[1]} more files are open than before")
        sys.stdout.write(
            f"{seen.calls:,} calls by {options.clients} clients in {options.seconds:g} s, one went away"
            f" {seen.left} times; memory {before[0]:.0f} -> {after[0]:.0f} MB,"
            f" open files {before[1]} -> {after[1]}\n"
        )
        checked = await anyio.run_process(
            [sys.executable, "-m", "agent_meter_mcp", "--db", str(Path(folder) / "soak.db"), "verify"],
            check=False,
        )
        found += ["verify found differences"] if checked.returncode else []
        return found


async def _until_gone(process: int, at_most: int = 0) -> None:
    """Until the server has closed what its clients left, or for as long as that may take."""
    with anyio.move_on_after(QUIET_S):
        while files(process) > at_most:
            await anyio.sleep(0.5)
            if not at_most:
                at_most = files(process)
                await anyio.sleep(2)


def _ids(url: str) -> set[str]:
    """All ids in the ledger, page by page."""
    found: set[str] = set()
    cursor: dict[str, Any] = {}
    while True:
        page = httpx2.get(f"{url}/v1/usage", params={"limit": 500, **cursor}, timeout=30).json()
        found |= {event["id"] for event in page["events"]}
        if page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.soak.run", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    wanted = parser.parse_args()
    sys.stdout.write(f"seed {wanted.seed}\n")
    problems = ["interrupted"]
    with suppress(KeyboardInterrupt):
        problems = anyio.run(main, wanted)
    sys.stdout.write(("\n".join(problems) or "all is well") + "\n")
    sys.exit(bool(problems))
