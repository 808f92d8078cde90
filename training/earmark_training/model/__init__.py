"""The model: network, recipe, training, and model files."""
