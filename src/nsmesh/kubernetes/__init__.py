"""Kubernetes: the API server as a registry's memory, and what the mesh shows there."""
