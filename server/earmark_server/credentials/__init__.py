"""Certificates, tokens, and the keys of resume tokens."""
