"""The guard: closes connections before the memory limit is reached, and those that flood gRPC."""
