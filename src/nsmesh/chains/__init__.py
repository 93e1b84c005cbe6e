"""Compositions of elements into roles: read these first."""
