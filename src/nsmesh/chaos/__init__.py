"""Faults on purpose: what breaks, what a stream of packets loses by it, and how soon all is well again."""
