"""ClientInfo: where a client or endpoint runs, as labels."""

from __future__ import annotations

from collections.abc import Mapping

from nsmesh.core.call import Call
from nsmesh.core.element import Element, Handler
from nsmesh.model.messages import Connection, Entry, NetworkServiceEndpoint, NetworkServiceRequest


class ClientInfo(Element):
    """Adds labels (``nodeName``, ``podName``, ``clusterName``) where they are absent.

    What a client says of itself wins, so at a remote manager the client's own node survives. ``labels`` with
    an empty value are not known and not added.

    Writes: labels of a Request; labels for each service of an endpoint that registers
    """

    def __init__(self, labels: Mapping[str, str]) -> None:
        self.labels = {name: value for name, value in labels.items() if value}

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Add, pass on."""
        labels = request.connection.labels
        for name, value in self.labels.items():
            if name not in labels:
                labels[name] = value
        return await next.request(call, request)

    async def register(self, call: Call, entry: Entry, next: Handler) -> Entry:
        """Add to an endpoint's labels, pass on."""
        if self.labels and isinstance(entry, NetworkServiceEndpoint):
            for service in entry.network_service_names:
                labels = entry.network_service_labels[service].labels
                for name, value in self.labels.items():
                    if name not in labels:
                        labels[name] = value
        return await next.register(call, entry)
