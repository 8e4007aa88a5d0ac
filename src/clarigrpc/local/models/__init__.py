"""The models inside the local server."""
