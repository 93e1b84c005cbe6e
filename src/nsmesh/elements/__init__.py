"""One concern each; a role is a list of them."""
