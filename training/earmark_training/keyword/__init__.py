"""A keyword of one's own: from tens of recordings and the shipped model to a model file."""
