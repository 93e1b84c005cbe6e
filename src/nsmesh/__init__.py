"""nsmesh: a Network Service Mesh for OSI layers 2 and 3."""

__version__ = "0.1.0"
