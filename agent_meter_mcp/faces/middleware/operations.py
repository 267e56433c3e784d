"""What a request is called in the ledger: its method and the template of its route.

The names must be few: a path with an id in it would be another operation for every id. Where the framework
shows its routes (`scope["app"].routes` in Starlette and FastAPI) or the template itself, that is taken.
Elsewhere, segments that look like ids become "{}", and beyond a thousand different names the rest is
"(other)".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from agent_meter_mcp.core.text import ID_MAX, shown

if TYPE_CHECKING:
    from .callers import Scope

METHODS = frozenset(
    ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "WEBSOCKET")
)
NAMES_MAX = 1000
SEGMENTS_MAX = 8
DEPTH_MAX = 8
NO_ROUTE = "(no route)"
OTHER = "(other)"
_PARAMETER = re.compile(r"\{([^{}:]*)(?::([a-z]+))?\}")
_PLAIN_SEGMENT = re.compile(r"[A-Za-z_.~-]{1,40}|v\d{1,3}")


class Operations:
    """The templates of an app's routes, read at its first request, and again when routes were added."""

    def __init__(self) -> None:
        self._routes: Routes | None = None
        self._names = Names()

    def template(self, scope: Scope) -> str:
        """The template of the route that will answer, as far as can be told."""
        known = _told_by_scope(scope)
        if known is not None:
            return known
        routes = getattr(scope.get("app"), "routes", None)
        if not isinstance(routes, list | tuple):
            return collapsed(_path(scope))
        if self._routes is None or not self._routes.made_of(routes):
            self._routes = Routes(routes)
        return self._routes.template(_path(scope)) or NO_ROUTE

    def name(self, scope: Scope, template: str) -> str:
        """Method and template, printable, and not one too many."""
        method = scope.get("method", "WEBSOCKET")
        return self._names.few(f"{method if method in METHODS else OTHER} {shown(template)}"[:ID_MAX].strip())


class Names:
    """Those that have come so far. Clients choose them, so beyond a thousand the rest is one."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def few(self, name: str) -> str:
        if name not in self._known:
            if len(self._known) >= NAMES_MAX:
                return OTHER
            self._known.add(name)
        return name


class Routes:
    """Which path belongs to which template: without parameters by look-up, the others in their order."""

    def __init__(self, routes: Any) -> None:
        self._source = routes
        self._count = len(routes)
        self._fixed: dict[str, str] = {}
        self._patterns: list[tuple[re.Pattern[str], str]] = []
        for template, is_prefix in _templates(routes, "", 0):
            if "{" not in template and not is_prefix:
                self._fixed.setdefault(template, template)
            else:
                without_types = _PARAMETER.sub(r"{\1}", template)
                shown_as = f"{without_types}/*" if is_prefix else without_types
                self._patterns.append((_pattern(template, is_prefix), shown_as))

    def made_of(self, routes: Any) -> bool:
        return self._source is routes and self._count == len(routes)

    def template(self, path: str) -> str | None:
        fixed = self._fixed.get(path)
        if fixed is not None:
            return fixed
        return next((template for pattern, template in self._patterns if pattern.fullmatch(path)), None)


def collapsed(path: str) -> str:
    """A path without what looks like an id: only words, and versions such as v1, stay."""
    segments = path.split("/")[1 : SEGMENTS_MAX + 2]
    kept = [segment if _PLAIN_SEGMENT.fullmatch(segment) or not segment else "{}" for segment in segments]
    return "/" + "/".join(kept[:SEGMENTS_MAX] + ["..."] * (len(kept) > SEGMENTS_MAX))


def _told_by_scope(scope: Scope) -> str | None:
    """Litestar puts the template itself into the scope; who routes outside of us puts its route there."""
    told = scope.get("path_template") or getattr(scope.get("route"), "path", None)
    return told if isinstance(told, str) else None


def _path(scope: Scope) -> str:
    """The path below the app's own root."""
    path, root = scope.get("path", ""), scope.get("root_path", "").rstrip("/")
    return path[len(root) :] or "/" if root and path.startswith(f"{root}/") else path


def _templates(routes: Any, prefix: str, depth: int) -> Iterator[tuple[str, bool]]:
    """Each template, and whether it stands for all that is below it."""
    for route in _spelt_out(routes):
        path = getattr(route, "path", None)
        below = getattr(route, "routes", None)
        if not isinstance(path, str):
            if below and depth < DEPTH_MAX:  # a host, or a group: it has no path of its own
                yield from _templates(below, prefix, depth + 1)
            continue
        if not hasattr(route, "routes"):
            yield prefix + path, False
            continue
        if below and depth < DEPTH_MAX:
            yield from _templates(below, prefix + path.rstrip("/"), depth + 1)
        yield prefix + path.rstrip("/"), True


def _spelt_out(routes: Any) -> Any:
    """FastAPI keeps routers that were included as one route each, and tells what they stand for."""
    if not any(type(route).__module__.startswith("fastapi") for route in routes):
        return routes
    from fastapi import routing

    spell_out = getattr(routing, "iter_route_contexts", None)
    return routes if spell_out is None else list(spell_out(routes))


def _pattern(template: str, is_prefix: bool) -> re.Pattern[str]:
    pattern, at = "", 0
    for parameter in _PARAMETER.finditer(template):
        pattern += re.escape(template[at : parameter.start()])
        pattern += ".*" if parameter[2] == "path" else "[^/]+"
        at = parameter.end()
    return re.compile(pattern + re.escape(template[at:]) + ("(?:/.*)?" if is_prefix else ""), re.DOTALL)
