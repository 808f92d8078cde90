"""`earmark record-keyword`: record takes of a keyword, to train a model with."""
