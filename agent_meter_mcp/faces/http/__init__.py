"""HTTP: the routes under /v1, on the same port and over the same ledger as MCP.

Who asks has been found out before a request gets here: `scope[CALLER]` is a `core.roles.Caller`.
"""

from agent_meter_mcp.faces.auth import CALLER

__all__ = ["CALLER"]
