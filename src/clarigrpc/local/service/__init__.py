"""What every call passes: dispatch, accounts, scopes, limits, faults."""
