"""Facts of the V2 contract: one row a method, and what is deprecated."""
