"""Fixtures for tests of whole meshes."""

import mesh_lab
import pytest
from whole_meshes import no_leaks

__all__ = ["no_leaks"]


@pytest.fixture
def lab():
    """Give a mesh that is not up yet."""
    with mesh_lab.Lab() as lab:
        yield lab
