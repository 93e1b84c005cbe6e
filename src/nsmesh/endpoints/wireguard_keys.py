"""WireGuard keys: X25519, in base64. A private key lives in a file for its owner alone, and nowhere else.

``python -m nsmesh.endpoints.wireguard_keys FILE`` makes FILE (if it is not there) and FILE.pub, and prints
the public key.
"""

from __future__ import annotations

import base64
import os
import stat
import sys
import time
from pathlib import Path

from nsmesh.core.errors import Invalid, MeshError, NotFound, Unauthorized
from nsmesh.model.wireguard import PrivateKey, generate, key_bytes


def decode(text: str, what: str) -> bytes:
    """Return the 32 bytes of a base64 key. Raises Invalid, naming ``what`` and not the key."""
    raw = key_bytes(text)
    if not raw:
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
    """Read the private key at ``path``, or make one there (mode 0600); write ``path``.pub beside it.

    Beside a key that is there nothing is written where nothing can be, as in a mounted secret.
    """
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if path.exists():
            key = read_private(path)
            if not os.access(path.parent, os.W_OK):
                return key
        else:
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
