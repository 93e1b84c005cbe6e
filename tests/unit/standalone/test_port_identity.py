"""What a mesh port shows is valid by the clock, whichever way that was set."""

from __future__ import annotations

import pytest

from nsmesh.core import virtual
from nsmesh.security.ca import CertificateAuthority
from nsmesh.standalone.joining.pinned import PortIdentity


@pytest.mark.parametrize("steps", [(3600.0, 0.0), (0.0, 7200.0), (86400.0, -30.0)])
def test_a_clock_that_is_set(tmp_path, steps):
    """A certificate from the future is no better than one that has ended."""

    async def main():
        clock = virtual.SettableClock()
        identity = PortIdentity(CertificateAuthority.open(tmp_path, "my.nsmesh", clock=clock), clock)
        for step in steps:
            clock.by = step
            identity.server_context()
            svid = identity._source.svid
            assert svid.not_before <= clock.now() < svid.not_after

    virtual.run(main())
