"""A model for a new keyword: fine-tuned from the bundled model with some tens of recordings."""
