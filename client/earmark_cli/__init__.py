"""The `earmark` command: one module per command."""
