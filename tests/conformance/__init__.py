"""The official MCP conformance suite, run against this server."""
