#!/usr/bin/env python3
"""Four agents, one meter: a real server, real MCP clients in processes of their own, one fresh ledger.

The rogue is stopped while the others go on; an MCP client asks for the usage summary; the operator raises a
limit, pulls the kill switch and releases it; at the end the ledger is verified, and compared with what the
agents counted themselves. What is promised is checked: the exit code is 1 if any of it did not happen.
Needs no network and no API key, and leaves nothing behind.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from decimal import Decimal
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from mcp import Client

OVERDUE_S = 15.0
COLOURS = {200: "green", 429: "red", 403: "magenta"}
ROGUE: dict[str, Any] = {"agent": "rogue-bot", "metric": "requests", "window": "1m", "max": 20}
PAGES, PAGES_S = 8, 2
LIMITS: tuple[dict[str, Any], ...] = (
    {"agent": "*", "metric": "cost_usd", "window": "day", "max": 5},
    {"service": "payments-api", "metric": "cost_usd", "window": "month", "max": 25},
    {"agent": "data-crawler", "metric": "requests", "window": f"{PAGES_S}s", "max": PAGES},
    ROGUE,
)


# The agents: each in a process of its own, with nothing in its hands but an MCP client.


class Said(NamedTuple):
    """An answer that an agent got. Times are of the clock that all processes of a machine share."""

    tool: str
    began: float
    ended: float
    data: dict[str, Any]

    @property
    def code(self) -> int:
        """What it is over HTTP: 429 for a limit, 403 for a kill switch."""
        if self.data.get("allowed", True):
            return 200
        return 403 if any(reason["code"] == "kill_switch" for reason in self.data["reasons"]) else 429

    @property
    def text(self) -> str:
        return self.data["message"] if self.code == 200 else self.data["reasons"][0]["message"]

    @property
    def counts(self) -> bool:
        """Whether it acknowledges usage."""
        return self.data.get("status") == "recorded"


class Meter:
    """An agent's MCP client, with a wire to the screen."""

    def __init__(self, client: Client, wire: Connection[Any, Any]) -> None:
        self._client = client
        self._wire = wire

    async def __call__(self, tool: str, **arguments: Any) -> dict[str, Any]:
        began = time.monotonic()
        answer = await self._client.call_tool(tool, arguments)
        if answer.is_error or answer.structured_content is None:
            raise RuntimeError(f"{tool}: {answer.content}")
        self._wire.send(Said(tool, began, time.monotonic(), answer.structured_content))
        return answer.structured_content

    async def use(self, **estimate: Any) -> dict[str, Any]:
        """Uses a service, if the meter lets it, as much as it asked for."""
        held = await self("reserve_budget", **estimate)
        if held["allowed"]:
            await self("settle_reservation", reservation_id=held["reservation_id"])
        return held

    async def rest(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self.goes_on() and time.monotonic() < until:
            await anyio.sleep(0.05)

    def goes_on(self) -> bool:
        return not self._wire.poll()


async def research_bot(meter: Meter) -> None:
    """Well-behaved: asks before a step, reports what it used, takes its time."""
    step = 0
    while meter.goes_on():
        step += 1
        tokens = {"model": "claude-sonnet-5", "input_tokens": 1000 + 70 * (step % 9), "output_tokens": 300}
        if (await meter("check_budget", service="anthropic", **tokens))["allowed"]:
            await meter("record_usage", service="anthropic", operation="read", **tokens)
        await meter.rest(0.3)


async def billing_agent(meter: Meter) -> None:
    """Holds an estimate, works, settles what it really was. Every fourth card is declined: it lets go."""
    invoice = 0
    while meter.goes_on():
        invoice += 1
        held = await meter("reserve_budget", service="payments-api", operation="charge", cost_usd=0.35)
        await meter.rest(0.1)
        if held["allowed"]:
            end = {"action": "release"} if invoice % 4 == 0 else {"cost_usd": 0.21 + invoice % 9 / 100}
            await meter("settle_reservation", reservation_id=held["reservation_id"], **end)
        await meter.rest(0.3)


async def data_crawler(meter: Meter) -> None:
    """Works in bursts of six. When it is refused, it waits as long as it is told, and comes back."""
    while meter.goes_on():
        pages = [await meter.use(service="web", units=1, unit_type="page") for _ in range(6)]
        await meter.rest(max(page["retry_after_s"] or 0.2 for page in pages))


async def rogue_bot(meter: Meter) -> None:
    """A runaway loop: asks as fast as it can, and does not care what it is answered."""
    while meter.goes_on():
        await meter.use(service="search-api", operation="search", cost_usd=0.001)


BOTS = {bot.__name__.replace("_", "-"): bot for bot in (research_bot, billing_agent, data_crawler, rogue_bot)}


def run_agent(name: str, url: str, wire: Connection[Any, Any], other_end: Connection[Any, Any]) -> None:
    """The life of an agent's process: it works from the demo's first word to its second."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    other_end.close()

    async def live() -> None:
        async with connected(url, name) as client:
            wire.send(None)
            while not wire.poll():
                await anyio.sleep(0.01)
            wire.recv()
            await BOTS[name](Meter(client, wire))

    anyio.run(live)


def connected(url: str, name: str) -> Client:
    """An MCP client that calls itself `name`: whose usage it is, if a call does not say."""
    from mcp import Client
    from mcp.types import Implementation

    return Client(url, client_info=Implementation(name=name, version="1"))


# The stage: what is started here is certain to be gone at the end.


class Agent:
    """An agent's process, and what it was answered."""

    def __init__(self, name: str, url: str) -> None:
        # A fork has the client's modules already; elsewhere than on Linux it is not safe.
        context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        self.name = name
        self.wire, theirs = context.Pipe()
        self.process = context.Process(target=run_agent, args=(name, url, theirs, self.wire), daemon=True)
        self.process.start()
        theirs.close()
        self.said: list[Said] = []
        self.shown = 0
        self.ready = self.ended = False

    def hear(self) -> None:
        """Takes in what the agent has told by now."""
        try:
            while not self.ended and self.wire.poll():
                said = self.wire.recv()
                self.ready = True
                self.said += [] if said is None else [said]
        except (EOFError, ConnectionResetError):
            self.ended = True

    def got(self, *codes: int, since: float = 0) -> list[Said]:
        """What it was answered to calls that it began after `since`."""
        return [said for said in self.said if said.code in codes and said.began >= since]

    def end(self) -> None:
        self.process.kill()
        self.process.join()


@contextmanager
def serving() -> Generator[str]:
    """A server on a free port: its URL."""
    command = [sys.executable, "-m", "agent_meter_mcp", "serve", "--port", "0"]
    # In a session of its own: Ctrl-C is for the demo, which ends the server after its clients.
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as server:
        try:
            import_module("mcp")  # while the server does the same
            assert server.stderr is not None
            said = server.stderr.readline()
            url = next((word for word in said.split() if word.startswith("http://")), None)
            if url is None:
                raise SystemExit(f"The server did not start: {said}{server.stderr.read()}")
            yield url
            server.terminate()
            server.wait(OVERDUE_S)
        finally:
            server.kill()


def agent_meter(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line, on the demo's ledger."""
    command = [sys.executable, "-m", "agent_meter_mcp", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=OVERDUE_S)


class Screen:
    """Says what happens, line by line: in colours in a terminal, without anywhere else."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)
        self._marks = ("✓", "✗") if "utf" in self._console.encoding.lower() else ("ok", "NO")
        self._began = time.monotonic()
        self.kept: list[bool] = []

    def scene(self, title: str) -> None:
        self._console.print("", Text(title, "bold cyan"), sep="\n")

    def line(self, who: str, what: str, text: str, style: str = "") -> None:
        at = f"{time.monotonic() - self._began:5.1f}s  "
        line = Text.assemble((at, "dim"), (f"{who:<13}  ", "bold"), (f"{what:<9} ", f"bold {style}"))
        line.append(text, style if style != COLOURS[200] else "")
        self._console.print(line, no_wrap=True, overflow="ellipsis")

    def answers(self, agent: Agent) -> None:
        """What is new: a line for each code, in the words of the last answer."""
        new = agent.said[agent.shown :]
        agent.shown = len(agent.said)
        for code, style in COLOURS.items():
            told = [said for said in new if said.code == code and (said.counts or code != 200)]
            if told:
                self.line(agent.name, f"{code}{f' ×{len(told)}' if told[1:] else ''}", told[-1].text, style)

    def table(self, headers: list[str], rows: list[list[Any]]) -> None:
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
        for number, header in enumerate(headers):
            table.add_column(header, justify="right" if number else "left")
        for row in rows:
            table.add_row(*map(str, row))
        self._console.print(Padding(table, (0, 0, 0, 8)))

    def promise(self, kept: bool, text: str) -> None:
        """Says whether something promised did happen."""
        self.kept.append(kept)
        mark, style = (self._marks[0], "green") if kept else (self._marks[1], "bold red")
        self._console.print(Text.assemble(" " * 8, (f"{mark} {text}", style)))


class Show:
    """The scenes. `pace` stretches the time that there is to watch."""

    def __init__(self, agents: list[Agent], screen: Screen, pace: float) -> None:
        self._agents = agents
        self._others = agents[:2]
        self._crawler, self._rogue = agents[2:]
        self._screen = screen
        self._pace = pace

    async def run(self, url: str) -> None:
        async with connected(url, "operator") as operator, connected(url, "claude") as claude:
            self._screen.scene("The operator sets limits")
            for limit in LIMITS:
                await self._call(operator, "operator", "set_limit", limit)
            await self._watch(0, lambda: all(agent.ready for agent in self._agents))
            for agent in self._agents:
                agent.wire.send("go")
            await self._flood(time.monotonic())
            await self._ask(claude)
            await self._control(operator)
            for agent in self._agents:
                agent.wire.send("stop")
            await self._watch(0, lambda: all(agent.ended for agent in self._agents))

    async def _call(self, client: Client, who: str, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        data = (await client.call_tool(tool, arguments)).structured_content or {}
        self._screen.line(who, "", f"{tool}: {data.get('message')}")
        return data

    async def _watch(self, seconds: float, happened: Callable[[], bool]) -> bool:
        """Shows what the agents are answered, for a while, and until something happened or is overdue."""
        began = shown = time.monotonic()
        while True:
            for agent in self._agents:
                agent.hear()
            now = time.monotonic()
            done = now > began + OVERDUE_S or (now >= began + seconds * self._pace and happened())
            if done or now > shown + 0.4:
                shown = now
                for agent in self._agents:
                    self._screen.answers(agent)
            if done:
                return happened()
            await anyio.sleep(0.02)

    def _go_on(self, since: float) -> bool:
        """Whether the well-behaved were answered since then, and never refused."""
        return all(len(agent.got(200, since=since)) > 2 and not agent.got(429, 403) for agent in self._others)

    async def _flood(self, began: float) -> None:
        self._screen.scene("Four agents start; one of them runs away")
        refused = self._rogue.got
        go_on = await self._watch(5, lambda: bool(refused(429)) and self._go_on(refused(429)[0].ended))
        after_s = min((said.ended - began for said in refused(429)), default=OVERDUE_S)
        had = len([said for said in self._rogue.got(200) if said.tool == "reserve_budget"])
        self._screen.promise(
            after_s < 5 and had == ROGUE["max"],
            f"rogue-bot had its {had} requests, and was refused {after_s:.1f} s after it started",
        )
        self._screen.promise(go_on, "research-bot and billing-agent go on, and were never refused")

    async def _ask(self, claude: Client) -> None:
        self._screen.scene('An MCP client asks, as Claude would: "What is my usage summary?"')
        answer = await self._call(claude, "claude", "get_usage_summary", {"group_by": ["agent"]})
        groups = {group["key"]["agent"]: group for group in answer["groups"]}
        columns = ["requests", "tokens", "cost_usd", "rejected"]
        rows = [[name, *(group[column] for column in columns)] for name, group in groups.items()]
        self._screen.table(["agent", *columns], rows)
        told = set(BOTS) <= set(groups) and groups["rogue-bot"]["rejected"] > 0
        self._screen.promise(told, "the summary has all four agents, and the refusals of rogue-bot")
        await self._watch(2, lambda: True)

    async def _control(self, operator: Client) -> None:
        rogue, crawler = self._rogue, self._crawler
        self._screen.scene("The operator raises a limit")
        raised = time.monotonic()
        await self._call(operator, "operator", "set_limit", ROGUE | {"max": 100_000})
        back = await self._watch(2.5, lambda: bool(rogue.got(200, since=raised)))
        self._screen.promise(back, "rogue-bot goes on: a limit holds from the moment it is set")

        self._screen.scene("It still runs away: the operator pulls the kill switch")
        switch = {"agent": rogue.name, "engaged": True, "reason": "runaway loop"}
        await self._call(operator, "operator", "set_kill_switch", switch)
        killed = time.monotonic()
        go_on = await self._watch(2.5, lambda: bool(rogue.got(403)) and self._go_on(killed))
        late = [said for said in rogue.got(200, since=killed) if said.tool == "reserve_budget"]
        self._screen.promise(go_on and not late, "from that moment on, 403 for rogue-bot; the others go on")

        self._screen.scene("The operator releases it")
        released = time.monotonic()
        await self._call(operator, "operator", "set_kill_switch", {"agent": rogue.name, "engaged": False})
        back = await self._watch(2, lambda: bool(rogue.got(200, since=released)))
        self._screen.promise(back, "rogue-bot goes on")
        first = min((said.ended for said in crawler.got(429)), default=released)
        back = await self._watch(0, lambda: bool(crawler.got(200, since=first + 1)))
        self._screen.promise(
            back, f"data-crawler was refused {len(crawler.got(429))} times, waited, and came back"
        )


def compare(agents: list[Agent], screen: Screen) -> None:
    """What the file says, now that nobody writes any more, and what the agents were told."""
    screen.scene("The server has ended. The ledger is verified, and compared with what the agents counted")
    verified = agent_meter("verify")
    screen.line("agent-meter", "verify", verified.stdout.strip())
    screen.promise(verified.returncode == 0, "every figure is what the events add up to")
    events = [json.loads(line) for line in agent_meter("export").stdout.splitlines()]
    rows: list[list[Any]] = []
    for agent in agents:
        mine = [event for event in events if event["agent"] == agent.name]
        used = [(e["id"], e["cost_usd"] or 0) for e in mine if e["outcome"] != "rejected"]
        told = [(said.data["id"], said.data["cost_usd"] or 0) for said in agent.said if said.counts]
        refused = sum(event["count"] for event in mine if event["outcome"] == "rejected")
        cost = sum(Decimal(str(cost)) for _, cost in used)
        same = sorted(used) == sorted(told) and refused == len(agent.got(429, 403))
        rows.append([agent.name, len(used), cost, refused, "the same" if same else "DIFFERENT"])
    screen.table(["ledger", "events", "cost_usd", "refusals", "the agent's own count"], rows)
    same = all(row[-1] == "the same" for row in rows)
    screen.promise(
        same, "every acknowledged event is in the ledger, once, at its cost; every refusal is counted"
    )
    pages = sorted(e["counted_at"] for e in events if e["service"] == "web" and e["outcome"] != "rejected")
    times = [datetime.fromisoformat(page).timestamp() for page in pages]
    exact = all(late - early >= PAGES_S for early, late in zip(times, times[PAGES:], strict=False))
    screen.promise(exact, f"data-crawler never had more than {PAGES} pages in any {PAGES_S} s")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fast", action="store_true", help="without time to watch: under 10 s, not 30")
    pace = 0.15 if parser.parse_args().fast else 1.0
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    os.chdir(Path(__file__).resolve().parent)
    screen, agents = Screen(), list[Agent]()
    try:
        with ExitStack() as stage:
            folder = stage.enter_context(tempfile.TemporaryDirectory(prefix="agent-meter-demo-"))
            for name in [name for name in os.environ if name.startswith("AGENT_METER_")]:
                del os.environ[name]
            os.environ |= {
                "AGENT_METER_DB": f"{folder}/meter.db",
                "AGENT_METER_PRICES": f"{folder}/none.toml",
            }
            with serving() as url:
                for name in BOTS:
                    agents.append(Agent(name, url))
                    stage.callback(agents[-1].end)
                anyio.run(Show(agents, screen, pace).run, url)
            compare(agents, screen)
    except KeyboardInterrupt:
        return 130
    screen.promise(
        not Path(folder).exists() and not any(agent.process.exitcode for agent in agents),
        "nothing is left: no process, no file",
    )
    kept = sum(screen.kept)
    screen.scene(f"{kept} of {len(screen.kept)} promises kept")
    return 0 if all(screen.kept) else 1


if __name__ == "__main__":
    sys.exit(main())
