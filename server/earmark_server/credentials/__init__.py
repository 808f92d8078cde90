"""Certificates, tokens and keys, and how their files are reloaded."""
