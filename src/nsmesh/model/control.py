"""Method paths of the control interface, and the kinds that it lists."""

from __future__ import annotations

PREFIX = "/nsmesh.control.Control/"
APPLY = PREFIX + "Apply"
DELETE = PREFIX + "Delete"
GET = PREFIX + "Get"
CONNECT = PREFIX + "Connect"
DISCONNECT = PREFIX + "Disconnect"
STATUS = PREFIX + "Status"
DOWN = PREFIX + "Down"
RESTART = PREFIX + "Restart"
HAND_OVER = PREFIX + "HandOver"
UPGRADE = PREFIX + "Upgrade"
CREATE_TOKEN = PREFIX + "CreateToken"
REMOVE_NODE = PREFIX + "RemoveNode"
ENDPOINT_STATUS = "/nsmesh.control.Endpoint/Status"
"""Served by each endpoint process at its own socket: what it says of itself, for its mesh."""

KINDS = (
    "services",
    "endpoints",
    "clients",
    "connections",
    "managers",
    "forwarders",
    "nodes",
    "links",
    "events",
)
"""What ``nsm get`` takes, in the order in which help shows it."""
