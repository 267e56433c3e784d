"""The one shape of an error, where the routes take it from."""

from agent_meter_mcp.faces.wire.problems import MEDIA_TYPE, TYPES, problem, problem_of

__all__ = ["MEDIA_TYPE", "TYPES", "problem", "problem_of"]
