"""How the ledger meets the world. A face parses, asks the ledger once, and says what came back.

- `mcp`: the 13 tools, the resources, the prompts.
- `stdio`: the process that an MCP client starts.
- `serve`: the process that serves HTTP.
- `wire`: what faces share: arguments, results, sentences, hook answers.
- `errors`: what a failure is called at each face.
"""
