"""Desired wires in, kernel state out."""
