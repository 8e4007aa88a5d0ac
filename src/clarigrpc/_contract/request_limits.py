"""Limits of a request that the service documents."""

MAX_ITEMS = 128
"""Most items of a request, and the default and largest size of a page."""
