"""Uploads of files in parts: one state machine, a blocking and an awaiting driver."""
