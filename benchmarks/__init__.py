"""Benchmark commands. Run one with `python -m benchmarks.NAME`."""
