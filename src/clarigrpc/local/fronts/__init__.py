"""How requests reach the local server: gRPC, HTTP/JSON, the first API generation."""
