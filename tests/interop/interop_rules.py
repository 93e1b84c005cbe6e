"""What may differ from the recordings: by nature, and on purpose. Everything else has to be the same."""

from __future__ import annotations

import re
from dataclasses import dataclass

CLOSE = 2.0
"""Seconds by which times may differ."""
REUSE = 0.1
"""Part of a token's life by which ours may be older: it is handed out again for that long."""
TIMEOUT_MARGIN = 1.0
"""Seconds by which a deadline may differ."""
GENERATED = re.compile(r"[a-z0-9-]{1,10}-[0-9A-Za-z]{4,14}")
"""An interface name that nobody asked for: the service, cut, and random characters."""

BY_NATURE = {
    "connection.id, path_segments[].id, keys of events": "random; one to one with the recorded ones",
    "token, nsm-client-token": "checked by claims and signature: a signature is never the same twice",
    "expires, expiration_time, initial_registration_time, exp": "recorded time, moved to now; within 2 s",
    "inodeURL, url": "inode numbers of this machine; by the name of the file",
    "parameters[name], metrics": "names that nobody asked for have random characters; one to one",
    "grpc-timeout": "what is left of 15 s; within 1 s",
    "status message": "our own wording, with the words of the contract in it",
}
"""Fields that cannot be the same, and the rule in place of equality (see interop_compare)."""


@dataclass(frozen=True)
class Purpose:
    """A difference that is wanted. ``where``: pattern of ``ROLE HOP VERB: FIELD``; ``reason``: why.

    ``traces``: the recordings that it is limited to.
    """

    where: str
    reason: str
    traces: tuple[str, ...] = ()

    def covers(self, trace: str, role: str, where: str) -> bool:
        """Return whether this difference is meant."""
        if self.traces and trace not in self.traces:
            return False
        return re.fullmatch(self.where, f"{role} {where}") is not None


ON_PURPOSE = (
    Purpose(
        r"(nsmgr|forwarder)\d? \S+>\S+ Find: .*",
        "managers and forwarders answer from a mirror: one watch of all, and a question where it finds none",
    ),
    Purpose(
        r"forwarder\d? \S+ Register: network_service_labels\[forwarder\]\.labels\[(mechanisms|lacks)\]",
        "a forwarder says in labels which mechanisms it has, and what it lacks for others",
    ),
    Purpose(
        r"forwarder\d? .*(context\.MTU|parameters\[MTU\])",
        "what fits through the tunnel is agreed upon and told to both ends",
        ("remote-vxlan",),
    ),
    Purpose(
        r"forwarder \S+ Request: mechanism_preferences\[1\]",
        "no VLANs of an outer network are offered",
        ("remote-vxlan",),
    ),
    Purpose(r".*\.metrics.*", "metrics are optional; ours names the interfaces of both sides"),
    Purpose(
        r"forwarder\d? \S+>\S+ Request: \S*mechanism\S*\.parameters\[supportsVlan\]",
        "no VLANs inside a wire are offered",
    ),
    Purpose(
        r"forwarder\d? \S+>\S+ Request: mechanism_preferences\[0\]\.parameters(\[name\])?",
        "the forwarder proposes the interface's name: after its restart it is the same wire",
    ),
    Purpose(
        r"forwarder\d? \S+>\S+ Request: connection\.payload",
        "the payload of the service is filled in also where the endpoint was named",
    ),
    Purpose(
        r"\S+ \S+>\S+ Close: grpc-timeout",
        "a Close of our own has time of its own, not what is left of the client's token",
    ),
    Purpose(
        r"\S+ \S+>\S+ Unregister: (expiration_time|initial_registration_time|path_ids.*|grpc-timeout)",
        "who unregisters says the name, within 2 s where it ends; times and path ids mean nothing there",
    ),
    Purpose(
        r"(nse|forwarder)\d? \S+ Register: (path segments|path index|path_ids.*|initial_registration_time)",
        "each registration begins a new path; what the registry filled in is not sent back",
    ),
    Purpose(
        r"forwarder\d? \S+ \S+ answer.*: context\.ip_context\.policies\[\d\]\.routes",
        "a policy without routes stays so: the forwarder does not write its default into the answer",
    ),
    Purpose(
        r"\S+ probe>\S+ MonitorConnections answer first: path\.path_segments\[\d\]\.token",
        "events carry tokens to who made the connection, and to nobody else",
    ),
    Purpose(
        r"forwarder nse waits for forwarder>nse (Request|Close) at .*",
        "an interface name that the kernel would refuse is refused before the endpoint is asked",
        ("errors-request",),
    ),
    Purpose(
        r"nsmgr nsmgr>forwarder (Request|Close): a call",
        "a descriptor that the same process sent earlier is found: there is nothing to wait for",
        ("errors-request",),
    ),
    Purpose(
        r"\S+ probe>\S+ (Request|Register) answer status: .* 7 no sufficient .*: prev_token_subject.*",
        "the subject of a token has to be its sender",
        ("errors-tokens", "registry-tokens"),
    ),
    Purpose(
        r"nsmgr probe>nsmgr Request answer status: 13 .*unmarshalling.*",
        "what cannot be read is the caller's fault: INVALID_ARGUMENT",
        ("health",),
    ),
    Purpose(
        r"nsmgr nsmgr>registry Unregister: path (index|segments)",
        "an expired registration is unregistered under the manager's own path, and so it is removed",
        ("nse-expiry",),
    ),
    Purpose(
        r"nse\d? forwarder>nse\d? .*: mechanism\.parameters\[name\]",
        "an interface keeps its name over a reselect",
        ("monitor-events",),
    ),
    Purpose(
        r"nsc nsc>nsmgr Request: connection\.state",
        "a client that starts takes a connection up as it is; it does not tear down what was reselected once",
        ("restore-client-after-heal",),
    ),
    Purpose(
        r"\S+ \S+>\S+ Close: a call",
        "a Request that failed, and of which nobody knows what became, is closed",
        ("heal-forwarder", "errors-broken-answers"),
    ),
    Purpose(
        r"forwarder forwarder>nse Request: connection\.mechanism\.parameters\[name\]",
        "the interface of what was there before the recording began has another name",
        ("heal-endpoint-process",),
    ),
    Purpose(
        r"forwarder \S+ (Request answer (status|message)|MonitorConnections answer (first event|states))",
        "what cannot be wired is refused: no prefix length, no mechanism, a wrong one, a bent path; an "
        "answer in state DOWN is granted and UP",
        ("errors-broken-answers",),
    ),
    Purpose(
        r"nsmgr probe>nsmgr Request answer status: 2 expiration for the previous path segment .*",
        "the timer of the client's token is set before the next hop is asked: its answer need not repeat it",
        ("errors-broken-answers",),
    ),
    Purpose(
        r"nsc nsc>nsmgr Request: grpc-timeout",
        "healing gives a Request 15 s",
        ("heal-forwarder",),
    ),
    Purpose(
        r"forwarder forwarder>nse2 Request: grpc-timeout",
        "while another endpoint is left to ask, each gets half of the time; the dead one is asked last",
        ("heal-endpoint",),
    ),
    Purpose(
        r"(nsmgr|forwarder) \S+>\S+ MonitorConnections selector",
        "who has begun without a journal asks those behind it what a Close may mean that it cannot place",
        ("errors-broken-answers", "errors-paths", "errors-tokens"),
    ),
    Purpose(
        r"\S+ \S+>\S+ MonitorConnections answer first: path\.path_segments\[\d\]\.(token|expires).*",
        "tokens of what was there before the recording began are the player's own",
        (
            "heal-endpoint",
            "heal-endpoint-process",
            "heal-forwarder",
            "heal-manager",
            "monitor-endpoint-dies",
            "monitor-forwarder-dies",
            "restore-client",
            "restore-client-after-heal",
        ),
    ),
    Purpose(
        r"registry nsmgr>registry .*initial_registration_time",
        "when an endpoint registered first is remembered by the process, and this one is new",
        ("heal-forwarder",),
    ),
    Purpose(
        r"nsc nsc>nsmgr Request: connection\.payload",
        "a reselect asks for the payload that the client wished, if any: the service's may be another by now",
        ("heal-endpoint", "heal-forwarder"),
    ),
    Purpose(
        r"registry probe>registry Find answer count",
        "an endpoint is not unregistered before three quarters of its life, however long a call may take",
        ("registry-expiration",),
    ),
    Purpose(
        r"\S+ \S+>\S+ Close: path\.path_segments\[\d\]\.(token|expires).*",
        "a Close has the tokens of the last Request: who gets it uses what it has stored, and the header",
    ),
)
"""All other differences are faults."""


CLAUSES = (
    "is not found",
    "not found",
    "candidates not found",
    "no candidates found",
    "no sufficient privileges",
    "all forwarders have failed",
    "cannot be nil",
    "should be equal",
)
"""Words of a refusal that the contract names: ours has to have them too."""


def clause_of(text: str) -> str:
    """Return the last clause of a recorded message that the contract names; empty for none."""
    found = [(text.rfind(clause), len(clause), clause) for clause in CLAUSES if clause in text]
    return max(found)[2] if found else ""


OK, CANCELLED, UNKNOWN, DEADLINE_EXCEEDED, UNAVAILABLE = 0, 1, 2, 4, 14


def same_status(recorded: int, text: str, ours: int) -> bool:
    """Return whether a status of ours stands for the recorded one.

    Go loses a status where it wraps an error, and says UNKNOWN: ours says what it is. A dial that failed is
    UNAVAILABLE here. A Close of what is gone is done, whatever else could not be told to whom.
    """
    if recorded == UNKNOWN and ours != OK:
        return True
    if recorded == DEADLINE_EXCEEDED and "failed to dial" in text:
        return ours in {UNAVAILABLE, DEADLINE_EXCEEDED}
    if recorded in {CANCELLED, UNKNOWN} and "errors during client close" in text:
        return ours in {OK, recorded}
    return recorded == ours


AS_UP = "RESELECT_REQUESTED"
"""A state that Go's monitors store and relay until the next refresh; ours shows what is: UP.

A client that starts meanwhile would take it over and tear its own connection down.
"""


_NEW_LIFE = "Go's {} never recovers there; ours does, so what is said from then on is another conversation"
NOT_PLAYED = {
    ("heal-endpoint", "nse"): "it dies as the recording begins, and says nothing",
    ("find-without-body-service-registry", "nsmgr"): "it says nothing but what was open before",
    ("heal-forwarder", "forwarder"): _NEW_LIFE.format("restarted forwarder"),
    ("heal-forwarder", "nsmgr"): _NEW_LIFE.format("manager dials the dead forwarder and its path"),
    (
        "monitor-forwarder-dies",
        "forwarder",
    ): "two clients ask for one interface in one namespace: Go's second "
    "one takes it over without notice, ours is refused",
    **{
        (name, role): "what is asked of the Workload API is played in test_workload_conversations"
        for name, roles in {
            "workload-api": ("nsc", "nse", "nsmgr", "registry"),
            "workload-api-cancelled": ("nse",),
            "workload-api-errors": ("nse",),
            "workload-api-security": ("nse",),
        }.items()
        for role in roles
    },
}
"""Roles of conversations that the player does not play, with the reason."""
