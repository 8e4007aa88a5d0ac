"""How requests reach the server: gRPC, HTTP/JSON, the first API generation, downloads."""
