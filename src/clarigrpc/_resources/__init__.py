"""The service by domain: one file a domain, sync and async."""
