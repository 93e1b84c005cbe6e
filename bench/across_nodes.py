"""What a whole Request costs from node to node: two managers and two forwarders, beside one node's mesh.

Run as root: python bench/run.py across. Two namespaces are the nodes, joined by a veth pair; every role is a
process of its own, with mTLS everywhere, over TCP between the managers. Wires are VXLAN tunnels. The mesh
of one node stands beside it and takes turns with it. At the end a thousand tunnels are asked for, three
times: what the last of them cost beside the first.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import meshes
from common import spaces
from local_wire import inside
from meshes import APART_TLS, Form, Mesh
from processes import Process, command
from report import Details, Report, Row, duration, row
from thousand import growth
from whole_request import Found

NAME = "across"
NEAR = 8
IN_FLIGHT = (1, 8)
IPS = ("192.0.2.1", "192.0.2.2")
ACROSS = Form("two nodes, mTLS", apart=True, tls=True)
ROLES = ("client", "nsmgr", "forwarder", "nsmgr 2", "forwarder 2", "nse")


@dataclass(frozen=True, slots=True)
class Place:
    """Where processes of a mesh run: sockets and logs in ``folder``, roles in the namespaces of two nodes."""

    config: meshes.Config
    nodes: Sequence[str]
    profiles: Path | None = None

    def url(self, name: str) -> str:
        """Return the unix socket of a role."""
        return self.config.url(name.replace(" ", ""))

    def role(self, name: str, node: int, *arguments: str, **environment: str) -> Process:
        """Start ``nsm run ARGUMENTS`` on a node."""
        profile = self.profiles / f"{name}.prof" if self.profiles else None
        folder = Path(self.config.folder)
        common = {
            "NSM_NAME": f"{name.replace(' ', '')}-{folder.name}",
            "NSM_LISTEN_ON": self.url(name),
            "NSM_MAX_TOKEN_LIFETIME": "1h",
            "SPIFFE_ENDPOINT_SOCKET": self.config.workload_api,
        }
        argv = ["nsenter", f"--net={self.nodes[node]}", *command("run", *arguments, profile=profile)]
        return Process(name, argv, folder / f"{name}.log", environment=common | environment)


@contextmanager
def running(
    near: Sequence[str], far: str, nodes: Sequence[str], profiles: Path | None = None
) -> Iterator[Mesh]:
    """Run a mesh of two nodes: clients in ``near`` on the first one, the endpoint in ``far`` on the other."""
    _join(nodes)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        api = f"unix://{folder}/workload-api.sock"
        config = meshes.Config("", str(folder), tuple(near), far, workload_api=api)
        starter = meshes.Starter(config, folder, profiles, stack)
        starter.ready("authority")
        place = Place(config, nodes, profiles)
        processes: dict[str, Process] = {}
        for name, process in _roles(place):
            processes[name] = process
            stack.callback(process.stop)
        processes["client"] = starter.driver("client")
        mesh = Mesh(ACROSS, near, far, processes)
        mesh.ask()
        yield mesh


def _join(nodes: Sequence[str]) -> None:
    a, b = nodes
    inside(a, *f"ip link add under type veth peer name under netns {Path(b).name}".split())
    for node, ip in zip(nodes, IPS, strict=True):
        inside(node, "ip", "addr", "add", f"{ip}/24", "dev", "under")
        inside(node, "ip", "link", "set", "under", "up")


def _roles(place: Place) -> Iterator[tuple[str, Process]]:
    """Start all roles but the client; they find each other when they are ready."""
    yield "registry", place.role("registry", 0, "registry-memory")
    for number, tail in enumerate(("", " 2")):
        manager = place.url(f"nsmgr{tail}")
        listen = {"NSM_LISTEN_ON": f"{manager},tcp://{IPS[number]}:5001"}
        registry = {"NSM_REGISTRY_URL": place.url("registry")}
        yield f"nsmgr{tail}", place.role(f"nsmgr{tail}", number, "nsmgr", **listen, **registry)
        own = {"NSM_CONNECT_TO": manager, "NSM_TUNNEL_IP": IPS[number]}
        yield f"forwarder{tail}", place.role(f"forwarder{tail}", number, "forwarder", **own)
    yield (
        "nse",
        place.role(
            "nse",
            1,
            *("nse", "icmp-responder"),
            NSM_CONNECT_TO=place.url("nsmgr 2"),
            NSM_SERVICE_NAMES=meshes.SERVICE,
            NSM_PAYLOAD="IP",
            NSM_CIDR_PREFIX=meshes.PREFIX,
            NSM_NETNS=place.config.far,
            NSM_PBR_CONFIG_PATH="",
        ),
    )


def run(*, short: bool, profiles: Path | None = None) -> Report:
    """Measure both meshes in turn."""
    rounds, single, many, warm = (1, 4, 16, 8) if short else (10, 50, 192, 64)
    with ExitStack() as stack:
        *near, far, a, b = stack.enter_context(spaces(NEAR + 3))
        across = stack.enter_context(running(near, far, (a, b), _folder(profiles)))
        *near, far = stack.enter_context(spaces(NEAR + 1))
        local = stack.enter_context(meshes.running(APART_TLS, near, far))
        found = {mesh.form.name: Found() for mesh in (across, local)}
        for mesh in (across, local):  # what is imported or opened at first use is not what is measured
            _round(mesh, Found(), single, warm)
        for number in range(rounds):
            for mesh in (across, local) if number % 2 else (local, across):
                _round(mesh, found[mesh.form.name], single, many)
        report = _report(found)
        report.rows += _many(across, *((2, 30, 5) if short else (3, 1000, 50)))
    return report


def _many(mesh: Mesh, rounds: int, count: int, block: int) -> list[Row]:
    """Ask for many tunnels, all to one endpoint; return what the first of them cost, and the last."""
    first, last = [], []
    for _ in range(rounds):
        numbers = mesh.fresh(count)
        first.append(mesh.do("request", numbers[:block]))
        mesh.do("request", numbers[block:-block], IN_FLIGHT[-1])
        last.append(mesh.do("request", numbers[-block:]))
        mesh.do("close", numbers, IN_FLIGHT[-1])
    return [growth(ACROSS, "first", first, first), growth(ACROSS, "last", last, first)]


def _folder(profiles: Path | None) -> Path | None:
    if profiles is not None:
        profiles.mkdir(parents=True, exist_ok=True)
    return profiles


def _round(mesh: Mesh, found: Found, single: int, many: int) -> None:
    for in_flight in IN_FLIGHT:
        numbers = mesh.fresh(single if in_flight == 1 else many)
        for verb in ("request", "refresh", "close"):
            found.phases[verb, in_flight].append(mesh.do(verb, numbers, in_flight))


def _report(found: dict[str, Found]) -> Report:
    report = Report()
    base = found[APART_TLS.name]
    for name, one in found.items():
        for verb, what in (("request", "Request"), ("refresh", "refresh"), ("close", "Close")):
            for in_flight in IN_FLIGHT:
                report.rows.append(_row(what, name, one, base, (verb, in_flight)))
    head = ("CPU time by role", "verb", "in flight", *ROLES, "sum")
    rows = []
    for name, one in found.items():
        for verb, in_flight in (("request", 1), ("request", 8), ("refresh", 1), ("close", 1)):
            roles = one.by_role(verb, in_flight)
            cells = [duration(roles[role]) if role in roles else "" for role in ROLES]
            rows.append((name, verb, str(in_flight), *cells, duration(sum(roles.values()))))
    report.details.append(Details("from node to node: who spends the CPU time of one operation", head, rows))
    return report


def _row(what: str, way: str, found: Found, base: Found, key: tuple[str, int]) -> Row:
    phases = found.phases[key]
    wall = [time for phase in phases for time in phase.wall]
    rate = len(wall) / sum(phase.took for phase in phases)
    what += f", {key[1]} in flight" if key[1] > 1 else ""
    return row(
        f"{what} across" if way == ACROSS.name else f"{what} beside it",
        way,
        wall,
        found.cpu(*key),
        base.cpu(*key),
        to=APART_TLS.name,
        per_second=rate,
    )
