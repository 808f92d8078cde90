"""The page of `earmark web`, and HTTP for those who come from there: a client of the service."""
