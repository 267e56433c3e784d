"""Our server as a real process, for clients to talk to."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple


def command(database: Path) -> list[str]:
    """The command line of the stdio server."""
    return [sys.executable, "-m", "agent_meter_mcp.faces.stdio", "--db", str(database)]


class Server(NamedTuple):
    """A server that runs. `url` is without a path."""

    url: str
    process: subprocess.Popen[str]


@contextmanager
def http_server(database: Path) -> Generator[str]:
    """The URL of MCP on a server on a free loopback port, which is stopped at the end."""
    with running_server(database) as server:
        yield f"{server.url}/mcp"


@contextmanager
def running_server(database: Path, files: int | None = None) -> Generator[Server]:
    """A server on a free loopback port, which is stopped at the end; it may open so many files."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AGENT_METER_")}
    limited = [] if files is None else ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh"]
    process = subprocess.Popen(
        [*limited, sys.executable, "-m", "agent_meter_mcp", "--db", str(database), "serve", "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert process.stderr is not None
        first = process.stderr.readline()
        url = next(word for word in first.split() if word.startswith("http://"))
        yield Server(url.removesuffix("/mcp"), process)
    finally:
        process.terminate()
        process.communicate(timeout=20)
