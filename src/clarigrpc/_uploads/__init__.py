"""Uploads of files in parts: chunks, resume, checksums."""
