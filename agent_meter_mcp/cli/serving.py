"""`mcp`, `serve` and `completion`."""

from __future__ import annotations

import os

import click

from agent_meter_mcp.settings import load_settings


@click.command()
@click.option("--agent", metavar="NAME", help="Act for this one agent only (AGENT_METER_AGENT).")
@click.option("--db", metavar="PATH", help="The ledger's file (AGENT_METER_DB).")
def mcp(agent: str | None, db: str | None) -> int:
    """Serve MCP on stdin and stdout: what an MCP client starts."""
    from agent_meter_mcp.faces.stdio import main

    return main([*(("--agent", agent) if agent else ()), *(("--db", db) if db else ())])


@click.command()
@click.option("--host", help="The address to listen on (AGENT_METER_HOST; default 127.0.0.1).")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="The port, 0 for a free one (AGENT_METER_PORT; 8787)."
)
@click.option("--db", metavar="PATH", help="The ledger's file (AGENT_METER_DB).")
def serve(host: str | None, port: int | None, db: str | None) -> None:
    """Serve MCP over HTTP, at /mcp. On this machine only, as long as there are no tokens.

    \b
    Example:
      agent-meter serve --port 8787
    """
    if db is not None:
        os.environ["AGENT_METER_DB"] = db
    from agent_meter_mcp.faces.serve import serve as serve_http

    settings = load_settings()
    serve_http(settings, host or settings.host, settings.port if port is None else port)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the shell's completion script.

    \b
    Example:
      agent-meter completion bash >> ~/.bashrc
    """
    from click.shell_completion import get_completion_class

    from . import program

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(program, {}, "agent-meter", "_AGENT_METER_COMPLETE").source())
