"""Scripts that run in the interpreter of the peer that they call."""
