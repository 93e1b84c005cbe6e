"""Checks of the wire contract against any peers: what a manager and a registry must do."""
