"""Reference network functions: what stands at the end, or in the middle, of a wire."""
