"""Responses as they come, in both directions."""
