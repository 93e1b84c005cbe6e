"""WireGuard keys: X25519, in base64. A private key lives in a file for its owner alone, and nowhere else.

``python -m nsmesh.endpoints.wireguard_keys FILE`` makes FILE (if it is not there) and FILE.pub, and prints
the public key.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
import sys
import time
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from nsmesh.core.errors import Invalid, MeshError, NotFound, Unauthorized


class PrivateKey:
    """A private key that does not show itself: not in a log, not in an error, not in a repr."""

    __slots__ = ("_key",)

    def __init__(self, raw: bytes) -> None:
        self._key = X25519PrivateKey.from_private_bytes(raw)

    @property
    def public(self) -> str:
        """The public key, base64."""
        return base64.b64encode(self._key.public_key().public_bytes_raw()).decode()

    def reveal(self) -> bytes:
        """Return the 32 secret bytes, for the socket of WireGuard or the owner's file alone."""
        return self._key.private_bytes_raw()

    def __repr__(self) -> str:
        return f"PrivateKey(public={self.public})"


def generate() -> PrivateKey:
    """Return a new key."""
    return PrivateKey(X25519PrivateKey.generate().private_bytes_raw())


def decode(text: str, what: str) -> bytes:
    """Return the 32 bytes of a base64 key. Raises Invalid, naming ``what`` and not the key."""
    try:
        raw = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 32:
        raise Invalid(f"{what} is no WireGuard key", remedy="a key is 32 bytes in base64, 44 characters")
    return raw


def read_private(path: Path) -> PrivateKey:
    """Read a private key. Raises NotFound, Unauthorized where others may read the file, or Invalid."""
    try:
        with path.open() as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise NotFound(
            f"the private key {path} cannot be read: {error}",
            remedy=f"make it: python -m nsmesh.endpoints.wireguard_keys {path}",
        ) from None
    if mode & 0o077:
        raise Unauthorized(
            f"others may read the private key {path} (mode {mode:04o})", remedy=f"chmod 600 {path}"
        )
    return PrivateKey(decode(text, f"what {path} holds"))


def read_public(path: Path) -> str:
    """Read a public key, base64. Raises NotFound or Invalid."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise NotFound(f"the public key {path} cannot be read: {error}") from None
    return base64.b64encode(decode(text, f"what {path} holds")).decode()


def await_public(path: Path, seconds: float) -> str:
    """Read a public key that somebody is about to write. Raises as :func:`read_public`, after ``seconds``."""
    end = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.02)
    return read_public(path)


def ensure(path: Path) -> PrivateKey:
    """Read the private key at ``path``, or make one there (mode 0600); write ``path``.pub beside it."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        key = read_private(path)
    except OSError as error:
        raise NotFound(f"the private key {path} cannot be made: {error.strerror}") from None
    else:
        key = generate()
        with os.fdopen(file, "wb") as out:
            out.write(base64.b64encode(key.reveal()) + b"\n")
    new = path.with_name(f"{path.name}.pub.new")
    new.write_text(f"{key.public}\n")
    new.replace(path.with_name(f"{path.name}.pub"))  # whoever waits for it finds it whole
    return key


def main(argv: list[str]) -> int:
    """Make the key pair that the command line names; return the exit code."""
    if len(argv) != 1 or argv[0].startswith("-"):
        print("usage: python -m nsmesh.endpoints.wireguard_keys FILE", file=sys.stderr)  # noqa: T201 - a command
        return 2
    try:
        key = ensure(Path(argv[0]))
    except MeshError as error:
        print(error, file=sys.stderr)  # noqa: T201 - a command
        return 1
    print(key.public)  # noqa: T201 - a command
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
