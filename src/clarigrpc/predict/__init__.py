"""Predicting many inputs: batches, streams and shared requests."""
