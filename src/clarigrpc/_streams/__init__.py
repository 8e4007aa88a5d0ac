"""Streaming RPCs: server streams and bidi streams as iterators."""
