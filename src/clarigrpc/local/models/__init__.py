"""The models that the server runs: the public ones, trained classifiers, Python functions."""
