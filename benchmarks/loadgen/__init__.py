"""The load generator, which the benchmark commands share."""
