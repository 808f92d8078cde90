"""Metrics of the server and of its RPCs."""
