"""`mcp`, `serve` and `completion`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from agent_meter_mcp.core.errors import InvalidInput

from . import options

if TYPE_CHECKING:
    from .session import Session


@options.command(
    "mcp",
    "agent-meter mcp",
    "agent-meter mcp --agent coder",
    'claude mcp add agent-meter -- "$(which agent-meter)" mcp',
)
@options.name_option(
    "--agent", "agent", "Act for this agent and those it spawned, for nobody else. [AGENT_METER_AGENT]"
)
@options.pass_session
def mcp(session: Session, agent: str | None) -> None:
    """Serve MCP on stdin and stdout: this is what an MCP client starts."""
    if agent is not None:
        session.options["AGENT_METER_AGENT"] = agent
    settings = session.settings
    from agent_meter_mcp.faces.stdio import serve_stdio

    serve_stdio(settings)


@options.command(
    "serve",
    "agent-meter serve",
    "agent-meter serve --port 9000",
    "agent-meter serve --host 0.0.0.0 --tls-cert cert.pem --tls-key key.pem",
)
@click.option("--host", metavar="ADDRESS", help="Where to listen. [AGENT_METER_HOST; default 127.0.0.1]")
@click.option("--port", metavar="PORT", help="0 takes a free one. [AGENT_METER_PORT; default 8787]")
@click.option(
    "--tls-cert", type=options.FILE, metavar="PATH", help="Serve HTTPS with this certificate, a PEM file."
)
@click.option("--tls-key", type=options.FILE, metavar="PATH", help="The private key of the certificate.")
@options.pass_session
def serve(
    session: Session, host: str | None, port: str | None, tls_cert: str | None, tls_key: str | None
) -> None:
    """Serve MCP (at /mcp) and the HTTP API (under /v1) until it is interrupted.

    To listen on another address than this machine's own, make a key first: see agent-meter keys create.
    """
    session.options |= {} if host is None else {"AGENT_METER_HOST": host}
    session.options |= {} if port is None else {"AGENT_METER_PORT": port}
    settings = session.settings
    for field, given, other in (("tls_key", tls_cert, tls_key), ("tls_cert", tls_key, tls_cert)):
        if given is not None and other is None:
            raise InvalidInput(field, "is needed: a certificate and its key go together")
    from agent_meter_mcp.faces.serve import Tls
    from agent_meter_mcp.faces.serve import serve as serve_http

    tls = None if tls_cert is None or tls_key is None else Tls(tls_cert, tls_key)
    serve_http(settings, settings.host, settings.port, tls=tls)


_MENDED = {
    # What bash is given it puts into the line as it is: an agent's name could be a command.
    "bash": (
        ("COMPREPLY+=($value)", 'COMPREPLY+=("$(printf %q "$value")")'),
        ("read type value", "read -r type value"),
    ),
    # A name or a description may have a comma in it.
    "fish": (('string split ","', 'string split --max 1 ","'),),
    # A fresh zsh has no completion before somebody asks for it.
    "zsh": (
        (
            "    compdef ",
            "    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit }\n    compdef ",
        ),
    ),
}
"""What click's scripts lack."""


@options.command(
    "completion",
    "agent-meter completion bash >> ~/.bashrc",
    "agent-meter completion zsh >> ~/.zshrc",
    "agent-meter completion fish > ~/.config/fish/completions/agent-meter.fish",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script with which a shell completes commands, options and names."""
    from click.shell_completion import get_completion_class

    from .program import NAME, program

    kind = get_completion_class(shell)
    if kind is not None:
        script = kind(program, {}, NAME, "_AGENT_METER_COMPLETE").source()
        for lacking, mended in _MENDED[shell]:
            script = script.replace(lacking, mended)
        click.echo(script)
