"""Journals: what a process has agreed, kept so that the next one goes on with it."""
