"""What API owners put around their own servers: every request is admitted before, and settled after.

- `asgi`: MeterMiddleware, for any ASGI app; `tools`: meter_tools, for MCP servers.
- `metering`: admission and settlement, whatever fails; `keeping`: a hold lasts as long as its work.
- `attachment`: where the meter runs meanwhile.
- `callers`, `signatures`: whose request it is; `operations`: what it is called; `answers`: how it is refused.
"""

from .asgi import MeterMiddleware
from .tools import meter_tools

__all__ = ["MeterMiddleware", "meter_tools"]
