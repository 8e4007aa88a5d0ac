"""What is kept: resources in SQLite, uploaded files, files to download."""
