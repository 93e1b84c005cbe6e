"""Identity, tokens, policies."""
