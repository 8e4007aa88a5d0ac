"""Fetching and decoding of media."""
