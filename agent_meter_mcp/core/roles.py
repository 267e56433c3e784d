"""Who may do what.

| role | may |
|---|---|
| agent (bound to one agent) | record, check, reserve, settle and gate for itself and its children; read its own usage and the limits that bind it; engage the kill switch on itself |
| service (bound to one service) | record, check, reserve and settle for any agent at that service |
| viewer | read everything |
| operator | everything |
"""  # noqa: E501  a table row cannot be wrapped

from __future__ import annotations

from .errors import Forbidden
from .value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Role = Literal["agent", "service", "viewer", "operator"]
    Deed = Literal["use", "read", "control"]


class Caller(Value):
    """Who is asking. `name` is what the audit log says; `bound_to` the one agent or service of that role.

    `default_agent`, `default_session` and `default_project` are what the client told us about itself: used
    where an argument is left out, never instead of one."""

    role: Role
    name: str
    bound_to: str | None = None
    default_agent: str | None = None
    default_session: str | None = None
    default_project: str | None = None


_DEEDS: dict[Role, tuple[Deed, ...]] = {
    "operator": ("use", "read", "control"),
    "viewer": ("read",),
    "agent": ("use", "read"),
    "service": ("use",),
}


def allow(caller: Caller, deed: Deed) -> None:
    """Raises Forbidden unless the role may do it for somebody: `use` (record ... gate), `read`, `control`."""
    if deed not in _DEEDS[caller.role]:
        needed = {
            "use": "agent, service or operator",
            "read": "viewer, agent or operator",
            "control": "operator",
        }
        raise Forbidden(
            f"this needs the role {needed[deed]}; you have the role {caller.role}. Nothing was changed."
        )


def allow_agent(
    caller: Caller, agent: str, lineage: tuple[str, ...], parent_lineage: tuple[str, ...] = ()
) -> None:
    """Raises Forbidden unless the caller may act for (or look at) this agent: itself or its tree.

    `lineage` is the agent's line of ancestors, itself first; empty for an agent that nobody has heard of.
    Such a one may be spawned: then `parent_lineage`, of the parent that the request names, counts. An agent
    that exists already is not adopted like that: its usage and its budget are its own. Nor does it choose its
    own parent, whose budget it would use.
    """
    if caller.role != "agent":
        return
    if caller.bound_to == agent:
        if not parent_lineage or parent_lineage[0] in lineage[1:2]:
            return
        raise Forbidden(
            f"you are agent {agent!r} and cannot choose your parent: leave `parent` out. Only "
            f"{parent_lineage[0]!r} or an operator can say that it spawned you. Nothing was changed."
        )
    if caller.bound_to in lineage:
        return
    if not lineage and caller.bound_to in parent_lineage:
        return
    bound = (
        f"you are bound to agent {caller.bound_to!r} and may act only for it and the agents that it spawned"
    )
    if caller.bound_to in parent_lineage:
        raise Forbidden(
            f"{bound}; {agent!r} exists already, and is none of them: give a child a name that nobody has, "
            "or have an operator make it your child with set_agent. Nothing was changed."
        )
    raise Forbidden(
        f"{bound}, not for {agent!r}. Leave `agent` out, or name a child with parent={caller.bound_to!r}. "
        "Nothing was changed."
    )


def allow_service(caller: Caller, service: str | None) -> None:
    """Raises Forbidden when a service credential is used for another service."""
    if caller.role == "service" and service != caller.bound_to:
        raise Forbidden(f"you are bound to service {caller.bound_to!r}. Nothing was changed.")
