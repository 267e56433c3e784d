"""HTTP: the routes under /v1, on the same port and over the same ledger as MCP.

Who asks has been found out before a request gets here: `scope[CALLER]` is a `core.roles.Caller`.
"""

CALLER = "agent_meter.caller"
"""The key of an ASGI scope under which the authentication has put who asks."""
