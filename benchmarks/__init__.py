"""Commands that measure Earmark; each is started with `python -m benchmarks.NAME`."""
