"""The web page and the HTTP API of `earmark web`: a client of the gRPC service."""
