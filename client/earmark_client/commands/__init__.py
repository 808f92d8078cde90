"""The commands behind `earmark`."""
