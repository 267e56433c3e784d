"""The MCP face: 13 tools, four resources, three prompts, completion and change notices.

- `server`: puts them together.
- `tools`: what a tool is here: strict arguments, a sentence beside the data, errors that say what to do.
- `metering`: record, check, reserve, settle, gate.
- `reports`: summary, events, agents, limits.
- `control`: agents, limits and kill switches.
- `callers`: who is asking.
- `unanswered`: stdin and stdout, which do not end before what was asked is answered.
- `resources`, `prompts`, `completion`, `changes`: what there is beside the tools.
"""

from .callers import CallerOf, OwnedSessions, http_caller, local_caller
from .server import build_server
from .unanswered import run_stdio

__all__ = ["CallerOf", "OwnedSessions", "build_server", "http_caller", "local_caller", "run_stdio"]
