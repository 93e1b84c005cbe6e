"""Reference network functions."""
