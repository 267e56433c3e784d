"""The README says what is true: what it shows is run, what it says about the code comes from the code."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp.types import TextContent

from agent_meter_mcp.settings import VARIABLES, load_settings

from .clients.serving import http_server

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
PROGRAMS = {"agent-meter": "agent_meter_mcp", "agent-meter-mcp": "agent_meter_mcp.faces.stdio"}
TOOLS = 13
WAIT_S = 60


class Block(NamedTuple):
    """A fenced piece of the README."""

    language: str
    text: str

    @property
    def first_word(self) -> str:
        return self.text.split(maxsplit=1)[0]


FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
BLOCKS = [Block(*found) for found in FENCED.findall(README)]
CURL = shutil.which("curl") is not None
NODE = shutil.which("node")
ASKING = """
import asyncio

import httpx2


async def ask() -> int:
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://api") as client:
        return (await client.get("PATH", headers={"X-Agent-Id": "reader"})).status_code


print(asyncio.run(ask()))
"""
"""Asks the `app` of a block as an agent does."""
SHELL = [block for block in BLOCKS if block.language == "sh"]
INSTALLING = [block for block in SHELL if "pip install" in block.text]
REGISTERING = [block for block in SHELL if block.first_word in ("claude", "codex", "gemini")]
RUN = [block for block in SHELL if block not in INSTALLING + REGISTERING]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The project's folder as somebody has it who installed it: with our commands in `.venv/bin`."""
    venv.create(tmp_path / ".venv", with_pip=False)
    for name, module in PROGRAMS.items():
        program = tmp_path / ".venv" / "bin" / name
        arguments = shlex.join([sys.executable, "-m", module])
        program.write_text(
            f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))} exec {arguments} "$@"\n', encoding="utf-8"
        )
        program.chmod(0o755)
    return tmp_path


def environment(folder: Path) -> dict[str, str]:
    """Nothing but a home folder of its own."""
    return {"HOME": str(folder), "PATH": os.defpath, "PYTHONPATH": str(ROOT), "USER": "reader"}


def run(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=environment(folder),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )


async def answers_of(command: list[str], folder: Path, *calls: tuple[str, dict[str, Any]]) -> list[str]:
    """Starts an MCP server as a client would, and calls it: the texts. It has all the tools."""
    server = StdioServerParameters(command=command[0], args=command[1:], env=environment(folder))
    texts: list[str] = []
    with anyio.fail_after(WAIT_S):
        async with Client(server) as client:
            assert len((await client.list_tools()).tools) == TOOLS
            for tool, arguments in calls:
                answer = await client.call_tool(tool, arguments)
                assert not answer.is_error, answer.content
                (content,) = answer.content
                assert isinstance(content, TextContent)
                texts.append(content.text)
    return texts


def test_what_comes_from_the_code_is_up_to_date() -> None:
    checked = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert checked.returncode == 0, f"run `python docs/generate.py`\n{checked.stdout}{checked.stderr}"


def test_every_block_is_of_a_kind_that_is_tried() -> None:
    assert {block.language for block in BLOCKS} == {"sh", "json", "toml", "python", "text"}
    assert [block.text for block in BLOCKS if block.language == "text"] == [
        block.text for block in BLOCKS if block.text.startswith("Usage: agent-meter")
    ]


def test_the_readme_installs_as_ci_does() -> None:
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    demo, tests = (block.text.strip() for block in INSTALLING)
    assert demo == (
        "python3 -m venv .venv && .venv/bin/pip install -e . -c constraints.txt && .venv/bin/python demo.py"
    )
    installed = re.findall(r"pip install (.*?) &&", tests)
    assert installed == ["-e '.[dev]' -c constraints.txt"]
    assert f'"$bin/pip" install {installed[0]}' in ci
    assert tests.endswith(" && .venv/bin/python -m pytest -n 3")
    assert '"$bin/python" -m pytest -n 3\n' in ci


def test_the_commands_do_what_the_readme_shows(folder: Path) -> None:
    assert len(RUN) >= 4
    for block in RUN:
        done = run(f'. .venv/bin/activate\n{block.text}\necho "done"', folder)
        assert done.stdout.endswith("done\n"), block.text + done.stdout + done.stderr
    summary = run(". .venv/bin/activate; agent-meter summary --json", folder)
    assert json.loads(summary.stdout)["total"]["cost_usd"] > 0
    assert (folder / "usage.csv").read_text(encoding="utf-8").count("\n") >= 2


def test_python_does_what_the_readme_shows(folder: Path) -> None:
    (block,) = (block for block in BLOCKS if block.language == "python" and "asyncio.run" in block.text)
    done = subprocess.run(
        [sys.executable, "-c", block.text],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "accepted\n")


def test_three_lines_meter_an_api(folder: Path) -> None:
    (block,) = (block for block in BLOCKS if block.language == "python" and "FastAPI" in block.text)
    asked = block.text + ASKING.replace("PATH", "/items")
    done = subprocess.run(
        [sys.executable, "-c", asked],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "200\n"), done.stderr
    told = run(".venv/bin/agent-meter summary --json --group-by agent --group-by service", folder)
    (group,) = json.loads(told.stdout)["groups"]
    assert (group["key"], group["requests"]) == ({"agent": "reader", "service": "my-api"}, 1)


def command_of_a_hook(settings: str) -> str:
    """Its one hook, as the harness runs it: with the event on stdin. The answer is JSON."""
    ((event, ((hook,),)),) = (
        (event, [group["hooks"] for group in groups])
        for event, groups in json.loads(settings)["hooks"].items()
    )
    assert hook["type"] == "command"
    said = json.dumps({"hook_event_name": event, "session_id": "s-1", "cwd": "/srv/project"})
    return f"echo {shlex.quote(said)} | {hook['command']} | python3 -m json.tool\n"


def test_the_page_about_http_does_what_it_shows(folder: Path) -> None:
    blocks = [Block(*found) for found in FENCED.findall((ROOT / "docs" / "http.md").read_text("utf-8"))]
    assert {block.language for block in blocks} == {"sh", "python", "toml", "json"}
    (folder / ".agent-meter").mkdir(mode=0o700)
    with http_server(folder / ".agent-meter" / "meter.db") as url:
        here = url.removesuffix("/mcp")
        for block in blocks:
            text = block.text.replace("http://127.0.0.1:8787", here)
            if block.language == "toml":
                tomllib.loads(text)
                continue
            if block.language == "json":
                text = command_of_a_hook(text)
            if block.language == "python":
                text += ASKING.replace("PATH", "/reports/may") if "FastAPI" in text else ""
                text = f"{shlex.quote(sys.executable)} - <<'END'\n{text}END\n"
            if text != "agent-meter serve\n" and (CURL or "curl" not in text):
                done = run(f". .venv/bin/activate\n{text}", folder)
                assert done.returncode == 0, text + done.stdout + done.stderr
    told = run(". .venv/bin/activate; agent-meter summary --json --group-by service", folder)
    used = {group["key"]["service"]: group["requests"] for group in json.loads(told.stdout)["groups"]}
    assert used["my-api"] == 1
    assert used["search"] >= 9


def test_the_page_about_operating_does_what_it_shows(folder: Path) -> None:
    blocks = [Block(*found) for found in FENCED.findall((ROOT / "docs" / "operating.md").read_text("utf-8"))]
    assert {block.language for block in blocks} == {"sh", "js", "ini", "dockerfile", "nginx", "yaml"}
    (folder / ".agent-meter").mkdir(mode=0o700)
    with http_server(folder / ".agent-meter" / "meter.db") as url:
        for block in blocks:
            text = f". .venv/bin/activate\n{block.text}"
            if block.language == "js":
                script = folder / "block.mjs"
                here = url.removesuffix("/mcp")
                script.write_text(block.text.replace("http://127.0.0.1:8787", here), encoding="utf-8")
                text = f"{NODE} block.mjs"
            if block.language == "sh" or (block.language == "js" and NODE):
                done = run(text, folder)
                assert done.returncode == 0, text + done.stdout + done.stderr
    told = run(". .venv/bin/activate; agent-meter summary --json", folder)
    used = {group["key"]["agent"]: group["requests"] for group in json.loads(told.stdout)["groups"]}
    assert used == {"nightly": 1, "helpdesk": 1} | ({"node-bot": 3} if NODE else {})
    assert ",acme," in (folder / "month.csv").read_text(encoding="utf-8")


def test_the_container_of_the_docs_is_told_what_there_is_to_set() -> None:
    page = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    (told,) = re.findall(r"^ENV (.*)$", page, re.MULTILINE)
    given = dict(word.split("=", 1) for word in shlex.split(told))
    assert given.keys() <= {variable.name for variable in VARIABLES}
    settings = load_settings(given)
    assert (settings.db, settings.host) == ("/data/meter.db", "0.0.0.0")


def test_the_prices_of_the_readme_are_used(folder: Path) -> None:
    (block,) = (block for block in BLOCKS if block.language == "toml")
    tomllib.loads(block.text)
    (folder / ".agent-meter").mkdir()
    (folder / ".agent-meter" / "prices.toml").write_text(block.text, encoding="utf-8")
    recorded = [
        ("--service search", 0.005),
        ("--service llm --model my-model --input-tokens 1000000 --cache-read-tokens 1000000", 1.375),
    ]
    for arguments, cost in recorded:
        done = run(f".venv/bin/agent-meter record --agent a {arguments} --json", folder)
        assert json.loads(done.stdout)["cost_usd"] == cost, done.stderr


async def test_each_registration_starts_a_server(folder: Path) -> None:
    lines = [line for block in REGISTERING for line in block.text.splitlines() if "--transport" not in line]
    assert {line.split()[0] for line in lines} == {"claude", "codex", "gemini"}
    for line in lines:
        server = re.split(r" -- | agent-meter (?=\")", line)[-1]
        words = run(f"printf '%s\\n' {server}", folder).stdout.splitlines()
        assert words[0] == str(folder / ".venv" / "bin" / "agent-meter-mcp"), line
        await answers_of(words, folder)


async def test_each_block_of_a_client_s_configuration_starts_a_server(folder: Path) -> None:
    servers: list[dict[str, Any]] = []
    for block in BLOCKS:
        if block.language == "json":
            settings = json.loads(block.text)
            servers += (settings.get("mcpServers") or settings.get("servers") or {}).values()
    assert len(servers) == 2
    for server in servers:
        command = server["command"].replace("/path/to/agent-meter-mcp", str(folder))
        await answers_of([command, *server.get("args", [])], folder)


async def test_the_hooks_of_the_readme_get_an_answer_that_they_understand(folder: Path) -> None:
    (hooks,) = (settings["hooks"] for block in BLOCKS if "hooks" in (settings := _json(block)))
    calls: list[tuple[str, dict[str, Any]]] = []
    for event, groups in hooks.items():
        for hook in (hook for group in groups for hook in group["hooks"]):
            assert (hook["type"], hook["server"]) == ("mcp_tool", "agent-meter")
            assert hook["input"]["event"] == event
            calls.append((hook["tool"], {**hook["input"], "agent": "claude-code"}))
    server = [str(folder / ".venv" / "bin" / "agent-meter-mcp")]
    stop = ("set_kill_switch", {"engaged": True, "everything": True, "reason": "drill"})

    assert await answers_of(server, folder, *calls) == ["{}", "{}"]
    prompt, batch = (json.loads(text) for text in (await answers_of(server, folder, stop, *calls))[1:])
    assert prompt["decision"] == "block"
    assert batch["continue"] is False


def _json(block: Block) -> dict[str, Any]:
    return json.loads(block.text) if block.language == "json" else {}


def test_the_readme_names_the_port_that_is_served() -> None:
    settings = load_settings({})
    assert f" http://{settings.host}:{settings.port}/mcp\n" in README
    assert all(f"`{variable.name}`" in README for variable in VARIABLES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_links_to_is_there(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_the_picture_is_the_demo_s_and_loads_nothing() -> None:
    picture = (ROOT / "docs" / "demo.svg").read_text(encoding="utf-8").replace("&#160;", " ")
    assert "promises kept" in picture
    assert "FAILED" not in picture
    assert re.findall(r"url\(|href|@import", picture.replace("url(#", "(#")) == []
