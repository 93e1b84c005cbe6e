"""What an interface leaves to those behind it: cutting large segments, and checksums (ethtool)."""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct

SIOCETHTOOL, ETHTOOL_STXCSUM, ETHTOOL_GGRO, ETHTOOL_SGRO = 0x8946, 0x17, 0x2B, 0x2C
ETHTOOL_GSTRINGS, ETHTOOL_GSSET_INFO, ETHTOOL_GFEATURES, ETHTOOL_SFEATURES = 0x1B, 0x37, 0x3A, 0x3B
ETH_SS_FEATURES, ETH_GSTRING_LEN = 4, 32

_REQUEST = struct.Struct("=16sQ16x")
_BLOCK = 32


def cut_before_sending(name: str) -> None:
    """Have the kernel cut all segments before they leave by an interface of the calling thread's namespace.

    Otherwise a veth pair hands on up to 64 KiB at a time, for the next interface to cut. Raises OSError.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        features = _features(control.fileno(), name)
        masks = [0] * -(-len(features) // _BLOCK)
        for number, feature in enumerate(features):
            if _cuts(feature):
                masks[number // _BLOCK] |= 1 << number % _BLOCK
        blocks = b"".join(struct.pack("=II", mask, 0) for mask in masks)
        _ask(control.fileno(), name, struct.pack("=II", ETHTOOL_SFEATURES, len(masks)) + blocks)


def write_checksums(name: str) -> None:
    """Have the kernel write checksums itself before packets leave by an interface, of the same namespace.

    For whoever passes them on as they come. Raises OSError.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        _ask(control.fileno(), name, struct.pack("=II", ETHTOOL_STXCSUM, 0))


def receive_as_it_comes(control: int, name: str) -> None:
    """Have the kernel hand on each packet that an interface receives, and join none (no GRO).

    ``control`` is any socket of the interface's namespace. Raises OSError.
    """
    _ask(control, name, struct.pack("=II", ETHTOOL_SGRO, 0))


def joins_received(control: int, name: str) -> bool:
    """Return whether an interface joins what it receives (GRO); otherwise as the function above."""
    answer = _ask(control, name, struct.pack("=II", ETHTOOL_GGRO, 0))
    return answer[4:8] != bytes(4)


def segmentation(name: str) -> set[str]:
    """Return which kinds of segments an interface is given whole; raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        features = _features(control.fileno(), name)
        size = -(-len(features) // _BLOCK)
        asked = struct.pack("=II", ETHTOOL_GFEATURES, size) + bytes(16 * size)
        answer = _ask(control.fileno(), name, asked)
        active = [struct.unpack_from("=IIII", answer, 8 + 16 * block)[2] for block in range(size)]
    on = (text for bit, text in enumerate(features) if active[bit // _BLOCK] >> bit % _BLOCK & 1)
    return set(filter(_cuts, on))


def _cuts(feature: str) -> bool:
    return feature.startswith("tx-") and feature.endswith("-segmentation")


def _features(control: int, name: str) -> list[str]:
    """Return the names of the features that this kernel knows, in the order of their bits."""
    answer = _ask(control, name, struct.pack("=IIQI", ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_FEATURES, 0))
    (count,) = struct.unpack_from("=I", answer, 16)
    asked = struct.pack("=III", ETHTOOL_GSTRINGS, ETH_SS_FEATURES, count) + bytes(count * ETH_GSTRING_LEN)
    texts = _ask(control, name, asked)[12:]
    parts = (texts[at : at + ETH_GSTRING_LEN] for at in range(0, count * ETH_GSTRING_LEN, ETH_GSTRING_LEN))
    return [part.split(b"\0")[0].decode(errors="replace") for part in parts]


def _ask(control: int, name: str, command: bytes) -> bytes:
    data = ctypes.create_string_buffer(command, len(command))
    fcntl.ioctl(control, SIOCETHTOOL, _REQUEST.pack(name.encode(), ctypes.addressof(data)))
    return data.raw
