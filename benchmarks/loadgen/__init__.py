"""The load generator: what the benchmark commands share."""
