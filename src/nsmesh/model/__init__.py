"""Pure functions and records: paths, matching, prefixes, wiring, manifests."""
