"""How the ledger meets the world. A face parses, asks the ledger once, and says what came back.

- `mcp`: the 13 tools, the resources, the prompts.
- `http`: the routes under /v1, and those for hooks and telemetry.
- `middleware`: around other people's APIs and MCP servers.
- `stdio`: the process that an MCP client starts.
- `serve`: the process that serves HTTP. `auth`, `connections`: who gets in, and for how long.
- `wire`: what faces share: arguments, results, sentences, hook answers.
- `errors`: what a failure is called at each face.
"""
