"""The Wyoming bridge: a wake-word service for Home Assistant, and a client of the gRPC service."""
