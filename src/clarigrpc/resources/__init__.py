"""The service by domain: operations as plans, and their blocking and awaiting faces."""
