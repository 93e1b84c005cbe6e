"""gRPC behind a fence: bytes in, bytes out. Nobody outside sees a socket, TLS, or HTTP/2."""

from nsmesh.rpc.client import Client, connect
from nsmesh.rpc.client_connection import Reply
from nsmesh.rpc.descriptors import Descriptors, PeerDescriptors
from nsmesh.rpc.inherited import take_from_environment, unclaimed
from nsmesh.rpc.limits import Limits
from nsmesh.rpc.listener import leave
from nsmesh.rpc.methods import Bidi, Method, ServerCall, ServerStream, Unary
from nsmesh.rpc.pool import Pool
from nsmesh.rpc.server import Server, serve, servers

__all__ = [
    "Bidi",
    "Client",
    "Descriptors",
    "Limits",
    "Method",
    "PeerDescriptors",
    "Pool",
    "Reply",
    "Server",
    "ServerCall",
    "ServerStream",
    "Unary",
    "connect",
    "leave",
    "serve",
    "servers",
    "take_from_environment",
    "unclaimed",
]
