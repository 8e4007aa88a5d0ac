"""What a client is told: arguments, environment, config file, credentials."""
