"""The error with which a benchmark stops."""


class BenchmarkError(Exception):
    """Nothing can be measured. The message states the cause and the remedy."""
