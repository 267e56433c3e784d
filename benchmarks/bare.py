"""The floor of the servers: the SDK with one tool that does nothing. `python -m benchmarks.bare [http]`.

Over HTTP it prints its port.
"""

from __future__ import annotations

import socket
import sys

import anyio
import uvicorn
from mcp.server import MCPServer
from pydantic import BaseModel


class Nothing(BaseModel):
    """What doing nothing results in."""

    done: bool


def server() -> MCPServer[None]:
    made: MCPServer[None] = MCPServer("bare", version="1", log_level="WARNING")

    async def noop(
        service: str, agent: str, input_tokens: int, output_tokens: int, cost_usd: float, operation: str
    ) -> Nothing:
        """Does nothing."""
        return Nothing(done=True)

    made.add_tool(noop)
    return made


async def _over_http() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as ours does
        sys.stderr.write(f"{listener.getsockname()[1]}\n")
        app = server().streamable_http_app()
        await uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False)).serve([listener])


if __name__ == "__main__":
    anyio.run(_over_http if sys.argv[1:] == ["http"] else server().run_stdio_async)
