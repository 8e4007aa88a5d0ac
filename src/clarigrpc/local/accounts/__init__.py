"""Users, apps, keys and OAuth2 applications: who calls, and what they may do."""
