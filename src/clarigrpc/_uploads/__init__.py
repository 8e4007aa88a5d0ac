"""Files in parts: chunks, resumption, checksums."""
