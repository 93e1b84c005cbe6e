"""Plug-ins: what is offered, what is accepted, and the port that results."""
