"""What is written again and again has a number: dimensions, services, price lists; and who is known."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .driver import Connection

KNOWN_MAX = 50_000


class Names:
    """The numbers of one connection that writes, which has made them or read them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._dims: dict[tuple[str, ...], int] = {}
        self._broad: dict[int, int] = {}
        self._services: dict[str, int] = {}
        self._prices: dict[str, int] = {}
        self._agents: set[str] = set()

    def forget(self) -> None:
        """After a ROLLBACK what was made may not exist, and in a backup a number be another name's."""
        self._dims.clear()
        self._broad.clear()
        self._services.clear()
        self._prices.clear()
        self._agents.clear()

    def dim(self, key: tuple[str, ...], at_us: int) -> int:
        """The id of (service, agent, operation, model, project, session, source, unit_type, outcome)."""
        known = self._dims.get(key)
        if known is None:
            row = self._connection.execute(
                "SELECT id FROM dim WHERE service = ? AND agent = ? AND operation = ? AND model = ?"
                " AND project = ? AND session = ? AND source = ? AND unit_type = ? AND outcome = ?",
                key,
            ).fetchone()
            if row is None:
                row = self._connection.execute(
                    "INSERT INTO dim (service, agent, operation, model, project, session, source, unit_type,"
                    " outcome) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
                    key,
                ).fetchone()
            if len(self._dims) > KNOWN_MAX:
                self._dims.clear()
            known = self._dims[key] = row[0]
            self.know_agent(key[1], at_us)
        return known

    def broad(self, dim: int) -> int:
        """The id of the dim of all that its agent did at its service, with its outcome."""
        known = self._broad.get(dim)
        if known is None:
            service, agent, outcome = self._connection.execute(
                "SELECT service, agent, outcome FROM dim WHERE id = ?", (dim,)
            ).fetchone()
            if len(self._broad) > KNOWN_MAX:
                self._broad.clear()
            of_both = (service, agent, "", "", "", "", "", "", outcome)
            known = self._broad[dim] = self.dim(of_both, 0)  # the agent is known
        return known

    def know_agent(self, agent_id: str, at_us: int) -> None:
        """An agent comes into being with the first that is heard of it."""
        if agent_id not in self._agents:
            self._connection.execute(
                "INSERT INTO agent (agent_id, created) VALUES (?, ?) ON CONFLICT DO NOTHING",
                (agent_id, at_us),
            )
            if len(self._agents) > KNOWN_MAX:
                self._agents.clear()
            self._agents.add(agent_id)

    def service(self, name: str) -> int:
        return self._services.get(name) or self._intern(self._services, "service", "name", name)

    def price(self, version: str) -> int:
        return self._prices.get(version) or self._intern(self._prices, "price", "version", version)

    def _intern(self, known: dict[str, int], table: str, column: str, text: str) -> int:
        execute = self._connection.execute
        row = execute(f"SELECT id FROM {table} WHERE {column} = ?", (text,)).fetchone()
        if row is None:
            row = execute(f"INSERT INTO {table} ({column}) VALUES (?) RETURNING id", (text,)).fetchone()
        known[text] = row[0]
        return row[0]
