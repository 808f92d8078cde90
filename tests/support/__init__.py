"""Rigs and fakes that the tests share."""
