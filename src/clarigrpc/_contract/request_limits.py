"""Limits of a request that the service documents."""

MAX_ITEMS = 128
"""Maximum items per request, and the default page size."""
