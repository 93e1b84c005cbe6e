"""Small programs for the kernel: an assembler with labels, and the system call ``bpf(2)``. Fenced in here.

Only what a filter of frames needs: a hash map for counters, and programs of type ``sched_cls``. Constants
carry the kernel's own names.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from typing import NamedTuple

from nsmesh.core.errors import Internal

BPF_MAP_CREATE, BPF_MAP_LOOKUP_ELEM, BPF_MAP_DELETE_ELEM = 0, 1, 3
BPF_PROG_LOAD, BPF_PROG_GET_FD_BY_ID, BPF_MAP_GET_FD_BY_ID, BPF_OBJ_GET_INFO_BY_FD = 5, 13, 14, 15
BPF_MAP_TYPE_HASH, BPF_PROG_TYPE_SCHED_CLS, BPF_F_NO_PREALLOC = 1, 3, 1
BPF_FUNC_MAP_LOOKUP_ELEM, BPF_FUNC_MAP_UPDATE_ELEM, BPF_FUNC_SKB_LOAD_BYTES = 1, 2, 26
BPF_PSEUDO_MAP_FD = 1
B, H, W, DW = 0x10, 0x08, 0x00, 0x18
"""Sizes of what is loaded or stored: 1, 2, 4 and 8 bytes."""

_NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351, "loongarch64": 280}
_LONGEST = 128
"""Bytes of the longest argument that is given; the kernel wants zeros behind what it does not know."""
_INFO, _INFO_MAPS = 232, 52
"""Bytes of ``bpf_prog_info``, and where its number of maps stands, with the pointer to them behind."""
_INSTRUCTION = struct.Struct("=BBhi")
_JUMPS = {"==": 0x15, "!=": 0x55, ">": 0x25, "<": 0xA5, "&": 0x45}
_ALU = {"+": 0x07, "&": 0x57, ">>": 0x77, "<<": 0x67}
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def bpf(command: int, arguments: bytes) -> int:
    """Call ``bpf(2)`` and return what it returns: a descriptor, or 0. Raises OSError."""
    number = _NUMBERS.get(platform.machine())
    if number is None:
        raise OSError(38, f"bpf(2) has no number here for {platform.machine()}")
    given = ctypes.create_string_buffer(arguments, _LONGEST)
    done: int = _libc.syscall(ctypes.c_long(number), ctypes.c_int(command), given, ctypes.c_uint(_LONGEST))
    if done < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return done


def new_hash(name: str, value_size: int, most: int) -> int:
    """Make a hash map with keys of 32 bits and return its descriptor; it grows as it fills.

    Raises OSError.
    """
    fields = (BPF_MAP_TYPE_HASH, 4, value_size, most, BPF_F_NO_PREALLOC, 0, 0, name.encode())
    return bpf(BPF_MAP_CREATE, struct.pack("=IIIIIII16s", *fields))


def lookup(map_fd: int, key: int, value_size: int) -> bytes | None:
    """Return a map's value, or None where it has none for the key; raises OSError."""
    wanted = ctypes.c_uint32(key)
    value = ctypes.create_string_buffer(value_size)
    try:
        bpf(BPF_MAP_LOOKUP_ELEM, _element(map_fd, wanted, ctypes.addressof(value)))
    except FileNotFoundError:
        return None
    return value.raw


def forget(map_fd: int, key: int) -> None:
    """Take a key out of a map; one that is not there is out already. Raises OSError."""
    wanted = ctypes.c_uint32(key)
    try:
        bpf(BPF_MAP_DELETE_ELEM, _element(map_fd, wanted, 0))
    except FileNotFoundError:
        return


def _element(map_fd: int, key: ctypes.c_uint32, value: int) -> bytes:
    return struct.pack("=IxxxxQQQ", map_fd, ctypes.addressof(key), value, 0)


class Info(NamedTuple):
    """What the kernel says of a loaded program: its id, the digest of its code, the id of its first map."""

    id: int
    tag: bytes
    map_id: int


def info_of(descriptor: int) -> Info:
    """Return what a loaded program is; raises OSError."""
    ids = (ctypes.c_uint32 * 1)()
    info = ctypes.create_string_buffer(_INFO)
    struct.pack_into("=IQ", info, _INFO_MAPS, 1, ctypes.addressof(ids))
    bpf(BPF_OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", descriptor, len(info), ctypes.addressof(info)))
    _, number, tag = struct.unpack_from("=II8s", info)
    return Info(number, tag, ids[0])


def first_map_of(program: int) -> int:
    """Return a descriptor of the first map of the program with an id, which the caller closes.

    Raises OSError; FileNotFoundError where the program, or its map, is not there.
    """
    descriptor = bpf(BPF_PROG_GET_FD_BY_ID, struct.pack("=I", program))
    try:
        return bpf(BPF_MAP_GET_FD_BY_ID, struct.pack("=I", info_of(descriptor).map_id))
    finally:
        os.close(descriptor)


def load(code: bytes, name: str) -> int:
    """Load a program of type ``sched_cls`` and return its descriptor; raises OSError.

    Where the kernel's verifier refuses it, the error holds the last of what it said.
    """
    instructions = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"Apache-2.0")

    def attempt(log: ctypes.Array[ctypes.c_char] | None) -> int:
        size, at = (len(log), ctypes.addressof(log)) if log is not None else (0, 0)
        begin = struct.pack("=II", BPF_PROG_TYPE_SCHED_CLS, len(code) // 8)
        begin += struct.pack("=QQ", ctypes.addressof(instructions), ctypes.addressof(licence))
        end = struct.pack("=IIQII16s", int(bool(size)), size, at, 0, 0, name.encode())
        return bpf(BPF_PROG_LOAD, begin + end)

    try:
        return attempt(None)
    except OSError as error:
        log = ctypes.create_string_buffer(65536)
        try:
            return attempt(log)
        except OSError:
            said = log.value.decode(errors="replace").strip().splitlines()[-3:]
            raise OSError(error.errno, "; ".join([error.strerror or "", *said])) from error


class Assembler:
    """Writes a program, one method for each instruction; jumps go to labels that are set before or after.

    Registers are numbers: 0 has results, 1 to 5 arguments, 6 to 9 stay over a call, 10 is the stack.
    """

    def __init__(self) -> None:
        self._code: list[tuple[int, int, int, int, int, str]] = []
        self._labels: dict[str, int] = {}

    def _put(
        self, op: int, to: int = 0, source: int = 0, offset: int = 0, value: int = 0, go: str = ""
    ) -> None:
        self._code.append((op, to, source, offset, value, go))

    def label(self, name: str) -> None:
        """Set a label here."""
        self._labels[name] = len(self._code)

    def set(self, to: int, value: int) -> None:
        """Set a register to a number."""
        self._put(0xB7, to, value=value)

    def move(self, to: int, source: int) -> None:
        """Copy a register."""
        self._put(0xBF, to, source)

    def compute(self, to: int, operator: str, value: int) -> None:
        """Change a register by ``+``, ``&``, ``>>`` or ``<<`` and a number."""
        self._put(_ALU[operator], to, value=value)

    def add(self, to: int, source: int) -> None:
        """Add a register to another."""
        self._put(0x0F, to, source)

    def from_network(self, register: int) -> None:
        """Turn 16 bits in the network's order into a number."""
        self._put(0xDC, register, value=16)

    def load(self, to: int, size: int, source: int, offset: int) -> None:
        """Load from where a register points, and ``offset`` bytes further."""
        self._put(0x61 | size, to, source, offset)

    def store(self, size: int, to: int, offset: int, source: int) -> None:
        """Store a register where another points, and ``offset`` bytes further."""
        self._put(0x63 | size, to, source, offset)

    def store_number(self, size: int, to: int, offset: int, value: int) -> None:
        """Store a number where a register points, and ``offset`` bytes further."""
        self._put(0x62 | size, to, 0, offset, value)

    def count(self, at: int, source: int) -> None:
        """Add a register to the 64 bits where another points, for all processors at once."""
        self._put(0xDB, at, source)

    def map(self, to: int, map_fd: int) -> None:
        """Set a register to a map."""
        self._put(0x18, to, BPF_PSEUDO_MAP_FD, 0, map_fd)
        self._put(0)

    def call(self, function: int) -> None:
        """Call a function of the kernel: registers 1 to 5 are its arguments, 0 its result."""
        self._put(0x85, value=function)

    def go(self, label: str) -> None:
        """Jump."""
        self._put(0x05, go=label)

    def go_if(self, register: int, comparison: str, value: int, label: str) -> None:
        """Jump where a register is ``==``, ``!=``, ``>``, ``<`` a number, or ``&`` it is not 0."""
        self._put(_JUMPS[comparison], register, value=value, go=label)

    def go_if_above(self, register: int, other: int, label: str) -> None:
        """Jump where a register is greater than another."""
        self._put(0x2D, register, other, go=label)

    def leave(self) -> None:
        """End with what register 0 holds."""
        self._put(0x95)

    def code(self) -> bytes:
        """Return the program."""
        parts = []
        for at, (op, to, source, offset, value, go) in enumerate(self._code):
            if go:
                if go not in self._labels:
                    raise Internal(f"a program for the kernel jumps to {go}, which is nowhere")
                offset = self._labels[go] - at - 1  # noqa: PLW2901 - only now known
            parts.append(_INSTRUCTION.pack(op, to | source << 4, offset, value))
        return b"".join(parts)
