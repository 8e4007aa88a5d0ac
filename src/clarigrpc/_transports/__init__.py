"""What moves bytes: gRPC, HTTP/JSON, several connections."""
