"""The whole mesh on this host."""
