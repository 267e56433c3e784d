"""Four agents, one meter: a real server, real MCP clients in processes of their own, one fresh ledger.

The rogue is stopped while the others go on; an MCP client asks for the usage summary; the operator raises a
limit, pulls the kill switch and releases it; at the end the ledger is verified, and compared with what the
agents counted themselves. What it promises it checks: it exits with 1 if any of it did not happen.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from datetime import datetime
from decimal import Decimal
from importlib import import_module
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

if TYPE_CHECKING:
    from mcp import Client

METER = [sys.executable, "-m", "agent_meter_mcp"]
COLOURS = {200: "green", 429: "red", 403: "magenta"}
ROGUE: dict[str, Any] = {"agent": "rogue-bot", "metric": "requests", "window": "1m", "max": 20}
PAGES, PAGES_S, OVERDUE_S = 8, 2, 15.0
LIMITS: tuple[dict[str, Any], ...] = (
    {"agent": "*", "metric": "cost_usd", "window": "day", "max": 25},
    {"service": "payments-api", "metric": "cost_usd", "window": "month", "max": 250},
    {"agent": "data-crawler", "metric": "requests", "window": f"{PAGES_S}s", "max": PAGES},
    ROGUE,
)


class Said(NamedTuple):
    """An answer that an agent got. Times are of the clock that all processes of a machine share."""

    began: float
    ended: float
    data: dict[str, Any]

    @property
    def code(self) -> int:
        """What it is over HTTP: 429 for a limit, 403 for a kill switch."""
        codes = [reason["code"] for reason in self.data.get("reasons", [])]
        return 200 if self.data.get("allowed", True) else 403 if "kill_switch" in codes else 429

    @property
    def bar(self) -> str:
        """How full the limit is that has the least room."""
        full = min(8, round(max([0, *(state["percent"] for state in self.data.get("limits", []))]) / 12.5))
        return "■" * full + "·" * (8 - full)

    @property
    def text(self) -> str:
        """What was said, without what is plain to see here."""
        text = self.data["message"] if self.code == 200 else self.data["reasons"][0]["message"]
        text = re.sub(r"^Recorded \(([^)]*)\)\.", r"\1;", text)
        text = re.sub(r"^agent '[^']*' was |, [^,;]* asked", "", text)
        return re.sub(r"(Tightest )?limit,? for [^:]*: |(?<= %\)\.) .*", "", text)


class Meter(NamedTuple):
    """All that an agent has in its hands: an MCP client, and here also a wire to the show."""

    client: Client
    wire: Connection[Any, Any]

    async def __call__(self, tool: str, **arguments: Any) -> dict[str, Any]:
        began = time.monotonic()
        answer = await self.client.call_tool(tool, arguments)
        if answer.is_error or answer.structured_content is None:
            raise RuntimeError(f"{tool}: {answer.content}")
        self.wire.send(Said(began, time.monotonic(), answer.structured_content))
        return answer.structured_content

    async def use(self, **estimate: Any) -> dict[str, Any]:
        """Uses a service, if the meter lets it, as much as it asked for."""
        held = await self("reserve_budget", **estimate)
        if held["allowed"]:
            await self("settle_reservation", reservation_id=held["reservation_id"])
        return held

    async def goes_on(self, after_s: float = 0) -> bool:
        """Waits that long, unless it is told to stop."""
        return not await anyio.to_thread.run_sync(self.wire.poll, after_s)


async def research_bot(meter: Meter) -> None:
    """Well-behaved: asks before a step, reports what it used, takes its time."""
    tokens: dict[str, Any] = {"model": "claude-sonnet-5", "input_tokens": 1200, "output_tokens": 300}
    while await meter.goes_on(after_s=0.3):
        tokens["input_tokens"] += 70
        if (await meter("check_budget", service="anthropic", **tokens))["allowed"]:
            await meter("record_usage", service="anthropic", operation="read", **tokens)


async def billing_agent(meter: Meter) -> None:
    """Holds an estimate, works, settles what it really was. Every fourth card is declined: it lets go."""
    invoice = 0
    while await meter.goes_on(after_s=0.3):
        invoice += 1
        held = await meter("reserve_budget", service="payments-api", operation="charge", cost_usd=0.35)
        await meter.goes_on(after_s=0.1)
        if held["allowed"]:
            end = {"action": "release"} if invoice % 4 == 0 else {"cost_usd": 0.21 + invoice % 9 / 100}
            await meter("settle_reservation", reservation_id=held["reservation_id"], **end)


async def data_crawler(meter: Meter) -> None:
    """Works in bursts of six. When it is refused, it waits as long as it is told, and comes back."""
    wait_s = 0.0
    while await meter.goes_on(after_s=wait_s):
        pages = [await meter.use(service="web", units=1, unit_type="page") for _ in range(6)]
        wait_s = max(page["retry_after_s"] or 0.2 for page in pages)


async def rogue_bot(meter: Meter) -> None:
    """A runaway loop: asks as fast as it can, and does not care what it is answered."""
    while await meter.goes_on():
        await meter.use(service="search-api", operation="search", cost_usd=0.001)


BOTS = {bot.__name__.replace("_", "-"): bot for bot in (research_bot, billing_agent, data_crawler, rogue_bot)}


def run_agent(name: str, url: str, wire: Connection[Any, Any], other_end: Connection[Any, Any]) -> None:
    """The life of an agent's process: it works from the demo's first word to its second."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    other_end.close()

    async def live() -> None:
        async with connected(url, name) as client:
            await anyio.to_thread.run_sync(wire.recv)
            await BOTS[name](Meter(client, wire))

    anyio.run(live)


def connected(url: str, name: str) -> Client:
    """An MCP client that calls itself `name`: whose usage it is, if a call does not say."""
    from mcp import Client
    from mcp.types import Implementation

    return Client(url, client_info=Implementation(name=name, version="1"))


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

    def listen(self) -> None:
        with suppress(EOFError, ConnectionResetError):
            while self.wire.poll():
                self.said.append(self.wire.recv())

    def got(self, answer: int | str, since: float = 0) -> list[Said]:
        """The answers with this code or status to calls that it began after `since`."""
        begun = (said for said in self.said if said.began >= since)
        return [said for said in begun if answer in (said.code, said.data.get("status"))]


@contextmanager
def serving() -> Generator[str]:
    """A server on a free port: its URL."""
    # In a session of its own: Ctrl-C is for the demo, which ends the server after its clients.
    command = [*METER, "serve", "--port", "0"]
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
            if server.wait(OVERDUE_S):
                raise SystemExit(f"The server did not end well: {server.stderr.read()}")
        finally:
            server.kill()


def agent_meter(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line, on the demo's ledger."""
    return subprocess.run([*METER, *arguments], capture_output=True, text=True, timeout=OVERDUE_S)


class Show:
    """What is to be seen, line by line: in colours in a terminal. `pace` stretches the time to watch."""

    def __init__(self, pace: float) -> None:
        self._pace = pace
        self._agents: list[Agent] = []
        self._console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)
        self._began = time.monotonic()
        self.promises: list[bool] = []

    def scene(self, title: str) -> None:
        self._console.print("", Text(title, "bold cyan"), sep="\n", soft_wrap=True)

    def line(self, who: str, what: str, text: str, style: str = "") -> None:
        at = f"{time.monotonic() - self._began:5.1f}s  "
        line = Text.assemble((at, "dim"), (f"{who:<13}  ", "bold"), (what, f"bold {style}"))
        line.append(text, style if style != COLOURS[200] else "")
        self._console.print(line, no_wrap=True, overflow="ellipsis")

    def answers(self, agent: Agent) -> None:
        """What is new: a line for each code, in the words of the last answer."""
        agent.listen()
        new = [one for one in agent.said[agent.shown :] if one.data.get("status") not in (None, "reserved")]
        agent.shown = len(agent.said)
        for code, style in COLOURS.items():
            if told := [said for said in new if said.code == code]:
                times = f"{code}{f' ×{len(told)}' if told[1:] else ''}"
                self.line(agent.name, f"{times:<8} {told[-1].bar}  ", told[-1].text, style)

    def table(self, *rows: list[Any]) -> None:
        for row in rows:
            cells = "".join(f"{cell!s:>11}" for cell in row[1:])
            self._console.print(Text(f"        {row[0]:<15}{cells}", "dim" if row is rows[0] else ""))

    def promise(self, kept: bool, text: str) -> None:
        """Says whether something promised did happen."""
        self.promises.append(kept)
        said = f"        ✓ {text}" if kept else f"        ✗ FAILED: {text}"
        self._console.print(Text(said, "green" if kept else "bold red"))

    async def run(self, url: str, agents: list[Agent]) -> None:
        self._agents = agents
        async with connected(url, "console") as operator, connected(url, "claude") as claude:
            self.scene("The operator sets limits")
            for limit in LIMITS:
                await self._operate(operator, "set_limit", limit)
            for agent in agents:
                agent.wire.send("go")
            *others, crawler, rogue = agents
            await self._flood(others, rogue, time.monotonic())
            await self._ask(claude)
            await self._control(operator, others, rogue)
            first = min((said.ended for said in crawler.got(429)), default=0)
            back = await self._watch(0, lambda: bool(first and crawler.got(200, first + 1)))
            self.promise(back, f"data-crawler was refused {len(crawler.got(429))} times, waited, came back")
            for agent in agents:
                agent.wire.send("stop")
            await self._watch(0, lambda: not any(agent.process.is_alive() for agent in agents))

    async def _operate(self, operator: Client, tool: str, arguments: dict[str, Any]) -> None:
        answer: dict[str, Any] | None = (await operator.call_tool(tool, arguments)).structured_content
        self.line("operator", f"{tool}  ", answer["message"] if answer else "failed")

    async def _watch(self, seconds: float, happened: Callable[[], bool]) -> bool:
        """Shows what the agents are answered, for a while, and until something happened or is overdue."""
        began = shown = time.monotonic()
        while True:
            for agent in self._agents:
                agent.listen()
            now = time.monotonic()
            done = now > began + OVERDUE_S or (now >= began + seconds * self._pace and happened())
            if done or now > shown + 0.8:
                shown = now
                for agent in self._agents:
                    self.answers(agent)
            if done:
                return happened()
            await anyio.sleep(0.02)

    async def _flood(self, others: list[Agent], rogue: Agent, began: float) -> None:
        self.scene("Four agents start; one of them runs away")
        refused = await self._watch(0, lambda: bool(rogue.got(429)))
        after_s = rogue.got(429)[0].ended - began if refused else OVERDUE_S
        went_on = await self._watch(5, lambda: go_on(others, began + after_s))
        exact = len(rogue.got("reserved")) == ROGUE["max"] and after_s < 10
        self.promise(exact, f"rogue-bot had its 20 requests, and was refused after {after_s:.1f} s")
        self.promise(went_on, "research-bot and billing-agent go on, and were never refused")

    async def _ask(self, claude: Client) -> None:
        self.scene('An MCP client asks, as Claude would: "What is my usage summary?"')
        called = await claude.call_tool("get_usage_summary", {"group_by": ["agent"]})
        answer: dict[str, Any] = called.structured_content or {}
        self._console.print(Padding(Text(answer["message"], "bold"), (0, 8)))
        groups = {group["key"]["agent"]: group for group in answer["groups"]}
        for group in groups.values():
            group["cost_usd"] = group["cost_usd"] or "unknown"  # nothing here is free
        columns = ["requests", "tokens", "cost_usd", "rejected"]
        rows = [[name, *(group[column] for column in columns)] for name, group in groups.items()]
        self.table(["agent", *columns], *rows)
        told = set(BOTS) <= set(groups) and groups["rogue-bot"]["rejected"] > 0
        self.promise(told, "the summary has all four agents, and the refusals of rogue-bot")
        await self._watch(2, lambda: True)

    async def _control(self, operator: Client, others: list[Agent], rogue: Agent) -> None:
        self.scene("The operator raises a limit")
        raised = time.monotonic()
        await self._operate(operator, "set_limit", ROGUE | {"max": 100_000})
        back = await self._watch(2.5, lambda: bool(rogue.got("reserved", raised)))
        self.promise(back, "rogue-bot goes on: a limit holds from the moment it is set")
        self.scene("It still runs away: the operator pulls the kill switch")
        switch = {"agent": rogue.name, "engaged": True, "reason": "runaway loop"}
        await self._operate(operator, "set_kill_switch", switch)
        killed = time.monotonic()
        went_on = await self._watch(2.5, lambda: bool(rogue.got(403)) and go_on(others, killed))
        stopped = went_on and not rogue.got("reserved", killed)
        self.promise(stopped, "from that moment on, 403 for rogue-bot; the others go on")
        self.scene("The operator releases it")
        released = time.monotonic()
        await self._operate(operator, "set_kill_switch", {"agent": rogue.name, "engaged": False})
        back = await self._watch(2, lambda: bool(rogue.got("reserved", released)))
        self.promise(back, "rogue-bot goes on")


def go_on(agents: list[Agent], since: float) -> bool:
    """Whether they were answered since then, and never refused."""
    return all(len(agent.got(200, since)) > 2 and not agent.got(429) for agent in agents)


def compare(agents: list[Agent], show: Show) -> None:
    """What the file says, now that nobody writes any more, and what the agents were told."""
    show.scene("The server has ended: the ledger, and what the agents counted themselves")
    verified = agent_meter("verify")
    show.line("agent-meter", "verify  ", verified.stdout.strip())
    show.promise(verified.returncode == 0, "every total, worked out again from the events, is what it was")
    events = [json.loads(line) for line in agent_meter("export").stdout.splitlines()]
    rows: list[list[Any]] = [["in the ledger", "events", "cost_usd", "refusals", "agent says"]]
    for agent in agents:
        mine = [event for event in events if event["agent"] == agent.name]
        used = [(e["id"], e["cost_usd"] or 0) for e in mine if e["outcome"] != "rejected"]
        told = [(said.data["id"], said.data["cost_usd"] or 0) for said in agent.got("recorded")]
        refused = sum(event["count"] for event in mine if event["outcome"] == "rejected")
        same = sorted(used) == sorted(told) and refused == len(agent.got("denied"))
        cost = sum(Decimal(str(cost)) for _, cost in used) or "unknown"
        rows.append([agent.name, len(used), cost, refused, "the same" if same else "DIFFERENT"])
    show.table(*rows)
    same = all(row[-1] == "the same" for row in rows[1:])
    show.promise(same, "each acknowledged event is there, once, at its cost; each refusal too")
    pages = sorted(e["counted_at"] for e in events if e["service"] == "web" and e["outcome"] != "rejected")
    times = [datetime.fromisoformat(page).timestamp() for page in pages]
    exact = all(late - early >= PAGES_S for early, late in zip(times, times[PAGES:], strict=False))
    show.promise(exact, f"data-crawler never had more than {PAGES} pages in any {PAGES_S} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--fast", action="store_true", help="without time to watch: under 10 s, not 30")
    show = Show(0.15 if parser.parse_args().fast else 1.0)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: signal.raise_signal(signal.SIGINT))
    os.environ |= {name: "" for name in os.environ if name.startswith("AGENT_METER_")}
    sys.stdout.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType] - a text stream has it; a terminal that lacks a character gets its escape
    show.scene("A server and four agents start, each of them a process of its own")
    with tempfile.TemporaryDirectory(prefix="agent-meter-demo-") as folder:
        os.environ |= {"AGENT_METER_DB": f"{folder}/meter.db", "AGENT_METER_PRICES": f"{folder}/none"}
        with serving() as url:
            if sys.stdout.isatty():
                show.scene(f"Watch in a second terminal: {shlex.join([*METER, 'dashboard', '--url', url])}")
            agents = [Agent(name, url) for name in BOTS]
            try:
                anyio.run(show.run, url, agents)
            except BaseExceptionGroup as group:  # rich exits in a task when nobody reads any more
                raise group if group.split(SystemExit)[1] else SystemExit(141) from None
            finally:
                for agent in agents:
                    agent.process.kill()
                    agent.process.join()
        compare(agents, show)
    left = os.path.exists(folder) or any(agent.process.exitcode != 0 for agent in agents)
    show.promise(not left, "nothing is left: no process, no file")
    show.scene(f"{sum(show.promises)} of {len(show.promises)} promises kept")
    return 0 if all(show.promises) else 1


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(128 + signal.SIGINT)
