"""Identities of pods: a CA in the cluster, and an agent on each node that tells pods apart."""
