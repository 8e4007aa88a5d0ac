"""One call: options to metadata, deadline, retries, status to value."""
