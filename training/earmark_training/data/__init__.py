"""Data: recordings, transcripts, features, augmentation, and training examples."""
