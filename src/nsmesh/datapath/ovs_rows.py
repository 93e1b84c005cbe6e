"""Rows and operations of the switch's database: ports as we want them, and as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from nsmesh.datapath.ovs_database import Row, mapping, members, unmapped
from nsmesh.model.messages import ETHERNET

OWNER, MARK, PAYLOAD = "nsm-connection", "nsm-mark", "nsm-payload"
"""Keys of ``external_ids``: whose port it is, what it was made of, what the flows let pass."""
SPARE = "nsms"
"""How the names of ports begin that are made in advance, two and two: such a pair may have no owner."""
FAR = "nsmp"
"""How the names of ports in bridges of others begin."""
FAILED = -1
"""The number of a port that a switch has tried and could not make."""
HIGHEST = 0xFEFF
"""The highest OpenFlow number of a port, which is no wire's."""


@dataclass(frozen=True, slots=True)
class FarPort:
    """The other half of a patch port, in a bridge of somebody else: an access port of a VLAN; 0: of none.

    ``forwarder``: whose it is.
    """

    name: str
    bridge: str
    vlan: int
    forwarder: str

    @property
    def mark(self) -> str:
        """What tells where it is."""
        return f"{self.bridge} {self.vlan}"


@dataclass(frozen=True, slots=True)
class SwitchPort:
    """A port as it shall be: its name at the switch, what kind it is, and the options of that kind.

    ``mark`` tells what it was made of (an interface's index, a socket's path): a port of the same name with
    another mark is made anew. ``payload``: what may pass by the flows of its wire. ``far``: its other half.
    """

    name: str
    kind: str = "system"
    options: tuple[tuple[str, str], ...] = ()
    mark: str = ""
    payload: str = ETHERNET
    far: FarPort | None = None


@dataclass(frozen=True, slots=True)
class KnownPort:
    """A port that is there: whose it is, its mark, its number for OpenFlow, and what its wire lets pass."""

    owner: str
    mark: str
    number: int
    payload: str = ETHERNET


@dataclass(slots=True)
class Inventory:
    """The ports of wires at the switch, by name; ``far``: those in bridges of others, without numbers."""

    ports: dict[str, KnownPort] = field(default_factory=dict)
    far: dict[str, KnownPort] = field(default_factory=dict)

    @property
    def all(self) -> dict[str, KnownPort]:
        """All of them."""
        return {**self.ports, **self.far}

    def has(self, name: str) -> bool:
        """Whether a port is one of them."""
        return name in self.ports or name in self.far

    def of(self, owner: str) -> list[str]:
        """Return the names of a wire's ports."""
        return [name for name, port in self.all.items() if port.owner == owner]

    def stale(self, owner: str, port: SwitchPort) -> list[str]:
        """Return what is to go before a wire has a port as it shall be: it was made of something else."""
        there = self.ports.get(port.name)
        other = self.far.get(far_of(port.name))
        near = there and (there.owner, there.mark, there.payload)
        far = other and (other.owner, other.mark)
        wanted = (owner, port.far.mark) if port.far else None
        if near == (owner, port.mark, port.payload) and far == wanted:
            return []
        return [name for name in (port.name, far_of(port.name)) if self.has(name)]

    def strays(self) -> list[str]:
        """Return the other halves whose halves are gone."""
        whole = set(map(far_of, self.ports))
        return [name for name in self.far if name not in whole]

    def drop(self, names: Iterable[str]) -> None:
        """Forget ports that are gone."""
        for name in names:
            self.ports.pop(name, None)
            self.far.pop(name, None)

    def ready(self) -> list[str]:
        """Return the pairs that were made in advance and that no wire has."""
        return sorted({pair_of(name) for name, port in self.ports.items() if not port.owner})

    def free(self, count: int) -> list[int]:
        """Return numbers that no port has; flows can name them before the ports are there."""
        taken = {port.number for port in self.ports.values()}
        found = (number for number in range(1, HIGHEST) if number not in taken)
        return [next(found) for _ in range(count)]


def is_spare(name: str) -> bool:
    """Whether a port is one of a pair that was made in advance."""
    return name.startswith(SPARE)


def ports_of(pair: str) -> tuple[str, str]:
    """Return the names of the two ports of a pair that was made in advance."""
    return f"{pair}a", f"{pair}b"


def far_of(name: str) -> str:
    """Return the name of the other half of a wire's port, which it has where it is a patch port."""
    return f"{FAR}{name[len(FAR) :]}"


def pair_of(name: str) -> str:
    """Return the pair of a port that was made in advance."""
    return name[:-1]


def key_of(name: str, owner: str) -> str:
    """Return what the flows of a port follow from: its wire, or its pair, which goes from wire to wire."""
    return pair_of(name) if is_spare(name) else owner


def read_inventory(rows: Iterable[Row]) -> Inventory:
    """Return the ports of wires among the rows of table Interface."""
    found = Inventory()
    for row in rows:
        marks = unmapped(row["external_ids"])
        if OWNER in marks:
            asked = members(row["ofport_request"])
            number = asked[0] if asked else 0
            payload = marks.get(PAYLOAD, ETHERNET)
            found.ports[row["name"]] = KnownPort(marks[OWNER], marks.get(MARK, ""), number, payload)
    return found


def ports_of_bridge(bridge: str, columns: list[str]) -> list[Row]:
    """Return the operations that read a bridge's ports; :func:`interfaces_of` puts their answers together."""
    return [
        select("Bridge", ["ports"], bridge),
        select("Port", ["_uuid", "interfaces"]),
        select("Interface", ["_uuid", *columns]),
    ]


def interfaces_of(answers: list[Row]) -> list[Row]:
    """Return the rows of a bridge's interfaces: a switch may have bridges of others."""
    bridges, ports, interfaces = (answer["rows"] for answer in answers)
    plugged = {uuid for bridge in bridges for _, uuid in members(bridge["ports"])}
    mine = {uuid for port in ports if port["_uuid"][1] in plugged for _, uuid in members(port["interfaces"])}
    return [row for row in interfaces if row["_uuid"][1] in mine]


def select(table: str, columns: list[str], name: str = "") -> Row:
    """Return the operation that reads rows, all of them or the one of a name."""
    where = [["name", "==", name]] if name else []
    found: Row = {"op": "select", "table": table, "where": where}
    return {**found, "columns": columns} if columns else found


def put(table: str, where: list[list[object]], column: str, how: str, value: object) -> Row:
    """Return the operation that puts something into a set, or takes it out."""
    return {"op": "mutate", "table": table, "where": where, "mutations": [[column, how, value]]}


def new_port(port: SwitchPort, owner: str = "", number: int = 0) -> list[Row]:
    """Return the operations that make a port, ``named-uuid`` as :func:`named` says, with its interface."""
    row: Row = {"name": port.name, "type": port.kind}
    if port.options:
        row["options"] = mapping(dict(port.options))
    if number:
        row["ofport_request"] = number
    if owner or is_spare(port.name):
        row["external_ids"] = mapping({OWNER: owner, MARK: port.mark, PAYLOAD: port.payload})
    return inserted(port.name, row)


def given(name: str, owner: str) -> Row:
    """Return the operation that gives a port to a wire, or to nobody. The switch does not look at that."""
    return {
        "op": "mutate",
        "table": "Interface",
        "where": [["name", "==", name]],
        "mutations": [
            ["external_ids", "delete", ["set", [OWNER]]],
            ["external_ids", "insert", mapping({OWNER: owner})],
        ],
    }


def old_port(row: Row, option: str, anew: Callable[[str], str]) -> list[Row]:
    """Return the operations that make a port anew from its row; the names in ``option`` are used up."""
    options = unmapped(row["options"])
    if option in options:
        options[option] = anew(options[option])
    return inserted(row["name"], {**row, "options": mapping(options)})


def inserted(name: str, row: Row, port: Row | None = None) -> list[Row]:
    """Return the operations that make an interface from a row, and its port, with more columns of that."""
    interface = f"{_word(name)}_i"
    return [
        {"op": "insert", "table": "Interface", "row": row, "uuid-name": interface},
        {
            "op": "insert",
            "table": "Port",
            "row": {"name": name, "interfaces": ["named-uuid", interface], **(port or {})},
            "uuid-name": named(name)[1],
        },
    ]


def named(name: str) -> list[str]:
    """Return how an operation names a port that another one of its transaction makes."""
    return ["named-uuid", f"{_word(name)}_p"]


def _word(name: str) -> str:
    return "n_" + "".join(letter if letter.isalnum() else "_" for letter in name)


def plugged(bridge: str, names: Iterable[str]) -> Row:
    """Return the operation that gives a bridge the ports that other operations of its transaction make."""
    return _ports(bridge, "insert", map(named, names))


def unplugged(bridge: str, uuids: Iterable[list[str]]) -> Row:
    """Return the operation that takes ports out of a bridge, by which the database forgets them."""
    return _ports(bridge, "delete", uuids)


def _ports(bridge: str, how: str, which: Iterable[list[str]]) -> Row:
    return put("Bridge", [["name", "==", bridge]], "ports", how, ["set", list(which)])


def await_value(table: str, column: str, value: object, milliseconds: int) -> Row:
    """Return the operation that waits until the rows of a table have a value; too long, and it is refused."""
    return _wait(table, [], column, "==", value, milliseconds)


def await_change(table: str, column: str, value: object, milliseconds: int) -> Row:
    """Return the operation that waits until the rows of a table have another value."""
    return _wait(table, [], column, "!=", value, milliseconds)


def taken_up(name: str, milliseconds: int) -> Row:
    """Return the operation that waits until the switch has taken an interface up, or found out why not."""
    return _wait("Interface", [["name", "==", name]], "ofport", "!=", ["set", []], milliseconds)


def there(table: str, name: str) -> Row:
    """Return the operation that is refused, with all of its transaction, where a row of a name has gone."""
    return _wait(table, [["name", "==", name]], "name", "==", name, 0)


def _wait(
    table: str, where: list[list[str]], column: str, until: str, value: object, milliseconds: int
) -> Row:
    found: Row = {"op": "wait", "table": table, "where": where, "columns": [column], "until": until}
    return {**found, "rows": [{column: value}], "timeout": milliseconds}
