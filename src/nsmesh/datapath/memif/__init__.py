"""A memif peer in Python, small enough to be read: for tests, and for endpoints that answer a ping."""
