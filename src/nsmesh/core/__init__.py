"""The machinery: calls, elements, chains, begin, errors, time."""
