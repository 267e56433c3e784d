"""HTTP: the routes under /v1, on the same port and over the same ledger as MCP.

- `app`: puts them together.
- `reading`, `control`, `budgets`, `hooks`, `stream`, `health`: the routes, thin over the ledger.
- `upstream`, `otlp`: usage as others send it. `batches`: many at once. `signing`: who has signed them.
- `asking`, `parameters`: who asks, and what is asked in a path or a query.
- `answers`, `ratelimit`, `failures`: what is given, and every no.
- `bodies`: what a request may bring; `room`: what all may at once.
- `position`: how far a watcher of the stream has come.
- `metrics`: figures for Prometheus. `document`, `openapi_bodies`: OpenAPI.

Who asks has been found out before a request gets here: `scope[CALLER]` is a `core.roles.Caller`.
"""

from agent_meter_mcp.faces.auth import CALLER

__all__ = ["CALLER"]
