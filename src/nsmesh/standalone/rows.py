"""What ``nsm get``, ``describe`` and ``status`` show: the read model as plain data, in stable shapes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import asdict

import nsmesh
from nsmesh.chains.tunnels import LACKS, MECHANISMS
from nsmesh.core.audit import orphans, unclosed
from nsmesh.core.paths import UNDERLAY
from nsmesh.model.manifest import Link, dump
from nsmesh.model.messages import FORWARDER_SERVICE, NetworkService, NetworkServiceEndpoint
from nsmesh.standalone.mesh import Mesh
from nsmesh.standalone.node_rows import managers_elsewhere, node_rows, parts
from nsmesh.standalone.nodes import Node, NodeForwarder
from nsmesh.standalone.refused import refused
from nsmesh.standalone.rows_connection import Row, connection_row
from nsmesh.standalone.rows_ends import client_rows, endpoint_rows
from nsmesh.standalone.telling import describe_match, duration


class Rows:
    """Rows of one mesh by kind; each kind's rows have one shape (``docs/reference/json.md``)."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._kinds: dict[str, Callable[[], list[Row]]] = {
            "services": self._services,
            "endpoints": lambda: endpoint_rows(mesh),
            "clients": lambda: client_rows(mesh),
            "connections": self._connections,
            "managers": lambda: [*self._managers(), *managers_elsewhere(mesh)],
            "nodes": lambda: node_rows(mesh),
            "forwarders": self._forwarders,
            "links": self._links,
            "events": lambda: [event.row() for event in mesh.events.kept],
        }

    def of(self, kind: str, name: str = "") -> list[Row]:
        """Return the rows of a kind, sorted by name (events by time); ``name`` picks one."""
        rows = self._kinds[kind]()
        if kind == "events":
            return rows if not name else [row for row in rows if row["connection"] == name]
        if name:
            rows = [row for row in rows if name in {row.get("name"), row.get("id")}]
            for row in rows if kind == "connections" else ():
                row["refused"] = self._refused(row["id"])
        return sorted(rows, key=lambda row: str(row.get("name") or row.get("id")))

    def _services(self) -> list[Row]:
        model = self._mesh.model
        return [
            {
                "name": service.name,
                "payload": service.payload,
                "matches": len(service.matches),
                "rules": [describe_match(match) for match in service.matches],
                "endpoints": sorted(
                    entry.name
                    for entry in model.endpoints.values()
                    if service.name in entry.network_service_names
                ),
                "manifest": _manifest(service),
            }
            for service in model.services.values()
        ]

    def _connections(self) -> list[Row]:
        now = self._mesh.scope.clock.now()
        nodes = parts(self._mesh)
        return [
            connection_row(connection, self._mesh.model.since.get(key, now), now, nodes)
            for key, connection in self._mesh.model.connections.items()
            if connection.path.index <= 1  # a function in the middle asks for the client's rest of the path
        ]

    def _refused(self, first: str) -> dict[str, int]:
        """Return what the wires of a client's connection have refused; looked for only where one is asked."""
        found = (one for one in self._mesh.model.connections.values() if one.path.index <= 1)
        segments = (one for one in found if one.path.path_segments and one.path.path_segments[0].id == first)
        return next((refused(self._mesh, one) for one in segments), {})

    def _managers(self) -> list[Row]:
        return [self._manager(node) for node in self._mesh.nodes.values()]

    def _manager(self, node: Node) -> Row:
        state, pid = self._role_state(node.manager_unit)
        mine = [
            connection
            for connection in self._mesh.model.connections.values()
            if connection.path.index == 1 and connection.path.path_segments[1].name == node.manager
        ]
        return {
            "name": node.manager,
            "state": state,
            "url": node.public_url,
            "connections": len(mine),
            "node": node.name,
            "pid": pid,
        }

    def _forwarders(self) -> list[Row]:
        here = {one.name: one for node in self._mesh.nodes.values() for one in node.forwarders}
        return [
            self._forwarder(entry, here.get(entry.name))
            for entry in self._mesh.model.endpoints.values()
            if FORWARDER_SERVICE in entry.network_service_names
        ]

    def _forwarder(self, entry: NetworkServiceEndpoint, here: NodeForwarder | None) -> Row:
        state, pid = self._role_state(here.unit) if here else ("external", None)
        labels = dict(entry.network_service_labels[FORWARDER_SERVICE].labels)
        mechanisms, missing = labels.pop(MECHANISMS, ""), labels.pop(LACKS, "")
        return {
            "name": entry.name,
            "state": state,
            "labels": labels,
            "mechanisms": mechanisms.split(".") if mechanisms else [],
            "lacks": missing.split("; ") if missing else [],
            "underlay": self._narrow(entry.name),
            "wires": sum(
                segment.name == entry.name
                for connection in self._mesh.model.connections.values()
                if connection.path.index <= 1  # the whole path; a forwarder may stand in it several times
                for segment in connection.path.path_segments
            ),
            "node": parts(self._mesh).get(entry.name, ""),
            "url": here.url if here else entry.url,
            "pid": pid,
        }

    def _narrow(self, name: str = "") -> list[str]:
        """Return where the underlay is narrower than its link says, as one forwarder has found, or any."""
        hops = (hop for one in self._mesh.model.connections.values() for hop in one.path.path_segments)
        found = (hop.metrics.get(UNDERLAY, "") for hop in hops if not name or hop.name == name)
        return sorted({text for text in found if text})

    def _links(self) -> list[Row]:
        return [
            {
                "name": link.name,
                "a": f"{link.ends[0].of}/{link.ends[0].interface}",
                "b": f"{link.ends[1].of}/{link.ends[1].interface}",
                "addresses": [list(end.addresses) for end in link.ends],
                "mtu": link.mtu or 1500,
                "state": "up" if link.name in self._mesh.spaces.links else "down",
            }
            for link in self._mesh.documents.of(Link)
        ]

    def _role_state(self, name: str) -> tuple[str, int | None]:
        if not self._mesh.separate:
            return "running", os.getpid()
        unit = self._mesh.supervisor.units.get(name)
        if unit is None:
            return "dead", None
        return unit.state, unit.process.pid if unit.process else None

    def _roles(self) -> list[Row]:
        mesh = self._mesh
        registry = ("registry", f"registry-{mesh.paths.mesh}", "registry", mesh.registry_url, "")
        roles = [] if mesh.first else [registry]
        for node in mesh.nodes.values():
            roles.append(("nsmgr", node.manager, node.manager_unit, node.public_url, node.name))
            roles += [("forwarder", one.name, one.unit, one.url, node.name) for one in node.forwarders]
        return [
            {
                "role": role,
                "name": name,
                "state": self._role_state(unit)[0],
                "node": node,
                "pid": self._role_state(unit)[1],
                "url": url,
            }
            for role, name, unit, url, node in roles
        ]

    def status(self) -> Row:
        """Return the whole mesh in one document."""
        mesh = self._mesh
        now = mesh.scope.clock.now()
        return {
            "mesh": mesh.paths.mesh,
            "state": mesh.state,
            "pid": os.getpid(),
            "uptime": duration(mesh.scope.clock.monotonic() - mesh.started),
            "version": nsmesh.__version__,
            "python": sys.executable,
            "mode": "separate" if mesh.separate else "one process",
            "nodes": len(mesh.nodes) + len(mesh.elsewhere),
            "run_dir": str(mesh.paths.run),
            "state_dir": str(mesh.paths.state),
            "connections": len(self._connections()),
            "services": sorted(mesh.model.services),
            "roles": self._roles(),
            "endpoints": self.of("endpoints"),
            "clients": self.of("clients"),
            "dead": [
                {
                    "name": death.name,
                    "why": death.why,
                    "ago": duration(now - death.at),
                    "restarted": death.restarted,
                }
                for death in mesh.supervisor.deaths
            ],
            "underlay": [{"narrow": text} for text in self._narrow()],
            "audit": [asdict(orphan) for orphan in orphans()],
            "unclosed": [asdict(owed) for owed in unclosed()],
        }


def _manifest(service: NetworkService) -> Row:
    data: Row = dump(service)
    return data
