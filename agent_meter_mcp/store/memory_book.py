"""Everything that a memory store keeps: what happened, in order, and the configuration. No sum is kept."""

from __future__ import annotations

from agent_meter_mcp.core.errors import InvalidInput, NotFound
from agent_meter_mcp.core.limits import Policy
from agent_meter_mcp.core.models import LEDGER_MAX, METRICS, Agent, StoredEvent, Usage, Who

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent_meter_mcp.core.keys import Key
    from agent_meter_mcp.core.models import Alert, Amounts, AuditEntry, KillSwitch, Limit, Reservation

    Fold = tuple[int, str, str | None, str | None]


class Book:
    """Plain lists and dicts of values that are never changed in place, so a shallow copy is a snapshot."""

    def __init__(self) -> None:
        self.now_us = 0
        self.last = 0
        """The highest seq given so far."""
        self.events: list[StoredEvent] = []
        self.corrections: list[tuple[int, int, Usage]] = []
        """(seq of the event, when it was corrected, its older figures)."""
        self.refusals: dict[Fold, StoredEvent] = {}
        """By second, agent, service and limit."""
        self.reservations: list[Reservation] = []
        self.alerts: list[Alert] = []
        self.audit: list[AuditEntry] = []
        self.agents: dict[str, Agent] = {}
        self.first_seen_us: dict[str, int] = {}
        self.limits: list[Limit] = []
        self.switches: list[KillSwitch] = []
        self.keys: dict[bytes, Key] = {}
        """By the digest of their tokens."""

    def copy(self) -> Book:
        copied = Book()
        for name, kept in vars(self).items():
            setattr(copied, name, kept if isinstance(kept, int) else kept.copy())
        return copied

    # Time

    @property
    def at_us(self) -> int:
        """The moment at which this is decided: the seq of the next thing that is stored (rule 1)."""
        return max(self.now_us, self.last + 1)

    def take_seq(self) -> int:
        self.last = self.at_us
        return self.last

    def expire(self) -> None:
        """Holds that are over are over for good (rule 14)."""
        at_us = self.at_us
        for one in self.reservations.copy():
            if one.state == "open" and one.expires_at_us <= at_us:
                self.replace_reservation(one.replace(state="expired"))
                self.make_final(at_us)

    def make_final(self, at_us: int) -> None:
        """What was changed as of `at_us` stays: the clock may not go back before it (rule 1)."""
        self.last = max(self.last, at_us - 1)

    # Finding

    def policy(self) -> Policy:
        ordered = sorted(self.limits, key=lambda limit: (limit.created_at_us, limit.limit_id))
        return Policy(self.agents.values(), ordered, self.switches)

    def event(self, service: str | None, event_id: str) -> StoredEvent | None:
        """The event under this key; a refusal is none."""
        same = [one for one in self.events if (one.event.who.service, one.event.id) == (service, event_id)]
        return same[0] if same else None

    def reservation_of(self, service: str | None, event_id: str, at_us: int) -> Reservation | None:
        """The reservation whose event will have this key, as it stands at `at_us`."""
        same = [one for one in self.reservations if (one.who.service, one.event_id) == (service, event_id)]
        return as_of(same[0], at_us) if same else None

    def reservation(self, reservation_id: str, at_us: int) -> Reservation:
        """As it stands at `at_us`. Raises NotFound."""
        for one in self.reservations:
            if one.reservation_id == reservation_id:
                return as_of(one, at_us)
        raise NotFound(
            f"there is no reservation {reservation_id!r}. Its id is in the answer of reserve_budget."
        )

    def open_holds(self, at_us: int) -> list[Reservation]:
        return [one for one in self.reservations if as_of(one, at_us).state == "open"]

    def everything(self) -> Iterable[StoredEvent]:
        """Events and refusals."""
        return (*self.events, *self.refusals.values())

    # Changing

    def replace_reservation(self, changed: Reservation) -> None:
        ids = [one.reservation_id for one in self.reservations]
        self.reservations[ids.index(changed.reservation_id)] = changed

    def replace_event(self, changed: StoredEvent) -> None:
        self.events[[one.seq for one in self.events].index(changed.seq)] = changed

    def know(self, agent_id: str, at_us: int) -> Agent:
        """An agent comes into being with the first that is heard of it (rule 24)."""
        self.first_seen_us.setdefault(agent_id, at_us)
        return self.agents.setdefault(agent_id, Agent(agent_id))

    def keep_agent(self, agent: Agent, at_us: int) -> None:
        self.know(agent.agent_id, at_us)
        if agent.parent is not None:
            self.know(agent.parent, at_us)
        self.agents[agent.agent_id] = agent

    def link_parent(self, who: Who, at_us: int) -> None:
        """Rule 5: the first word about an agent's parent counts. Raises InvalidInput."""
        linked = self.policy().linked(who)
        if linked is not None:
            self.keep_agent(linked, at_us)
            self.make_final(at_us)

    def check_sums(self, added: Amounts) -> None:
        """Raises InvalidInput when a sum over all events would pass the largest integer (rule 9)."""
        for index, metric in enumerate(METRICS):
            if sum(one.event.usage.amounts[index] for one in self.events) + added[index] > LEDGER_MAX:
                raise InvalidInput(metric, "the sum over the whole ledger would pass its largest number")

    def check_holds(self, added: Amounts, at_us: int) -> None:
        """Raises InvalidInput when the sum over all open holds would."""
        for index, metric in enumerate(METRICS):
            held = sum(one.usage.amounts[index] for one in self.open_holds(at_us))
            if held + added[index] > LEDGER_MAX:
                raise InvalidInput(metric, "the sum of all open holds would pass the largest number")


def as_of(reservation: Reservation, at_us: int) -> Reservation:
    """Rule 14: an open one whose time is over is expired."""
    is_over = reservation.state == "open" and reservation.expires_at_us <= at_us
    return reservation.replace(state="expired") if is_over else reservation
