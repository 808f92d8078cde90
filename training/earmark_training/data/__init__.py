"""Training data: recordings, transcripts, features, augmentation and examples."""
