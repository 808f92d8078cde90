"""A model for new keywords: a head on a speech embedding, trained with recordings or synthetic voices."""
