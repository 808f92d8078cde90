"""The model: network, recipe, training, and export."""
