"""What is kept: resources in SQLite, their index, files."""
