"""Media: fetching and decoding."""
