"""Methods of a model with named arguments: signatures and values."""
